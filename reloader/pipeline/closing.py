"""What a pipeline does while the failure table says closed: what `when_closed` lists, in its order, until the cause is gone."""

import logging
from collections.abc import Callable
from math import inf

from reloader.pipeline.content import ERRORED, Content
from reloader.pipeline.stages import StageFailed, Stages
from reloader.pipeline.stopping import Stopping
from reloader.plan import Pipeline as Plan, closing_name
from reloader.policy import Cause, Verdict
from reloader.targets import Held, Instance
from reloader.volume import Mounted, Volume
from reloader.world import World

LIMIT = 35.0
"""How many seconds each action has before the next one is done though this one is not; a target is killed before that."""
LOOK = 1.0
"""How often to look whether a target came back, or is there still."""


class Closing:
    """Closes and opens one pipeline. It never waits: `look_at` says when it wants to be called again."""

    def __init__(
        self,
        plan: Plan,
        volume: Volume | Mounted,
        content: Content,
        stopping: Stopping,
        stages: Stages,
        world: World,
        leave: Callable[[], None],
    ) -> None:
        self._plan, self._volume, self._content, self._stopping = plan, volume, content, stopping
        self._stages, self._world, self._leave = stages, world, leave
        self._since: float | None = None
        self._begun: dict[str, float] = {}
        """When each action was begun."""
        self._withdraw_at = -inf
        self._failures = 0
        self._met: frozenset[Instance] | None = None
        """Who was there when what they did not take was withdrawn, or the last time that was clear."""
        self._left = False
        self.look_at = inf

    @property
    def in_effect(self) -> tuple[str, ...]:
        """Return what of `when_closed` is done now."""
        if self._since is None:
            return ()
        done = {
            "not_ready": True,
            "withdraw": self._volume.record.closed and self._volume.published is None,
            "stop_target": "_stop" in self._begun,
            "exit": self._left,
        }
        listed = (closing_name(action) for action in self._plan.failure.when_closed)
        return tuple(sorted({name for name in listed if done[name]}, key=list(done).index))

    @property
    def _number(self) -> int:
        published = self._volume.published
        return published.number if published else 0

    def converge(self, verdict: Verdict, *, may_act: bool) -> None:
        """Do the next action of a closed pipeline, or note that it is open again.

        `may_act` is false before every source has answered or failed in this run, within `startup_grace`: what was taken over from an
        earlier run is not taken away, because its age may be but the time in which nothing ran. And while a set is about to be tried
        that may open it.
        """
        self.look_at = inf
        if not verdict.closed:
            self._open()
            return
        now = self._world.clock.now()
        if self._since is None:
            self._close(verdict, now)  # and is reported as not ready before anything else is done
        elif may_act:
            self._act(verdict, now)
        else:
            self.look_at = now + LOOK

    def _close(self, verdict: Verdict, now: float) -> None:
        self._since = self.look_at = now
        self._stages.note("closed", self._number, level=logging.ERROR, outcome="failed", reason="; ".join(verdict.reasons))

    def _open(self) -> None:
        if self._since is not None:
            self._stages.note("open again", self._number)
        self._since, self._met = None, None
        self._begun.clear()
        self._stopping.forget()
        self._failures, self._withdraw_at = 0, -inf

    def _act(self, verdict: Verdict, now: float) -> None:
        self.look_at = now + LOOK
        if verdict.causes != {Cause.NOTHING} and not all(self._done(step, verdict, now) for step in (self._withdraw, self._stop)):
            return
        if self._plan.failure.closes_by("exit") and not self._left:
            self._left = True
            self._leave()

    def _done(self, step: Callable[[Verdict, float], bool], verdict: Verdict, now: float) -> bool:
        """Take one step of an action; return whether it is done, or has had its time."""
        begun = self._begun.setdefault(step.__name__, now)
        return step(verdict, now) or now - begun >= LIMIT

    def _withdraw(self, verdict: Verdict, now: float) -> bool:
        """Let readers see nothing; what the target did not take is remembered as refused, so that it does not come back at once."""
        if not self._plan.failure.closes_by("withdraw"):
            return True
        if self._volume.published is None:
            self._meet_again(verdict)
            return True
        if now < self._withdraw_at:
            return False
        try:
            self._content.withdraw("; ".join(verdict.reasons), refused=Cause.DELIVERY in verdict.causes)
        except StageFailed as failed:
            self._content.refuse_volume(failed)
            self._failures += 1
            self._withdraw_at = now + ERRORED.delay(self._failures, self._world.random)
            return False
        self._failures = 0
        return True

    def _meet_again(self, verdict: Verdict) -> None:
        """Have what a target did not take tried again when another one is there; not where each that comes is ended."""
        if self._plan.failure.stop_target is not None or Cause.WITHDRAWN not in verdict.causes:
            return
        try:
            there = self._stopping.there()
        except Held:  # nobody, or several: who comes of that is another one, unless it is who was there before
            there = self._met or frozenset()
        if self._met is not None and there != self._met:
            self._content.retry_refused()
        self._met = there

    def _stop(self, _verdict: Verdict, now: float) -> bool:
        stop = self._plan.failure.stop_target
        return stop is None or self._stopping.end(stop.signal, now)
