"""Files on this machine: mounted ConfigMaps and Secrets, or anything else that is a directory or a file."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from reloader.backends.directory import Scan
from reloader.plan import Connections, Directory
from reloader.snapshot import Failure, FailureKind, Outcome, Reading
from reloader.written import plain


@plain
class Settings:
    """What a source of kind `files` is told."""

    path: str
    """A directory (a mapping of relative name to text) or a file (its text); a slash at the end says that it is a directory."""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield each key whose value cannot work, with what was expected."""
        if not self.path.startswith("/"):
            yield "path", "expected an absolute path, such as /etc/app/config"


class Source:
    """The files below a directory, or one file.

    Which of the two a path is, it shows itself. Where nothing is there yet, it is a file if its name has an extension (other than `.d`)
    or if it lies in a volume of the kubelet's, and a directory otherwise.
    """

    def __init__(self, settings: Settings, connections: Connections) -> None:  # noqa: ARG002 - what every source is made with
        path = Path(settings.path)
        self._path = str(path)
        home = None if settings.path.endswith("/") or _is_directory(path) else _home(path)
        self._name = None if home is None else str(path.relative_to(home))
        self.backend = Directory(path=str(home or path))
        self.read = Scan() if self._name is None else Scan(names=frozenset({self._name}))

    def interpret(self, reading: Reading) -> Outcome:
        """Return the reading of a directory as it is, of a file with its content for the value; a missing file is a refusal."""
        if self._name is None:
            return reading
        if self._name not in reading.value:
            reason = f"{self._path}: no such file; if it is mounted, see that its key is there (end the path with / for a directory)"
            return Failure(kind=FailureKind.REFUSED, reason=reason, at=reading.at)
        return replace(reading, value=reading.value[self._name])


def _is_directory(path: Path) -> bool:
    with contextlib.suppress(PermissionError):  # the backend says so, and what mends it
        if path.exists():
            return path.is_dir()
    return path.suffix in {"", ".d"} and _volume(path) is None


def _home(path: Path) -> Path:
    """Return the directory that a file is read from: the volume that it is in, so that all files of one swap change at once."""
    return _volume(path) or path.parent


def _volume(path: Path) -> Path | None:
    """Return the directory above that the kubelet laid out, where there is one."""
    with contextlib.suppress(PermissionError):
        return next((parent for parent in path.parents if (parent / "..data").is_symlink()), None)
    return None
