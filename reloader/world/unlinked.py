"""Paths of which no part is a link: who else may write on a volume could put one in the way between any two steps of ours.

So that a path can be held against that, it is to be real where it begins (`os.path.realpath`): links above a volume are the operator's.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # opening a pipe must not make us wait


class NotOurs(OSError):
    """Something is there that we never make: a link, a pipe, a socket, a folder, or far too much."""

    def __str__(self) -> str:
        return self.strerror or ""


@contextmanager
def directory(path: Path) -> Iterator[int]:
    """Open a directory for calls relative to it (`dir_fd`).

    Raises:
        OSError: it is not there, or a part of the path is a link (ENOTDIR).

    """
    with naming(path):
        descriptor = os.open(path.anchor, _STEP)
        try:
            for part in path.parts[1:]:
                inner = os.open(part, _STEP, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
        except OSError:
            os.close(descriptor)
            raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(path: Path, most: int) -> bytes:
    """Return what a file holds.

    Raises:
        NotOurs: it is no plain file, or has more than `most` bytes.
        OSError: it cannot be read.

    """
    with naming(path), directory(path.parent) as parent:
        descriptor = _opened(path.name, parent)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NotOurs(errno.EINVAL, "not a plain file")
            data = file.read(most + 1)
        if len(data) > most:
            raise NotOurs(errno.EFBIG, f"more than {most} bytes")
        return data


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give errors of calls on a descriptor the path that they do not know."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _opened(name: str, parent: int) -> int:
    try:
        return os.open(name, _READ, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotOurs(error.errno, "a link or a socket, not a plain file") from None
        raise
