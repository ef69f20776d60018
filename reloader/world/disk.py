"""Every mutation of a volume, each a named call: a crash test kills at call N, a fault test fails it.

Reading is not here: what cannot change anything needs no seam.
"""

import fcntl
import os
import shutil
from pathlib import Path


class Disk:
    """The file system. All calls raise OSError; none follows a link in the last component."""

    def make_directory(self, path: Path, mode: int) -> None:
        """Make one directory with that mode, whatever the umask; the setgid bit that it inherits is kept."""
        path.mkdir()
        inherited = path.stat().st_mode & 0o2000
        path.chmod(mode | inherited)

    def write_file(self, path: Path, data: bytes, mode: int, uid: int = -1, gid: int = -1) -> None:
        """Make a new file and sync it: nobody can read it before its owner and mode are right."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if (uid, gid) != (-1, -1):
                os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)

    def make_link(self, path: Path, to: str) -> None:
        """Make a symbolic link at `path` that says `to`."""
        path.symlink_to(to)

    def rename(self, old: Path, new: Path) -> None:
        """Put `old` in the place of `new`, in one step for every reader."""
        old.rename(new)

    def sync_directory(self, path: Path) -> None:
        """Make what was created, renamed and removed in the directory survive a crash of the machine."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove_file(self, path: Path) -> None:
        """Remove a file or a link; gone already is fine."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory with all that is in it; gone already is fine."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)

    def lock(self, path: Path) -> int:
        """Take the lock at `path` for this process and return its descriptor; the kernel frees it when the process ends.

        Raises:
            BlockingIOError: another process has it.

        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
