"""What can go wrong on a volume, in words that name the path, the cause and the mend."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GONE = "it is gone: the volume was unmounted or replaced; mount it again, it is taken anew when it is back"
_IN_THE_WAY = "something of another program is in the way: remove it, or give the volume a directory of its own"

_CAUSES = {
    errno.ENOSPC: "the volume is full: give it more room (`sizeLimit`), or lower `volume.keep`",
    errno.EDQUOT: "the quota of the volume is used up: raise it, or lower `volume.keep`",
    errno.EROFS: "the volume is read-only: mount it without `readOnly` in this container",
    errno.EIO: "the disk failed (input/output error): look at the kernel's log on the node",
    errno.ENAMETOOLONG: "the name is too long for this file system: shorten it",
    errno.ENOENT: _GONE,
    errno.ESTALE: _GONE,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTEMPTY: _IN_THE_WAY,
    errno.ELOOP: _IN_THE_WAY,
}


class VolumeError(Exception):
    """The volume could not be read or changed; what was published before still is. Trying again is always right."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


class VolumeLocked(VolumeError):
    """Another reloader has the volume; the message says which."""


@contextmanager
def explained(stage: str, path: Path) -> Iterator[None]:
    """Turn the machine's errors into VolumeError; `path` is named where they name none.

    Raises:
        VolumeError: instead of OSError.

    """
    try:
        yield
    except OSError as error:
        raise VolumeError(stage, explain(error, path)) from error


def explain(error: OSError, path: Path) -> str:
    """Return what happened, where, and what to do."""
    where = error.filename if isinstance(error.filename, str) else path
    if isinstance(error, PermissionError):
        return f"{where}: {_permission(path)}"
    return f"{where}: {_CAUSES.get(error.errno or 0, error.strerror or type(error).__name__)}"


def _permission(path: Path) -> str:
    try:
        owner = f"uid {path.stat().st_uid}"
    except OSError:
        owner = "another user"
    return f"uid {os.geteuid()} may not, {path} belongs to {owner}: run as that user (`runAsUser`), or share the volume by `fsGroup`"
