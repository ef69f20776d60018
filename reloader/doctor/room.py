"""Whether a directory takes files, tried with one that has no name: nobody who watches the directory sees it come or go."""

import errno
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)
"""What kernels and file systems without O_TMPFILE say."""


@dataclass(frozen=True)
class Room:
    """What a file system has left."""

    free: int
    """Bytes, for this user."""
    size: int
    files: int
    """Files that can be made; on a file system that counts none, as many as nobody needs."""
    all_files: int

    def __str__(self) -> str:
        files = f", {self.files} of {self.all_files} files (inodes) free" if self.all_files else ""
        return f"{mebibytes(self.free)} of {mebibytes(self.size)} free{files}"


def room(path: Path) -> Room:
    """Return what the file system of a path has left.

    Raises:
        OSError: it cannot be asked.

    """
    found = os.statvfs(path)
    files = found.f_favail if found.f_files else 2**31
    return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, files, found.f_files)


def try_to_write(path: Path, size: int) -> OSError | None:
    """Return why no file of that many bytes can be made in a directory now; None where it can."""
    try:
        descriptor = _nameless(path)
        try:
            os.posix_fallocate(descriptor, 0, max(1, size))
        finally:
            os.close(descriptor)
    except OSError as error:
        return error
    return None


def mebibytes(size: float) -> str:
    """Return a size as people write it."""
    return f"{size / 2**20:.1f} MiB" if size < 10 * 2**20 else f"{size / 2**20:.0f} MiB"


def _nameless(path: Path) -> int:
    try:
        return os.open(path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_NAMELESS or not path.is_dir():
            raise
    descriptor, name = tempfile.mkstemp(prefix="..doctor-", dir=path)
    Path(name).unlink()
    return descriptor
