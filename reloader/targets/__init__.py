"""Who takes the configuration: finds the target, asks it to reload, proves that it did.

A target of a new kind is one module here, `reloader/targets/KIND.py`, or a module that a package names under the entry point group
`reloader.targets`. It has two names: `Settings`, a dataclass made with `written.plain`, and `Target`, which follows the protocol below.
`Settings` may have a method `mistakes()` for rules between its keys: it yields `(key, message)`, the key dotted where it is nested.

Nothing here waits: the pipeline looks again when it is told to, so that newer content, the end of a process or SIGTERM are never held up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from reloader.kinds import Kinds
from reloader.plan import Verify
from reloader.world import World

KINDS = Kinds("reloader.targets", __path__, "target")


class Trouble(StrEnum):
    """Why a reload that is due is not asked for now; also the `reason` label of `reloader_signal_failures_total`."""

    ABSENT = "absent"
    """Nothing runs on the configuration: quiet, not a failure."""
    AMBIGUOUS = "ambiguous"
    NOT_READY = "not_ready"
    """It would die of the signal: no handler yet."""
    IGNORED = "ignored"
    PERMISSION = "permission"
    GONE = "gone"
    """It ended between being found and being signalled."""


class Held(Exception):
    """The reload cannot be asked for now; the message says why and what mends it."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble


@dataclass(frozen=True, kw_only=True)
class Instance:
    """Who would take a reload now. A process is one as long as it runs; a target without a process is always the same one."""

    pid: int = 0
    started: float = 0.0
    """Seconds of the boot clock; 0 without a process."""
    boot: str = ""
    """The boot in which these mean something."""

    @property
    def is_process(self) -> bool:
        """Return whether a start after the publish means that the configuration was read."""
        return self.pid > 0

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Instance":
        """Return the instance that `dataclasses.asdict` wrote."""
        return cls(pid=int(record["pid"]), started=float(record["started"]), boot=str(record["boot"]))


class Verdict(StrEnum):
    """What a verification knows now."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    """It says no, or proved nothing in its time."""
    ENDED = "ended"
    """The process it is about has ended: a refusal, unless another one comes in its place and lives."""
    UNKNOWN = "unknown"
    """It could not run, or got no answer at all; the reload that was asked for is not asked for again."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict, why, and when to look again while it is pending (or unknown, where that is known)."""

    verdict: Verdict
    reason: str = ""
    look_at: float = 0.0


class Verification(Protocol):
    """One reload being proved, or one start."""

    proves_completion: bool
    """Whether a confirmation means that the target has read the set (newer content then waits for it)."""

    def judge(self) -> Judgement:
        """Return what is known now."""
        ...


class Target(Protocol):
    """One configured target."""

    def instances(self) -> tuple[Instance, ...]:
        """Return all who take reloads, one at least.

        Raises:
            Held: nobody is there, or it is not clear who is meant.

        """
        ...

    def reload(self, instance: Instance) -> Verification:
        """Ask it to reload, once it is sure to survive that, and return what will prove it.

        Raises:
            Held: it may not or cannot be asked now.

        """
        ...

    def verify(self, instance: Instance) -> Verification:
        """Return what will prove that it runs on the set it found when it started."""
        ...

    def descriptors(self) -> tuple[int, ...]:
        """Return the descriptors that become readable when the target ends."""
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


@runtime_checkable
class Stops(Protocol):
    """What a target has beside that if it can be told to end."""

    def stop(self, instance: Instance, signal: int) -> None:
        """Send it a signal that ends it, whether it is ready for one or not.

        Raises:
            Held: it may not be signalled, or has ended.

        """
        ...


@runtime_checkable
class Runs(Protocol):
    """What a target has beside that if this process itself runs it (`World.service`).

    It starts on the first set. When it ends nobody starts it again: this process ends with it, after `instances` was asked once more.
    """

    def start(self) -> float:
        """Start it, unless it was; called whenever something is published. Return when to call again, infinity for whenever."""
        ...


def make(kind: str, settings: Any, verify: Verify, world: World) -> Target:
    """Return a target of that kind."""
    build: Callable[[Any, Verify, World], Target] = KINDS.load(kind).Target
    return build(settings, verify, world)
