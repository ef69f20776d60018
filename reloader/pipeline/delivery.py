"""Makes the target match the volume: a reload is owed until the target confirmed what is published."""

from dataclasses import asdict, dataclass
from math import inf

from reloader.pipeline.stages import StageFailed, Stages
from reloader.plan import Timing
from reloader.policy import Delivery as State
from reloader.schedule import Backoff, splay
from reloader.status import Metrics
from reloader.targets import Held, Instance, Judgement, Target, Trouble, Verdict, Verification
from reloader.volume import Mounted, Published, Volume
from reloader.world import World

HELD = Backoff(base=0.05, cap=2.0)
"""How soon a target that cannot be asked now is looked at again; a start-up window is milliseconds to seconds."""
REFUSED = Backoff(base=5.0, cap=300.0)
"""How soon a target that refused is asked again for the same content."""


@dataclass(frozen=True)
class _Under:
    """A verification under way."""

    verification: Verification
    number: int
    instance: Instance
    began: float


class Delivery:
    """The second convergence of one pipeline. It never waits: `look_at` says when it wants to be called again."""

    def __init__(
        self, pipeline: str, target: Target, volume: Volume | Mounted, timing: Timing, stages: Stages, metrics: Metrics, world: World
    ) -> None:
        self._pipeline = pipeline
        self._target = target
        self._volume = volume
        self._timing = timing
        self._stages = stages
        self._metrics = metrics
        self._world = world
        self._under: _Under | None = None
        self._number = 0
        self._failures = 0
        self._ask_at = -inf
        self._refused_by: Instance | None = None
        self._again_at = -inf
        self.look_at = inf
        self.state = State.OWED
        self.reason = ""
        self.trouble: Trouble | None = None
        self.instance: Instance | None = None
        self.last_signal: float | None = None
        self.successful: bool | None = None
        self.last_success: float | None = None

    @property
    def busy(self) -> bool:
        """Return whether the target is still reading what is published, as far as a verification can tell: newer content waits."""
        return self._under is not None and self._under.verification.proves_completion

    def converge(self) -> None:
        """Go one step: find the target, ask it, or judge whether it did."""
        published = self._volume.published
        if published is None:
            return
        if published.number != self._number:
            self._begin(published)
        if self._under is not None:
            self._judge(self._under)
        elif (now := self._world.clock.now()) >= self._ask_at:
            self._ask(published, now)
        else:
            self.look_at = self._ask_at

    def _begin(self, published: Published) -> None:
        """Turn to a newer generation; what was held against the older one no longer counts."""
        if self.state is State.CONFIRMED or not self._number:  # one random delay for all changes that come within it
            self._ask_at = splay(self._world.clock.now(), self._timing.splay, self._world.random)
        self._number, self._under, self._failures, self._refused_by = published.number, None, 0, None
        self.state, self.reason = State.OWED, "not asked for yet"

    def _ask(self, published: Published, now: float) -> None:
        try:
            instance = self._target.find()
            if self._volume.confirmed_by(published.number, asdict(instance)):
                self._settle(instance)
            elif instance == self._refused_by and now < self._again_at:
                self.look_at = self._again_at
            else:
                self._start(published, instance, now)
        except Held as held:
            self._hold(held)
        except StageFailed as failed:
            self._hold(failed.cause)

    def _start(self, published: Published, instance: Instance, now: float) -> None:
        """Ask for a reload; of a target that started after the publish, only ask whether it runs."""
        after = instance.is_process and instance.started > published.at
        verification = self._target.verify(instance) if after else self._reload(instance)
        self._found(instance)
        self._under = _Under(verification, published.number, instance, now)
        self._judge(self._under)

    def _reload(self, instance: Instance) -> Verification:
        with self._stages.stage("reload", self._number):
            verification = self._target.reload(instance)
        self.last_signal = self._world.clock.now()
        self._metrics.count("reloads", self._pipeline)
        return verification

    def _hold(self, cause: Exception) -> None:
        """Leave the reload owed, and look again soon."""
        trouble = cause.trouble if isinstance(cause, Held) else None
        absent = trouble in (Trouble.ABSENT, Trouble.GONE)
        if not absent and trouble is not self.trouble:
            self._note_trouble(trouble, str(cause))
        self._failures += 1
        self.trouble, self.reason, self.instance = trouble, str(cause), None
        self.state = State.ABSENT if absent else State.TROUBLED
        self.look_at = self._world.clock.now() + HELD.ceiling(self._failures)

    def _note_trouble(self, trouble: Trouble | None, reason: str) -> None:
        self._metrics.count("signal_failures", self._pipeline, reason=(trouble or "error"))
        self._stages.failed("find", reason, self._number)
        if trouble is not Trouble.NOT_READY:  # that one passes by itself
            self._metrics.count("failed", self._pipeline)
            self.successful = False

    def _judge(self, under: _Under) -> None:
        judgement = under.verification.judge()
        now = self._world.clock.now()
        if judgement.verdict is Verdict.PENDING:
            self.state, self.reason, self.look_at = State.OWED, "being verified", judgement.look_at
        elif judgement.verdict is Verdict.CONFIRMED:
            self._confirm(under, now)
        elif judgement.verdict is Verdict.REFUSED:
            self._refuse(under, judgement, now)
        else:
            self._failures += 1
            self.state, self.reason, self.look_at = State.TROUBLED, judgement.reason, now + HELD.ceiling(self._failures)

    def _confirm(self, under: _Under, now: float) -> None:
        self._volume.confirm(under.number, asdict(under.instance))
        self._volume.sweep(now)
        self._metrics.took(self._pipeline, "verify", now - under.began)
        self._stages.succeeded("verify", under.number, now - under.began)
        self.successful, self.last_success = True, self._world.clock.wall()
        self._settle(under.instance)

    def _settle(self, instance: Instance) -> None:
        """Nothing is owed."""
        self._found(instance)
        self._under, self._failures, self.look_at = None, 0, inf
        self.state, self.reason = State.CONFIRMED, ""

    def _found(self, instance: Instance) -> None:
        self.instance = instance
        if self.trouble is not None:
            self.trouble = None
            self._stages.succeeded("find", self._number, 0.0, quiet=True)

    def _refuse(self, under: _Under, judgement: Judgement, now: float) -> None:
        """Leave the reload owed, and ask this process again later; one that is started anew is verified when it is there."""
        self._under = None
        self._failures += 1
        self._metrics.count("failed", self._pipeline)
        self._metrics.count("refusals", self._pipeline, stage="verify")
        self._stages.failed("verify", judgement.reason, under.number)
        self.successful = False
        self.state, self.reason = State.TROUBLED, judgement.reason
        self._refused_by, self._again_at = under.instance, now + REFUSED.delay(self._failures, self._world.random)
        self.look_at = now + HELD.base
