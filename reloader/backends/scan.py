"""One look at a directory: what its files say, all from one generation where the directory has generations.

The kubelet lays a volume out as `X -> ..data/X`, `..data -> ..GENERATION`, and changes all files at once by renaming a new `..data` over
the old one. So what such a directory holds is what the generation holds, whether or not its links are there yet, and a look counts only
if the generation is the same afterwards. A generation has a new name each time and is never written to after it is visible.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reloader.backends.reads import ReadFailed
from reloader.snapshot import FailureKind

MAX_BYTES = 64 * 2**20
"""How many bytes one reading may hold."""
MAX_ENTRIES = 10_000
"""How many files and folders one reading may hold."""

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
"""No such name, a link to nothing, links that lead back to themselves, a socket."""

Identity = tuple[int, int]
"""The device and the inode of a directory: another one under the same path has another."""


@dataclass(frozen=True)
class Place:
    """Where a directory really is, and which generation it shows."""

    root: str
    identity: Identity
    generation: str | None
    """What `..data` says, where there is such a link."""
    link: tuple[int, int] | None
    """The inode and the change time of `..data`, in nanoseconds of the wall clock: a link that says the same may be another one."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the directories to read, the first before the second where both have a name."""
        return (self.root,) if self.generation is None else (str(Path(self.root, self.generation)), self.root)

    def exchanged(self, before: "Place | None") -> bool:
        """Return whether the directory got from `before` to here as a whole: it shows a generation that it did not show then."""
        return self.link is not None and (before is None or (self.root, self.link) != (before.root, before.link))


def locate(directory: str) -> Place:
    """Return where a directory is now.

    Raises:
        OSError: there is none, or it may not be reached.

    """
    root = os.path.realpath(directory)
    status = Path(root).stat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    identity = (status.st_dev, status.st_ino)
    data = Path(root, "..data")
    try:
        link = data.lstat()
        return Place(root, identity, str(data.readlink()), (link.st_ino, link.st_ctime_ns))
    except OSError:  # none, or not a link
        return Place(root, identity, None, None)


def unreadable(path: str, error: OSError) -> ReadFailed:
    """Return why a path could not be read, and what mends it."""
    if isinstance(error, NotADirectoryError):
        return ReadFailed(
            FailureKind.MISCONFIGURED,
            f"{path} is a file where a directory was expected; if a file is meant, restart reloader now that it is there",
        )
    if isinstance(error, FileNotFoundError):
        return ReadFailed(FailureKind.REFUSED, f"{path} does not exist; is the volume mounted?")
    if isinstance(error, PermissionError):
        return ReadFailed(FailureKind.REFUSED, _denied(path))
    return ReadFailed(FailureKind.UNREACHABLE, f"{path} cannot be read: {error.strerror}")


def _denied(path: str) -> str:
    who = (
        f"reloader runs as {os.geteuid()}:{os.getegid()}; give it a user or group that may (runAsUser, fsGroup), or the files another mode"
    )
    try:
        status = Path(path).stat()
    except OSError:
        return f"{path} cannot be reached: a directory above it may not be entered, and {who}"
    mode = stat.S_IMODE(status.st_mode)
    return f"{path} may not be read: it has mode {mode:04o} and owner {status.st_uid}:{status.st_gid}, and {who}"


@dataclass
class Contents:
    """What one read found."""

    place: Place
    files: dict[str, str | bytes] = field(default_factory=dict, repr=False)
    """By relative name: the text, or bytes where it is not UTF-8."""
    changed: float = 0.0
    """The newest change time of what was read, or of the link to its generation, in seconds of the wall clock."""
    private: bool = False
    """Whether some file may not be read by everyone."""
    devices: set[int] = field(default_factory=set)
    """Where the files are, which a mount of a single file or a link may put elsewhere than their directory."""
    size: int = 0


@dataclass(frozen=True)
class _File:
    data: bytes = field(repr=False)
    status: os.stat_result
    real: str
    """Where it is, whatever links led to it."""


class Look:
    """One pass over a directory; each file is opened once, however many reads want it."""

    def __init__(self, directory: str) -> None:
        """Begin.

        Raises:
            ReadFailed: the directory cannot be read at all.

        """
        self._directory = directory
        self._files: dict[str, _File | None] = {}
        self._places: dict[str, Place] = {}
        self.watchable: dict[Identity, str] = {}
        """The directories in which something happens when what was read changes; generations are not among them."""
        try:
            self.place = self._enter(directory, watch=True)
            self._touched = Path(self.place.root).stat().st_mtime
        except OSError as error:
            raise unreadable(directory, error) from None

    def holds(self) -> bool:
        """Return whether everything is still where it was, so that what was read belongs together."""
        try:
            return all(locate(path) == place for path, place in self._places.items())
        except OSError:
            return False

    def everything(self, *, inside: bool = False) -> Contents:
        """Return all files below the directory; names that begin with `..` are the layout's own, links to folders are not followed.

        With `inside`, what a link has elsewhere is not there.

        Raises:
            ReadFailed: something may not be read, or there is too much.

        """
        found = Contents(self.place)
        pending = [(self._directory, "", True)]
        entries = 0
        while pending:
            directory, prefix, watch = pending.pop()
            for entry, beside in self._list(directory, found, watch=watch):
                entries += 1
                if entries > MAX_ENTRIES:
                    raise self._too_much(f"more than {MAX_ENTRIES} files")
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, f"{prefix}{entry.name}/", watch and beside))
                elif _is_file(entry):
                    file = self._open(entry.path)
                    if file is not None and not (inside and not file.real.startswith(f"{self.place.root}/")):
                        self._add(found, f"{prefix}{entry.name}", file)
        return self._finish(found)

    def only(self, names: Iterable[str]) -> Contents:
        """Return the files of these relative names; those that are not there are left out.

        Raises:
            ReadFailed: one may not be read or is no file, or they are too big.

        """
        found = Contents(self.place)
        for name in names:
            self._watch_folder(name)
            file = self._named(name)
            if file is None:
                found.changed = max(found.changed, self._touched)
            self._add(found, name, file)
        return self._finish(found)

    def ending(self, suffix: str) -> Contents:
        """Return what the directory itself has whose names end so, except hidden ones; what is no file that is there is empty.

        Raises:
            ReadFailed: one may not be read, or there is too much.

        """
        found = Contents(self.place)
        for entry, _ in self._list(self._directory, found, watch=True):
            if entry.name.endswith(suffix) and not entry.name.startswith("."):
                found.files[entry.name] = ""
                self._add(found, entry.name, self._open(entry.path))
        return self._finish(found)

    def _enter(self, directory: str, *, watch: bool) -> Place:
        place = self._places.get(directory) or self._places.setdefault(directory, locate(directory))
        if watch:
            self.watchable[place.identity] = place.root
        return place

    def _list(self, directory: str, found: Contents, *, watch: bool) -> list[tuple[os.DirEntry[str], bool]]:
        """Return what a directory shows, and of each entry whether it lies in the directory itself, and not in a generation."""
        try:
            place = self._enter(directory, watch=watch)
            found.changed = max(found.changed, *(Path(layer).stat().st_mtime for layer in place.layers))
            return [(entry, layer == place.root) for layer, entry in _shown(place)]
        except OSError as error:
            if _is_absent(error) and directory != self._directory:
                return []  # removed since it was listed
            raise unreadable(error.filename or directory, error) from None

    def _watch_folder(self, name: str) -> None:
        folder = name.rpartition("/")[0]
        if folder and self.place.generation is None:
            with contextlib.suppress(OSError):  # not there yet; where it is missing, the directory's own watch sees it come
                self._enter(f"{self.place.root}/{folder}", watch=True)

    def _named(self, name: str) -> _File | None:
        """Return the file of that name, from the generation where it has it."""
        for layer in self.place.layers:
            path = f"{layer}/{name}"
            if (status := _status(path)) is None:
                continue
            if not stat.S_ISREG(status.st_mode):
                what = "a directory (end the path with / if one is meant)" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
                raise ReadFailed(FailureKind.MISCONFIGURED, f"{self._directory}/{name} is {what} where a file was expected")
            return self._open(path)
        return None

    def _open(self, path: str) -> _File | None:
        """Return a file's content, or None for one that is gone meanwhile or is no regular file."""
        if path not in self._files:
            try:
                self._files[path] = self._content(path)
            except OSError as error:
                if not _is_absent(error):
                    raise unreadable(path, error) from None
                self._files[path] = None
        return self._files[path]

    def _content(self, path: str) -> _File | None:
        # Without O_NONBLOCK, opening a pipe that has no writer would never return.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            return _File(self._all_of(descriptor, status.st_size), status, str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        finally:
            os.close(descriptor)

    def _all_of(self, descriptor: int, size: int) -> bytes:
        data = b""
        while size <= MAX_BYTES:
            part = os.read(descriptor, max(size + 1, 2**16))
            if not part:
                return data
            data += part
            size = max(size, len(data))
        raise self._too_much(f"more than {MAX_BYTES >> 20} MiB")

    def _add(self, found: Contents, name: str, file: _File | None) -> None:
        if file is None:
            return
        found.files[name] = _text(file.data)
        found.size += len(file.data)
        found.changed = max(found.changed, file.status.st_ctime)
        found.private = found.private or not file.status.st_mode & stat.S_IROTH
        found.devices.add(file.status.st_dev)
        if found.size > MAX_BYTES:
            raise self._too_much(f"more than {MAX_BYTES >> 20} MiB")

    def _finish(self, found: Contents) -> Contents:
        found.files = dict(sorted(found.files.items()))
        if self.place.link is not None:
            found.changed = self.place.link[1] / 1e9
        return found

    def _too_much(self, what: str) -> ReadFailed:
        return ReadFailed(FailureKind.MISCONFIGURED, f"{self._directory} holds {what}; give the path of a smaller directory or of one file")


def _shown(place: Place) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield each layer with each entry that shows: the generation first, then what is beside it."""
    seen: set[str] = set()
    for layer in place.layers:
        with os.scandir(layer) as entries:
            for entry in entries:
                if entry.name not in seen and not entry.name.startswith(".."):
                    seen.add(_printable(entry))
                    yield layer, entry


def _printable(entry: os.DirEntry[str]) -> str:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise ReadFailed(FailureKind.MISCONFIGURED, f"{os.fsencode(entry.path)!r} has a name that is not UTF-8; rename it") from None
    return entry.name


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        if _is_absent(error):
            return False
        raise unreadable(entry.path, error) from None


def _status(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except OSError as error:
        if _is_absent(error):
            return None
        raise unreadable(path, error) from None


def _is_absent(error: OSError) -> bool:
    return error.errno in _ABSENT


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
