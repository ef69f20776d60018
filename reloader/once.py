"""One render and publish of every pipeline, and what that would change."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reloader import __version__
from reloader.backends import Backends
from reloader.mask import masked_diff
from reloader.pipeline.facts import why_not
from reloader.pipeline.publishing import mask_of
from reloader.pipeline.stages import StageFailed
from reloader.pipeline.turnstile import Turnstile
from reloader.plan import Plan
from reloader.running import Running, Shared
from reloader.state import state_directory
from reloader.status import Metrics, Status
from reloader.volume import VolumeError
from reloader.world import World


@dataclass(frozen=True)
class Outcome:
    """What came of a pipeline that ran once."""

    done: bool
    reasons: tuple[str, ...] = ()
    """Why it is not done, or what is wrong all the same."""
    diff: str = ""
    """What a dry run would change, secrets masked."""


def once(plan: Plan, world: World, *, dry_run: bool = False) -> Mapping[str, Outcome]:
    """Render and publish every pipeline once, or only say what that would change; neither signal nor revoke.

    Raises:
        VolumeLocked: another reloader has one of the volumes.

    """
    state = state_directory(plan.state)
    backends = Backends(world, state)
    status = Status(world.clock)
    shared = Shared(backends, status, Metrics(status, __version__), world, Turnstile(), state)
    quiet = [replace(each, target=replace(each.target, kind="none", settings=None)) for each in plan.pipelines]
    running = [Running(each, shared) for each in quiet]
    try:
        for each in running:
            if not dry_run:
                each.pipeline.open()
            each.read()
        return {each.plan.name: _preview(each) if dry_run else _publish(each) for each in running}
    finally:
        for each in running:
            each.pipeline.close()
            each.forget()


def _publish(running: Running) -> Outcome:
    done = running.pipeline.publish_once()
    return Outcome(done, running.pipeline.report().reasons)


def _preview(running: Running) -> Outcome:
    """Say what a publish would change."""
    snapshot = running.pipeline.await_snapshot()
    if snapshot.missing:
        return Outcome(done=False, reasons=tuple(f"source {name}: {why_not(snapshot.standings[name])}" for name in snapshot.missing))
    try:
        rendered = running.pipeline.content.preview(snapshot)
        published = running.volume.published_files()
    except (StageFailed, VolumeError) as failed:
        return Outcome(done=False, reasons=(str(failed),))
    files = {name: file.data for name, file in rendered.items()}
    # Nobody knows any more what was secret of what is published.
    return Outcome(done=True, diff="".join(masked_diff(published, files, mask_of(snapshot), unknown="old")))
