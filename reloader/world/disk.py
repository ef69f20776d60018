"""Every mutation of a volume, each a named call: a crash test kills at call N, a fault test fails it.

Reading is not here: what cannot change anything needs no seam.
"""

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from reloader.world.unlinked import directory, naming

_SETGID = 0o2000


class Disk:
    """The file system. All calls raise OSError that names the path; none follows a link, wherever in the path it is."""

    def make_directory(self, path: Path, mode: int, gid: int = -1) -> None:
        """Make one directory with that mode, whatever the umask; its setgid bit is inherited, its group is `gid` where that may be set."""
        with _parent(path) as parent:
            os.mkdir(path.name, mode, dir_fd=parent)
            descriptor = os.open(path.name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                _settle(descriptor, mode, gid)
            finally:
                os.close(descriptor)

    def write_file(self, path: Path, data: bytes, mode: int, uid: int = -1, gid: int = -1) -> None:
        """Make a new file and sync it: nobody can read it before its owner and mode are right."""
        descriptor = _make(path, data, mode, uid, gid)
        try:
            _sync(path, descriptor)
        finally:
            os.close(descriptor)

    def make_file(self, path: Path, data: bytes, mode: int, uid: int = -1, gid: int = -1) -> int:
        """Make a new file, and have the kernel begin to write it out; return its descriptor for `sync_file`, which the caller closes."""
        descriptor = _make(path, data, mode, uid, gid)
        with contextlib.suppress(OSError):  # a hint: what it is to drop must be written before, so that begins
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return descriptor

    def sync_file(self, path: Path, descriptor: int) -> None:
        """Make a file that `make_file` made survive a crash of the machine."""
        _sync(path, descriptor)

    def overwrite_file(self, path: Path, data: bytes, mode: int = -1, uid: int = -1, gid: int = -1) -> None:
        """Write into an existing file, which stays the same one (-1 leaves its mode or owner), and sync it.

        It is cut to its length last: a reader may meet old and new data mixed, but never a file that was emptied to be filled again.
        """
        with _parent(path) as parent:  # opening a FIFO must not make us wait
            descriptor = os.open(path.name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            try:
                if (uid, gid) != (-1, -1):
                    os.fchown(descriptor, uid, gid)
                if mode != -1:
                    os.fchmod(descriptor, mode)
                _write(descriptor, data)
                os.ftruncate(descriptor, len(data))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def make_link(self, path: Path, to: str) -> None:
        """Make a symbolic link at `path` that says `to`."""
        with _parent(path) as parent:
            os.symlink(to, path.name, dir_fd=parent)

    def rename(self, old: Path, new: Path) -> None:
        """Put `old` in the place of `new`, in one step for every reader."""
        with _parent(old) as here, directory(new.parent) as there:
            os.rename(old.name, new.name, src_dir_fd=here, dst_dir_fd=there)

    def sync_directory(self, path: Path) -> None:
        """Make what was created, renamed and removed in the directory survive a crash of the machine."""
        with directory(path) as opened, naming(path):
            descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=opened)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def remove_file(self, path: Path) -> None:
        """Remove a file or a link; gone already is fine."""
        with contextlib.suppress(FileNotFoundError), _parent(path) as parent:
            os.unlink(path.name, dir_fd=parent)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory with all that is in it; gone already is fine, and so is something else in its place."""
        with contextlib.suppress(FileNotFoundError), _parent(path) as parent:
            if stat.S_ISDIR(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode):
                shutil.rmtree(path.name, dir_fd=parent)

    def lock(self, path: Path, note: bytes) -> int:
        """Take the lock at `path` for this process and return its descriptor; the kernel frees it when the process ends.

        `note` says in the file who has it.

        Raises:
            BlockingIOError: another process has it.

        """
        with _parent(path) as parent:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path.name, flags, 0o600, dir_fd=parent)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(OSError):  # the note is a courtesy: a full volume must not keep anyone from starting on it
                    os.ftruncate(descriptor, os.pwrite(descriptor, note, 0))
            except OSError:
                os.close(descriptor)
                raise
        return descriptor


@contextlib.contextmanager
def _parent(path: Path) -> Iterator[int]:
    """Open the directory that a path is in; what fails there is told with the path."""
    with naming(path), directory(path.parent) as parent:
        yield parent


def _make(path: Path, data: bytes, mode: int, uid: int, gid: int) -> int:
    with _parent(path) as parent:
        descriptor = os.open(path.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            if (uid, gid) != (-1, -1):
                os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            _write(descriptor, data)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(path: Path, descriptor: int) -> None:
    with naming(path):
        os.fsync(descriptor)


def _settle(descriptor: int, mode: int, gid: int) -> None:
    """Give a directory that was just made its group and mode."""
    itself, made = f"/proc/self/fd/{descriptor}", os.fstat(descriptor)  # fchmod and fchown need a right to read it
    if gid not in (-1, made.st_gid):
        with contextlib.suppress(OSError):  # nobody asked for that group by name; without the right it is the process's own
            os.chown(itself, -1, gid)
    wanted = mode | made.st_mode & _SETGID
    if made.st_mode & 0o7777 != wanted:  # a chmod that changes nothing can still cost the setgid bit (a group we are not in)
        Path(itself).chmod(wanted)
