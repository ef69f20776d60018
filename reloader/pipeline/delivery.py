"""Makes the target match the volume: a reload is owed until the target confirmed what is published."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import inf

from reloader.pipeline.stages import StageFailed, Stages
from reloader.plan import Pipeline as Plan
from reloader.policy import Delivery as State
from reloader.schedule import Backoff, splay
from reloader.status import Metrics
from reloader.targets import Held, Instance, Judgement, Runs, Target, Trouble, Verdict, Verification
from reloader.volume import Mounted, Published, Volume
from reloader.world import World

HELD = Backoff(base=0.05, cap=2.0)
"""How soon a target that cannot be asked now is looked at again; a start-up window is milliseconds to seconds."""
REFUSED = Backoff(base=5.0, cap=300.0)
"""How soon a target that refused is asked again for the same content, where there is nothing to go back to."""
DEATHS = 2
"""How often a target may end soon after it was given a generation until that counts as a refusal."""
NOBODY = (Trouble.ABSENT, Trouble.GONE)
"""Why there is nobody who could be asked."""
PASSING = (*NOBODY, Trouble.NOT_READY)
"""What is no failure of a reload: it passes by itself."""


@dataclass(frozen=True)
class Refusal:
    """The target does not take a generation."""

    number: int
    reason: str


@dataclass
class _Under:
    """A verification under way."""

    verification: Verification
    began: float
    unanswered: bool = False
    """Whether its time is over without any answer: it goes on, and nobody waits for it."""


@dataclass
class _Handover:
    """One generation being handed over: who is at it, and who did not take it."""

    published: Published | None = None
    ask_at: float = -inf
    under: dict[Instance, _Under] = field(default_factory=dict)
    refused: dict[Instance, float] = field(default_factory=dict)
    """Who refused it, and when each is asked again."""
    judged_since: float | None = None
    """When the verification began that ended last."""
    told: bool = False
    """Whether a refusal of it was reported."""
    given_up: str = ""
    """Why it was refused, where there was nothing to go back to."""
    deaths: int = 0
    back_by: float = inf
    """When a target that ended must be there again."""
    death: str = ""


class Delivery:
    """The second convergence of one pipeline. It never waits: `look_at` says when it wants to be called again."""

    def __init__(
        self,
        plan: Plan,
        target: Target,
        volume: Volume | Mounted,
        stages: Stages,
        metrics: Metrics,
        world: World,
        *,
        was_refused: Callable[[str], bool],
    ) -> None:
        self._plan = plan
        self._was_refused = was_refused
        self._target = target
        self._volume = volume
        self._stages = stages
        self._metrics = metrics
        self._world = world
        self._handover = _Handover()
        self._failures = 0
        self.look_at = inf
        self.state = State.OWED
        self.reason = ""
        self.refusal: Refusal | None = None
        """What the target refused, until `answer` takes note of it."""
        self.trouble: Trouble | None = None
        self.instances: tuple[Instance, ...] = ()
        self.last_signal: float | None = None
        self.successful: bool | None = None
        self.last_success: float | None = None

    @property
    def busy(self) -> bool:
        """Return whether the target is still reading what is published, as far as a verification can tell: newer content waits."""
        return any(under.verification.proves_completion for under in self._handover.under.values())

    @property
    def under_way(self) -> bool:
        """Return whether somebody was given what is published, or is about to be, and may still say yes or no in its time."""
        waits = self._handover.published is not None and self._world.clock.now() < self._handover.ask_at
        return waits or not all(under.unanswered for under in self._handover.under.values())

    @property
    def is_asking(self) -> bool:
        """Return whether somebody was given what is published, and has not said yes or no."""
        return bool(self._handover.under)

    @property
    def number(self) -> int:
        """Return the number of the generation that is being handed over."""
        return self._handover.published.number if self._handover.published else 0

    def converge(self) -> None:
        """Go one step: find the target, ask it, or judge whether it did."""
        published = self._volume.published
        if published is None:
            self._forget()
            return
        if published != self._handover.published:
            self._begin(published)
        self.look_at = self._target.start() if isinstance(self._target, Runs) else inf
        for instance, under in tuple(self._handover.under.items()):
            self._judge(instance, under)
        now = self._world.clock.now()
        if now < self._handover.ask_at:
            self._look(self._handover.ask_at)
        elif self.refusal is None:
            self._ask(published, now)

    def answer(self) -> Refusal | None:
        """Return a refusal once."""
        refusal, self.refusal = self.refusal, None
        return refusal

    def give_up(self, reason: str) -> None:
        """Take note that there is nothing to go back to: what is published stays, and stays owed, however often it is asked for again."""
        self._handover.given_up = reason
        self._owe(State.FAILED, reason)

    def _forget(self) -> None:
        """Nothing is published, so nothing is owed, and nobody is asked whether it was taken."""
        self._handover, self._failures = _Handover(), 0
        self.look_at, self.trouble, self.reason, self.refusal = inf, None, "", None

    def _begin(self, published: Published) -> None:
        """Turn to another generation; what was held against the one before no longer counts."""
        ask_at = self._handover.ask_at
        if self.state is State.CONFIRMED or self._handover.published is None:  # one random delay for all changes that come within it
            ask_at = splay(self._world.clock.now(), self._plan.timing.splay, self._world.random)
        self._handover = _Handover(published, ask_at)
        self._failures = 0
        self.state, self.reason, self.refusal = State.OWED, "not asked for yet", None

    def _ask(self, published: Published, now: float) -> None:
        """Ask everyone who has neither confirmed nor refused; what holds one up does not hold up the others."""
        try:
            instances = self._target.instances()
        except Held as held:
            self._missing(held, now)
            return
        self.instances = instances
        owing = [each for each in instances if not self._volume.confirmed_by(published.number, asdict(each))]
        asked = [self._ask_one(published, each, now) for each in owing]
        troubles = [trouble for trouble in asked if trouble is not None]
        if troubles:
            self._hold(troubles[0])
        elif all(self._volume.confirmed_by(published.number, asdict(each)) for each in owing):
            self._settle()
        else:
            self._found()

    def _ask_one(self, published: Published, instance: Instance, now: float) -> Held | None:
        """Ask for a reload; of a target that started after the publish, only ask whether it runs."""
        if instance in self._handover.under:
            return None
        if now < (again := self._handover.refused.get(instance, -inf)):
            self._look(again)
            return None
        after = instance.is_process and instance.started > published.at
        try:
            verification = self._target.verify(instance) if after else self._reload(instance)
        except Held as held:
            return held
        except StageFailed as failed:
            return failed.cause if isinstance(failed.cause, Held) else Held(Trouble.GONE, str(failed))
        self._handover.under[instance] = under = _Under(verification, self._world.clock.now())
        self._judge(instance, under)
        return None

    def _reload(self, instance: Instance) -> Verification:
        record = self._volume.record  # what of it waits to be written is, before anybody is asked
        is_confirmed = self._volume.last_confirmed == self.number  # who confirmed it runs on it still
        self._volume.note_record(record if is_confirmed else record.doubt())
        with self._stages.stage("reload", self.number):
            verification = self._target.reload(instance)
        self.last_signal = self._world.clock.now()
        self._metrics.count("reloads", self._plan.name)
        return verification

    def _missing(self, held: Held, now: float) -> None:
        """Nobody can be asked; a target that ended on this generation has until `within` to come back."""
        if held.trouble in NOBODY:
            self.instances = ()
        if held.trouble is Trouble.ABSENT and now >= self._handover.back_by:
            self._refuse(self._handover.death)
        else:
            if now < self._handover.back_by:
                self._look(self._handover.back_by)
            self._hold(held)

    def _hold(self, held: Held) -> None:
        """Leave the reload owed, and look again soon."""
        nobody = held.trouble in NOBODY
        if not nobody and held.trouble is not self.trouble:
            self._note_trouble(held)
        self._failures += 1
        self.trouble = held.trouble
        self._owe(State.ABSENT if nobody else State.TROUBLED, str(held))
        self._look(self._world.clock.now() + HELD.ceiling(self._failures))

    def _note_trouble(self, held: Held) -> None:
        self._metrics.count("signal_failures", self._plan.name, reason=held.trouble.value)
        self._stages.failed("find", str(held), self.number, kind=held.trouble.value)
        if held.trouble not in PASSING:
            self._metrics.count("failed", self._plan.name)
            self.successful = False

    def _judge(self, instance: Instance, under: _Under) -> None:
        judgement, now = under.verification.judge(), self._world.clock.now()
        under.unanswered = judgement.verdict is Verdict.UNKNOWN
        if judgement.verdict is Verdict.PENDING:
            self._owe(State.OWED, "being verified")
            self._look(judgement.look_at)
        elif judgement.verdict is Verdict.UNKNOWN:
            self._failures += 1
            self._owe(State.TROUBLED, judgement.reason)
            self._look(judgement.look_at or now + HELD.ceiling(self._failures))
        else:
            del self._handover.under[instance]
            self._end(instance, under, judgement, now)

    def _end(self, instance: Instance, under: _Under, judgement: Judgement, now: float) -> None:
        """Take a verdict that is final for this instance."""
        self._handover.judged_since = under.began
        if judgement.verdict is Verdict.CONFIRMED:
            self._confirm(instance, under, now)
        elif judgement.verdict is Verdict.ENDED:
            self._note_death(under, judgement.reason)
        else:
            self._handover.refused[instance] = now + REFUSED.delay(self._failures + 1, self._world.random)
            self._refuse(judgement.reason)

    def _confirm(self, instance: Instance, under: _Under, now: float) -> None:
        others = [asdict(each) for each in self.instances if self._volume.confirmed_by(self.number, asdict(each))]
        self._volume.confirm(self.number, [*others, asdict(instance)])
        self._volume.sweep(now)
        self._metrics.took(self._plan.name, "verify", now - under.began)
        self._stages.succeeded("verify", self.number, now - under.began)
        self._handover.deaths, self._handover.back_by = 0, inf
        self.successful, self.last_success = True, self._world.clock.wall()

    def _note_death(self, under: _Under, reason: str) -> None:
        """Give a target that ended the rest of its time to come back: it may have been restarted for a reason of its own."""
        self._handover.deaths += 1
        self._handover.death = reason
        self._handover.back_by = under.began + self._plan.target.verify.within
        if self._handover.deaths >= DEATHS or self._ended_for_good():
            self._refuse(reason)
        else:
            self._look(self._world.clock.now())  # its descriptor, which said so, says nothing any more

    def _ended_for_good(self) -> bool:
        """Return whether nobody starts it again on this set, and it left another one to start on the next time."""
        return isinstance(self._target, Runs) and self._volume.rollback_target() not in (None, self.number)

    def _refuse(self, reason: str) -> None:
        """Take note of a no; what follows from it is the pipeline's to say."""
        self._failures += 1
        self._handover.deaths, self._handover.back_by = 0, inf
        self._metrics.count("failed", self._plan.name)
        self._tell(reason)
        self.successful = False
        self.state, self.reason = State.TROUBLED, reason
        self.refusal = Refusal(self.number, reason)

    def _tell(self, reason: str) -> None:
        """Report a refusal; one of a set that was refused before is no news."""
        published = self._handover.published
        again = self._handover.told or (published is not None and self._was_refused(published.fingerprint))
        self._handover.told = True
        if not again:
            self._metrics.count("refusals", self._plan.name, stage="verify")
        since = self._handover.judged_since
        seconds = None if since is None else self._world.clock.now() - since
        self._stages.failed("verify", reason, self.number, again=again, seconds=seconds, kind="refused")

    def _owe(self, state: State, reason: str) -> None:
        """Put down why a reload is owed; one that was given up stays so until it is confirmed, unless nobody is there."""
        given_up = self._handover.given_up
        self.state, self.reason = (State.FAILED, given_up) if given_up and state is not State.ABSENT else (state, reason)

    def _settle(self) -> None:
        """Nothing is owed."""
        self._found()
        self._failures, self._handover.given_up = 0, ""
        self.state, self.reason = State.CONFIRMED, ""

    def _found(self) -> None:
        if self.trouble is not None:
            self.trouble = None
            self._stages.succeeded("find", self.number, 0.0, quiet=True)

    def _look(self, at: float) -> None:
        self.look_at = min(self.look_at, at)
