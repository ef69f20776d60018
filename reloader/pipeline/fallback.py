"""What is published while nothing else ever was: files of the operator's own, as they are."""

from math import inf

from reloader.backends.reads import ReadFailed
from reloader.backends.scan import Look
from reloader.check import CheckRefused
from reloader.fileset import Rendered, RenderedFile
from reloader.pipeline.publishing import Publishing
from reloader.pipeline.refusals import Refusals
from reloader.pipeline.stages import StageFailed, Stages
from reloader.plan import File, Pipeline as Plan, Volume as VolumePlan
from reloader.snapshot import Snapshot
from reloader.volume import Mounted, Volume
from reloader.world import World

AGAIN = 10.0
"""How soon to look again at files that cannot be used."""


class FallbackUnusable(Exception):
    """The directory of `failure.fallback` cannot be read, or holds nothing; the text says why."""


class Fallback:
    """Publishes them, once somebody says that it is time."""

    def __init__(
        self, plan: Plan, volume: Volume | Mounted, publishing: Publishing, refusals: Refusals, stages: Stages, world: World
    ) -> None:
        self._directory, self._volume_plan, self._volume = plan.failure.fallback, plan.volume, volume
        self._publishing, self._refusals, self._stages, self._world = publishing, refusals, stages, world
        self._again_at = -inf
        self.failure: str | None = None
        """Why they are not published, where they should be."""

    def publish(self, snapshot: Snapshot) -> None:
        """Publish them; what keeps them from it is tried again."""
        now = self._world.clock.now()
        if self._directory is None or self._volume_plan is None or isinstance(self._volume, Mounted) or now < self._again_at:
            return
        self._again_at, self.failure = now + AGAIN, None
        try:
            self._bring(self._volume, self._directory, self._volume_plan, snapshot)
        except StageFailed as failed:
            self.failure = str(failed)

    def _bring(self, volume: Volume, directory: str, plan: VolumePlan, snapshot: Snapshot) -> None:
        """Publish them, unless they were refused and it is not time yet."""
        number = volume.next_number()
        with self._stages.stage("fallback", number, quiet=True):
            files = files_of(directory, plan)
            fingerprint = volume.fingerprint(files)
        if (waits := self._refusals.waits(fingerprint)) is not None:
            self._again_at, self.failure = waits, f"failure.fallback: {self._refusals.refuser(fingerprint)[1]} refused it before"
            return
        try:
            again = self._refusals.is_known(fingerprint)
            self._publishing.publish(volume, number, files, fingerprint, snapshot, again=again, fallback=True)
        except StageFailed as failed:
            if isinstance(failed.cause, CheckRefused):
                self._again_at = self._refusals.note(fingerprint, failed.stage)
            raise


def files_of(directory: str, volume: VolumePlan) -> Rendered:
    """Return the files of a directory, each with the mode and the owner that `volume.files` gives to its name.

    Raises:
        FallbackUnusable: it cannot be read, or is empty.

    """
    try:
        found = Look(directory).everything().files
    except ReadFailed as failed:
        raise FallbackUnusable(f"failure.fallback: {failed}") from None
    if not found:
        raise FallbackUnusable(f"failure.fallback: {directory} holds no file; put those there that the target can start with")
    return {name: _file(found[name], volume.files.get(name, File())) for name in sorted(found)}


def _file(content: str | bytes, plan: File) -> RenderedFile:
    data = content if isinstance(content, bytes) else content.encode()
    return RenderedFile(data=data, mode=plan.mode, owner=plan.owner, group=plan.group)
