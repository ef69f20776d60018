"""How a volume is laid out, as the kubelet does it: `X -> ..data/X`, `..data -> ..GENERATION`, all else of ours begins with `..` too.

Functions here only look; what they find wrong they raise.
"""

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from reloader.volume.errors import VolumeError
from reloader.world import unlinked

DATA = "..data"
DATA_TEMPORARY = "..data_tmp"
HOME = "..reloader"
REMOVED = "_gone"
"""Ends the name of a generation that is being removed: it goes in one step, so that no half of one is ever taken for a whole."""

LARGEST = 64 * 1024 * 1024
"""How many bytes a file of a set may hold; no set that we make has more."""

_GENERATION = re.compile(r"\.\.(0|[1-9][0-9]*)")
_REMOVED = re.compile(_GENERATION.pattern + REMOVED)


def generation_name(number: int) -> str:
    """Return the name of a generation's directory."""
    return f"..{number}"


def linked(volume: Path) -> int | None:
    """Return the number of the generation that `..data` names, or None where it names no generation that is there.

    Raises:
        OSError: that cannot be seen now.

    """
    match = _GENERATION.fullmatch(_link(volume / DATA) or "")
    if match is None:
        return None
    try:
        there = stat.S_ISDIR((volume / match[0]).stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None
    return int(match[1]) if there else None


def refuse_foreign_data(volume: Path) -> None:
    """Be sure that `..data`, where there is one, is a link of ours.

    Raises:
        VolumeError: it is something else, and what.

    """
    path = volume / DATA
    to = _link(path)
    if to is None and not os.path.lexists(path):
        return
    if to is None or not _GENERATION.fullmatch(to):
        what = "is not a link" if to is None else f"points to {to!r}"
        raise VolumeError(
            "open", f"{path} {what}: another program fills this directory; remove it, or give the volume a directory of its own"
        )


def generations(volume: Path) -> set[int]:
    """Return the numbers of all generations that are there, whole or not."""
    with os.scandir(volume) as entries:
        return {int(match[1]) for entry in entries if (match := _GENERATION.fullmatch(entry.name)) and entry.is_dir(follow_symlinks=False)}


def is_free(volume: Path, number: int) -> bool:
    """Return whether nothing has the name of that generation, nor is left of its removal."""
    name = generation_name(number)
    return not any(os.path.lexists(volume / each) for each in (name, name + REMOVED))


def leftovers(volume: Path) -> list[Path]:
    """Return the directories whose removal was begun."""
    return [path for path in volume.iterdir() if _REMOVED.fullmatch(path.name)]


def links(volume: Path) -> set[str]:
    """Return the names of the user links of ours."""
    with os.scandir(volume) as entries:
        return {entry.name for entry in entries if entry.is_symlink() and _link(volume / entry.name) == user_link(entry.name)}


def user_link(name: str) -> str:
    """Return where the user link of that name points: relative, so that the volume can be mounted elsewhere."""
    return f"{DATA}/{name}"


def missing_links(volume: Path, names: Iterable[str]) -> list[str]:
    """Return which of these names have no user link yet.

    Raises:
        VolumeError: something that is not ours has one of the names, and what it is.

    """
    missing = sorted(set(names) - links(volume))
    for name in missing:
        path = volume / name
        if os.path.lexists(path):
            raise VolumeError(
                "publish", f"{path} is in the way: {_what(path)}, not made by reloader; remove it, or give the file another name"
            )
    return missing


def _what(path: Path) -> str:
    if path.is_symlink():
        return f"a link to {str(path.readlink())!r}"
    return "a directory" if path.is_dir() else "a file"


def first_components(names: Iterable[str]) -> set[str]:
    """Return the names that appear in the volume itself."""
    return {PurePosixPath(name).parts[0] for name in names}


def folders(names: Iterable[str]) -> list[PurePosixPath]:
    """Return the folders that files of these names need, the outer before the inner."""
    return sorted({parent for name in names for parent in PurePosixPath(name).parents if parent.parts})


def refuse_names(names: Iterable[str]) -> None:
    """Be sure that every name stays inside its generation and can have a user link.

    Raises:
        VolumeError: one does not, or is a file and a folder at once.

    """
    names = set(names)
    for name in names:
        parts = name.split("/")
        if parts[0].startswith("..") or "\0" in name or not set(parts).isdisjoint(("", ".", "..")):
            raise VolumeError("stage", f"{name!r} cannot be the name of a file on the volume: no empty part, no `.`, no `..` at its start")
    for folder in folders(names):
        if str(folder) in names:
            raise VolumeError("stage", f"{str(folder)!r} would be a file and a folder at once: give one of them another name")


def read_files(volume: Path) -> Mapping[str, bytes]:
    """Return the content of every file that is published; all of one generation, also while the link moves.

    Raises:
        OSError: some of it may not be read.

    """
    number = linked(volume)
    root = volume / generation_name(number or 0)
    return {} if number is None else {name: read_file(root / name) for name in file_names(root)}


def read_file(path: Path) -> bytes:
    """Return what a file of a set holds.

    Raises:
        OSError: it may not be read, or is none: a link that somebody put there could lead to our own secrets.

    """
    return unlinked.read(path, LARGEST)


def file_names(generation: Path) -> Iterator[str]:
    """Yield the names of all files of a generation, in order."""
    for path in sorted(generation.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(generation).as_posix()


def _link(path: Path) -> str | None:
    """Return what a link says, or None where there is no link."""
    try:
        return str(path.readlink())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):
            return None
        raise
