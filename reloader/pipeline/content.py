"""Makes the volume match the snapshot: render, check, one rename. What is refused stays where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from reloader.check import Checker, CheckRefused
from reloader.mask import Mask
from reloader.pipeline.stages import StageFailed, Stages
from reloader.plan import Pipeline as Plan, Volume as VolumePlan
from reloader.render import Rendered, Renderer, RenderFailed
from reloader.schedule import Backoff, Pace
from reloader.snapshot import Snapshot
from reloader.status import Metrics
from reloader.volume import Mounted, Volume, VolumeError
from reloader.world import World

ERRORED = Backoff(base=1.0, cap=60.0)
"""How soon a publish is tried again that failed for want of room, right or a program."""
REFUSED = Backoff(base=30.0, cap=300.0)
"""How soon refused content is tried again though nothing changed: what a check asks (a name to resolve) may be there by then."""


@dataclass(frozen=True)
class Rejected:
    """Newer content that is not published, and since when."""

    stage: str
    reason: str
    since: float
    refused: bool
    """Somebody said no, rather than that it could not be tried."""


GENERATION_OPEN = "/..generation"
"""What stands for `{{ generation }}` while sets are compared, so that the name of its directory is not a change."""


class Content:
    """The first convergence of one pipeline. It never waits: `look_at` says when it wants to be called again."""

    def __init__(self, plan: Plan, volume: Volume | Mounted, stages: Stages, metrics: Metrics, world: World) -> None:
        self._plan = plan
        self._volume = volume
        self._stages = stages
        self._metrics = metrics
        self._world = world
        self._renderer = Renderer(plan.volume) if plan.volume else None
        self._checker = _checker(plan.volume, world)
        self._pace = Pace(settle=plan.timing.settle, settle_max=plan.timing.settle_max, min_interval=plan.timing.min_interval)
        self._failures = 0
        self._retry_at = -inf
        self.look_at = inf
        self.rejected: Rejected | None = None
        """Content that render or check rejected."""
        self.unwritable: Rejected | None = None
        """What the volume cannot take."""

    @property
    def template_directories(self) -> tuple[str, ...]:
        """Return the directories whose templates are rendered; they are read like sources."""
        return self._renderer.template_directories if self._renderer else ()

    def converge(self, snapshot: Snapshot, *, last_reload: float | None) -> bool:
        """Go as far as can be gone now; return whether the changes of the snapshot were taken."""
        now = self._world.clock.now()
        changes = self._pace.due(snapshot.first_change, snapshot.last_change, whole=snapshot.whole, last_reload=last_reload)
        due = inf if snapshot.missing else min(changes, self._retry_at)
        self.look_at = due
        if now < due:
            return False
        self._retry_at = self.look_at = inf
        try:
            self._bring(snapshot)
        except StageFailed as failed:
            self._reject(failed, now)
        else:
            self._failures, self.rejected, self.unwritable = 0, None, None
        return True

    def look_again(self) -> None:
        """Compare at the next call, whether anything changed or not."""
        self._retry_at = -inf

    def refuse_volume(self, failed: StageFailed) -> None:
        """Note that the volume cannot be taken."""
        self._reject(failed, self._world.clock.now())

    def preview(self, snapshot: Snapshot) -> Rendered:
        """Return the set that the snapshot asks for, with the published `generation` in it: another name of it is no change.

        Raises:
            StageFailed: it cannot be rendered.

        """
        volume, number = self._volume, self._volume.next_number()
        with self._stages.stage("render", number, quiet=True):
            if self._renderer is None or isinstance(volume, Mounted):
                return {}
            published = volume.published
            return self._rendered(self._renderer, snapshot, volume.target_directory(published.number if published else number))

    def _bring(self, snapshot: Snapshot) -> None:
        """Publish what the snapshot asks for, unless it is published already."""
        number = self._volume.next_number()
        with self._stages.stage("render", number, quiet=True):
            rendered = self._open_set(snapshot)
            fingerprint = self._volume.fingerprint(rendered or self._values(snapshot))
        published = self._volume.published
        if published is not None and published.fingerprint == fingerprint:
            return
        if isinstance(self._volume, Mounted):
            with self._stages.stage("publish", number):
                self._volume.adopt(fingerprint, _changed(snapshot))
            return
        if self._renderer is not None and self._renderer.uses_generation(_templates(self._renderer, snapshot)):
            rendered = self._rendered(self._renderer, snapshot, self._volume.target_directory(number))
        self._publish(self._volume, number, rendered, fingerprint, snapshot)

    def _publish(self, volume: Volume, number: int, rendered: Rendered, fingerprint: str, snapshot: Snapshot) -> None:
        with self._stages.stage("stage", number, quiet=True):
            staged = volume.stage(number, rendered, fingerprint)
        try:
            if self._checker is not None:
                with self._stages.stage("check", number):
                    self._check(self._checker, staged, rendered, snapshot)
            with self._stages.stage("publish", number):
                volume.publish(number)
        except StageFailed:
            volume.discard(number)
            raise

    def _open_set(self, snapshot: Snapshot) -> Rendered:
        return {} if self._renderer is None else self._rendered(self._renderer, snapshot, GENERATION_OPEN)

    def _rendered(self, renderer: Renderer, snapshot: Snapshot, generation: str) -> Rendered:
        return renderer.render(self._values(snapshot), _templates(renderer, snapshot), generation)

    def _values(self, snapshot: Snapshot) -> dict[str, Any]:
        return {name: snapshot.values[name] for name in self._plan.sources}

    def _check(self, checker: Checker, staged: Path, rendered: Rendered, snapshot: Snapshot) -> None:
        try:
            checker.check(staged, rendered, self._volume.published_files)
        except CheckRefused as refused:
            said = mask_of(snapshot).text(refused.output)
            raise CheckRefused(f"{refused}: {said}" if said else str(refused), "") from None

    def _reject(self, failed: StageFailed, now: float) -> None:
        """Keep what is published, say why, and try again later."""
        self._failures += 1
        refused = isinstance(failed.cause, CheckRefused | RenderFailed)
        if refused:
            self._metrics.count("refusals", self._plan.name, stage=failed.stage)
        backoff = REFUSED if refused else ERRORED
        self._retry_at = self.look_at = now + backoff.delay(self._failures, self._world.random)
        before = self.unwritable if isinstance(failed.cause, VolumeError) else self.rejected
        rejected = Rejected(failed.stage, str(failed), before.since if before else now, refused)
        if isinstance(failed.cause, VolumeError):
            self.unwritable = rejected
        else:
            self.rejected = rejected


def _checker(volume: VolumePlan | None, world: World) -> Checker | None:
    return Checker(volume.check, world.children, world.clock, target_path=volume.target_path) if volume and volume.check else None


def mask_of(snapshot: Snapshot) -> Mask:
    """Return what hides every secret of the snapshot from a person."""
    return Mask({name: standing.reading for name, standing in snapshot.standings.items() if standing.reading is not None})


def _templates(renderer: Renderer, snapshot: Snapshot) -> dict[str, Mapping[str, Any]]:
    return {directory: snapshot.values[directory] for directory in renderer.template_directories}


def _changed(snapshot: Snapshot) -> float | None:
    """Return when the newest of the values became what it is, where the sources can tell."""
    known = [standing.reading.changed for standing in snapshot.standings.values() if standing.reading is not None]
    return max((changed for changed in known if changed is not None), default=None)
