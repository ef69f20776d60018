"""What readers are given: a new set once it is checked, or an earlier one again."""

from dataclasses import replace
from pathlib import Path

from reloader.check import Checker, CheckRefused
from reloader.fileset import Rendered
from reloader.mask import Mask
from reloader.pipeline.changes import Changes
from reloader.pipeline.stages import Stages
from reloader.plan import Pipeline as Plan, Volume as VolumePlan
from reloader.snapshot import Snapshot
from reloader.status import Metrics
from reloader.volume import Volume
from reloader.world import World


class Publishing:
    """Every way in which the volume of one pipeline changes what it shows."""

    def __init__(self, plan: Plan, stages: Stages, metrics: Metrics, world: World) -> None:
        self._plan = plan
        self._stages = stages
        self._metrics = metrics
        self._world = world
        self._checker = _checker(plan.volume, world)
        self.changes = Changes(world.clock)

    def publish(
        self, volume: Volume, number: int, rendered: Rendered, fingerprint: str, snapshot: Snapshot, *, again: bool, fallback: bool = False
    ) -> None:
        """Stage a set, check it, and let readers see it; `again` says that it was refused before, which is counted and told once.

        Raises:
            StageFailed: it is not published, and nothing of it is left.

        """
        with self._stages.stage("stage", number, quiet=True):
            staged = volume.stage(number, rendered, fingerprint, None if fallback else self._expires(snapshot), fallback=fallback)
        try:
            if self._checker is not None:
                with self._stages.stage("check", number, again=again):
                    self._check(self._checker, staged, rendered, volume, snapshot)
            with self._stages.stage("publish", number), self.changes.publishing(volume, number):
                volume.publish(number)
        except Exception:  # a mistake of ours is tried again like any failure, and would leave a set each time
            volume.discard(number)
            raise

    def put_back(self, volume: Volume, number: int) -> None:
        """Let readers see an earlier generation again, because a person asked for it.

        Raises:
            StageFailed: the volume cannot be written.

        """
        with self._stages.stage("rollback", number), self.changes.publishing(volume, number):
            volume.publish(number)
        self._metrics.count("rollbacks", self._plan.name)

    def republish(self, volume: Volume) -> bool:
        """Let readers see the generation to go back to; nothing, where none was ever confirmed. Return whether that was done.

        Raises:
            StageFailed: the volume cannot be written.

        """
        target = volume.rollback_target()
        if target is None and volume.last_confirmed is not None:
            return False
        if volume.record.rolled_back is not None:  # the target refused what a person held; before the publish, so that a crash keeps it
            volume.note_record(replace(volume.record, rolled_back=target))
        with self._stages.stage("rollback", target or 0), self.changes.publishing(volume, target):
            if target is None:
                volume.withdraw()
            else:
                volume.publish(target)
        self._metrics.count("rollbacks", self._plan.name)
        return True

    def withdraw(self, volume: Volume) -> None:
        """Let readers see nothing, because the pipeline closed.

        Raises:
            StageFailed: the volume cannot be written.

        """
        with self._stages.stage("withdraw", 0), self.changes.publishing(volume, None):
            volume.withdraw(closed=True)

    def _check(self, checker: Checker, staged: Path, rendered: Rendered, volume: Volume, snapshot: Snapshot) -> None:
        try:
            checker.check(staged, rendered, volume.published_files)
        except CheckRefused as refused:
            said = mask_of(snapshot).text(refused.output)
            raise CheckRefused(f"{refused}: {said}" if said else str(refused), "") from None

    def _expires(self, snapshot: Snapshot) -> float | None:
        """Return when something in the set stops being valid, in seconds since the epoch."""
        known = [standing.reading.expires for standing in snapshot.standings.values() if standing.reading is not None]
        earliest = min((expires for expires in known if expires is not None), default=None)
        return None if earliest is None else self._world.clock.wall() + earliest - self._world.clock.now()


def _checker(volume: VolumePlan | None, world: World) -> Checker | None:
    return Checker(volume.check, world.children, world.clock, target_path=volume.target_path) if volume and volume.check else None


def mask_of(snapshot: Snapshot) -> Mask:
    """Return what hides every secret of the snapshot from a person."""
    readings = (standing.reading for standing in snapshot.standings.values())
    return Mask(reading.value for reading in readings if reading is not None and reading.secret)
