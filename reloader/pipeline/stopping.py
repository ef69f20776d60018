"""Ends the target of a closed pipeline, and each process that comes in its place."""

from collections.abc import Set as AbstractSet
from signal import SIGKILL

from reloader.pipeline.stages import StageFailed, Stages
from reloader.status import Metrics
from reloader.targets import Held, Instance, Stops, Target, Trouble
from reloader.world import World

PATIENCE = 30.0
"""How many seconds a target has to end before it is killed."""


class Stopping:
    """Who was told to end, and when each is killed."""

    def __init__(self, pipeline: str, target: Target, stages: Stages, metrics: Metrics, world: World) -> None:
        self._pipeline, self._target, self._stages, self._metrics, self._world = pipeline, target, stages, metrics, world
        self._kill_at: dict[Instance, float] = {}

    def there(self) -> frozenset[Instance]:
        """Return who is there.

        Raises:
            Held: nobody is, or it is not clear who is meant.

        """
        return frozenset(self._target.instances())

    def forget(self) -> None:
        """Let everybody live."""
        self._kill_at.clear()

    def end(self, signal: int, now: float) -> bool:
        """Tell everybody to end who was not told yet, kill who did not; return whether nobody is there."""
        if not isinstance(self._target, Stops):
            return True
        try:
            there = self.there()
        except Held as held:
            return self._is_over(held)
        self._keep(there)
        for instance in there:
            self._end(self._target, instance, signal, now)
        return False

    def _is_over(self, held: Held) -> bool:
        if held.trouble in (Trouble.ABSENT, Trouble.GONE):
            self._keep(frozenset())
            return True
        self._fail(held)
        return False

    def _keep(self, there: AbstractSet[Instance]) -> None:
        self._kill_at = {instance: at for instance, at in self._kill_at.items() if instance in there}

    def _end(self, target: Stops, instance: Instance, signal: int, now: float) -> None:
        kill_at = self._kill_at.get(instance)
        if kill_at is not None and now < kill_at:
            return
        try:
            with self._stages.stage("stop" if kill_at is None else "kill", 0):
                target.stop(instance, signal if kill_at is None else SIGKILL)
        except StageFailed as failed:
            if isinstance(failed.cause, Held) and failed.cause.trouble is not Trouble.GONE:
                self._metrics.count("signal_failures", self._pipeline, reason=failed.cause.trouble.value)
        else:
            self._kill_at[instance] = now + PATIENCE

    def _fail(self, held: Held) -> None:
        self._stages.failed("stop", str(held), 0)
        self._metrics.count("signal_failures", self._pipeline, reason=held.trouble.value)
