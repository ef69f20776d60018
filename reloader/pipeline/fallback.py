"""What is published while nothing else ever was: files of the operator's own, as they are."""

from reloader.backends.reads import ReadFailed
from reloader.backends.scan import Look
from reloader.fileset import Rendered, RenderedFile
from reloader.plan import File, Volume


class FallbackUnusable(Exception):
    """The directory of `failure.fallback` cannot be read, or holds nothing; the text says why."""


def fallback_files(directory: str, volume: Volume) -> Rendered:
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
