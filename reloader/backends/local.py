"""Reads that need no server: each knows how to answer itself. The easiest start for a source of a new kind.

A source asks here by `backend = plan.Local()` and a `read` that follows `LocalRead`, a frozen dataclass as a rule:

    @dataclass(frozen=True)
    class Hostname:
        poll: float = 30.0

        def answer(self) -> str:
            try:
                return Path("/etc/hostname").read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ReadFailed(FailureKind.REFUSED, f"/etc/hostname: {error.strerror}; mount it into this container") from None

Threads, waiting, jitter, retries with backoff and the sharing of equal reads come with the backend.
"""

from collections.abc import Hashable
from math import inf
from typing import Any, Protocol, cast

from reloader.backends.reads import Fetched, ReadFailed, ReadingBackend
from reloader.backends.turns import Turns
from reloader.plan import Local
from reloader.schedule import next_poll
from reloader.snapshot import Reading, Value
from reloader.world import World

__all__ = ["Backend", "LocalRead", "ReadFailed"]

LONGEST_READ = 30.0
"""How many seconds an answer may take; a longer one is reported as stuck."""


class LocalRead(Protocol):
    """A read that answers itself; equal ones are read once, so it must be hashable and hold nothing but what it was configured with."""

    @property
    def poll(self) -> float:
        """Return the seconds between two reads; infinite for one read per run."""
        ...

    def answer(self) -> Value:
        """Return the value, within `LONGEST_READ` seconds.

        Raises:
            ReadFailed: there is none; the message says where, why and what to do next, and shows no value.

        """
        ...


class Backend(ReadingBackend):
    """Asks each read for its answer, when it is due."""

    def __init__(self, plan: Local, turns: Turns, world: World) -> None:  # noqa: ARG002 - what every backend is made with
        super().__init__(turns, world, longest_read=LONGEST_READ)

    def fetch(self, read: Hashable, state: Any, hold: float) -> Fetched:  # noqa: ARG002 - nothing is blocked for or remembered
        """Return the read's own answer, complete by itself."""
        local = cast("LocalRead", read)
        value, now = local.answer(), self._world.clock.now()
        due = inf if local.poll == inf else next_poll(now, local.poll, self._world.random)
        # The next read takes its time too, and while it does, the value is as current as was asked for.
        return Fetched(reading=Reading(value=value, at=now, current_until=due + LONGEST_READ, whole=True), due=due, polled=local.poll < inf)

    def repeatable(self, read: Hashable) -> bool:
        """Return whether the read is polled; what is read once per run stays so."""
        return cast("LocalRead", read).poll < inf

    def free(self) -> None:
        """Do nothing: there is no connection."""
