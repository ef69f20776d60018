"""Every mutation of a volume, each a named call: a crash test kills at call N, a fault test fails it.

Reading is not here: what cannot change anything needs no seam.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_SETGID = 0o2000


class Disk:
    """The file system. All calls raise OSError that names the path; none follows a link in the last component."""

    def make_directory(self, path: Path, mode: int, gid: int = -1) -> None:
        """Make one directory with that mode, whatever the umask; its setgid bit is inherited, its group is `gid` where that may be set."""
        path.mkdir(mode)
        made = path.stat()
        if gid not in (-1, made.st_gid):
            with contextlib.suppress(OSError):  # nobody asked for that group by name; without the right it is the process's own
                os.chown(path, -1, gid)
        wanted = mode | made.st_mode & _SETGID
        if made.st_mode & 0o7777 != wanted:  # a chmod that changes nothing can still cost the setgid bit (a group we are not in)
            path.chmod(wanted)

    def write_file(self, path: Path, data: bytes, mode: int, uid: int = -1, gid: int = -1) -> None:
        """Make a new file and sync it: nobody can read it before its owner and mode are right."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with _naming(path), os.fdopen(descriptor, "wb") as file:
            if (uid, gid) != (-1, -1):
                os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)

    def overwrite_file(self, path: Path, data: bytes, mode: int = -1, uid: int = -1, gid: int = -1) -> None:
        """Write into an existing file, which stays the same one (-1 leaves its mode or owner), and sync it.

        It is cut to its length last: a reader may meet old and new data mixed, but never a file that was emptied to be filled again.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not make us wait
        with _naming(path), os.fdopen(descriptor, "wb", buffering=0) as file:
            if (uid, gid) != (-1, -1):
                os.fchown(descriptor, uid, gid)
            if mode != -1:
                os.fchmod(descriptor, mode)
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.ftruncate(descriptor, len(data))
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
            with _naming(path):
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

    def lock(self, path: Path, note: bytes) -> int:
        """Take the lock at `path` for this process and return its descriptor; the kernel frees it when the process ends.

        `note` says in the file who has it.

        Raises:
            BlockingIOError: another process has it.

        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with _naming(path):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # the note is a courtesy: a full volume must not keep anyone from starting on it
                os.ftruncate(descriptor, os.pwrite(descriptor, note, 0))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give errors of calls on a descriptor the path that they do not know."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise
