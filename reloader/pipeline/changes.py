"""What the last publish changed, as far as a person may see it: a masked diff, or the names of files where that would cost too much."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from reloader.mask import Mask, Unknown, changed_files, masked_diff
from reloader.snapshot import Snapshot, Value
from reloader.status import Change
from reloader.volume import Volume
from reloader.volume.layout import file_names
from reloader.world.clock import Clock

LARGEST, LINES = 256 * 2**10, 10_000
"""Bytes and lines of a set from which on only names of files are told: this much is compared in 0.1 s, and where lines are as bad as can
be in 0.5 s, which grows with their square."""
EFFORT = 2**30
"""Bytes to search for secrets, over all their forms, from which on only names are told; this much takes 0.3 s."""
MOST_LINES, MOST_BYTES = 200, 16 * 2**10
"""How much of a diff is kept."""
CUT = "... the rest is not shown\n"


class Secrets:
    """The secret values that sets were made of, as far as this process knows.

    A source that was secret once stays so here: what it held then may stand in a set that is compared later.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._of: dict[int, tuple[list[Value], list[Value]]] = {}
        """By number of the set: the values when it was first made, and when it was made last; equal sets come of both."""

    def made_of(self, number: int, values: Mapping[str, Value], snapshot: Snapshot, needed: Collection[int]) -> None:
        """Take note of what a set was made of, and forget the sets that are not needed."""
        readings = {name: standing.reading for name, standing in snapshot.standings.items() if standing.reading is not None}
        self._names |= {name for name, reading in readings.items() if reading.secret}
        used = [values[name] for name in self._names & values.keys()]
        newest = [readings[name].value for name in self._names & readings.keys()]
        latest = [*used, *newest]
        first, _ = self._of.get(number, ([], []))
        self._of = {other: kept for other, kept in self._of.items() if other in needed} | {number: (first or latest, latest)}

    def know(self, number: int | None) -> bool:
        """Return whether all secrets of a set are known; no set has none."""
        return number is None or number in self._of

    def mask(self, *numbers: int | None) -> Mask:
        """Return what hides the secrets of these sets."""
        known = (values for number in numbers if number is not None for values in self._of.get(number, ()))
        return Mask(value for values in known for value in values)


@dataclass(frozen=True)
class _Set:
    """The files of a generation when it was published or replaced; without their contents where these are too large together."""

    number: int | None
    directory: Path
    names: tuple[str, ...] = ()
    files: Mapping[str, bytes] | None = None

    def digests(self) -> dict[str, bytes]:
        """Return what tells the contents of the files from each other; nothing for those that cannot be read any more."""
        if self.files is not None:
            return {name: sha256(data).digest() for name, data in self.files.items()}
        return {name: _digest(self.directory / name) for name in self.names}


class Changes:
    """The last change of one pipeline; it is put into words when somebody asks, once readers have the set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._secrets = Secrets()
        self._pending: Callable[[], Change] | None = None
        self._last: Change | None = None

    def made_of(self, number: int, values: Mapping[str, Value], snapshot: Snapshot, needed: Collection[int]) -> None:
        """Take note of what a set was made of, so that its secrets are known when it is compared."""
        self._secrets.made_of(number, values, snapshot, needed)

    @contextmanager
    def publishing(self, volume: Volume, number: int | None) -> Iterator[None]:
        """Note what a publish changes, of this generation or of none; what cannot be read is no reason not to publish."""
        published = volume.published
        before = _read(volume, published.number if published else None)
        yield
        wall, targets = self._clock.wall(), _targets(volume, before.number, number)
        # The new set is read when somebody asks, so that its reader does not wait for that: nobody writes to a generation.
        self._pending = lambda: Change(generation=number or 0, at=wall, diff=_cut(self._lines(before, _read(volume, number), targets)))

    @property
    def last(self) -> Change | None:
        """Return what the last publish changed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self._last = pending()
        return self._last

    def _lines(self, before: _Set, after: _Set, targets: tuple[bytes, bytes]) -> Iterable[str]:
        unknown: list[Unknown] = [] if self._secrets.know(before.number) else ["old"]
        unknown += [] if self._secrets.know(after.number) else ["new"]
        mask, old, new = self._secrets.mask(before.number, after.number), before.files, after.files
        if old is None or new is None or len(unknown) > 1 or _is_dear(mask, old) or _is_dear(mask, new):
            return changed_files(before.digests(), after.digests())
        old = {name: data.replace(*targets) for name, data in old.items()}
        return masked_diff(old, new, mask, unknown=unknown[0] if unknown else None)


def _read(volume: Volume, number: int | None) -> _Set:
    if number is None:
        return _Set(None, volume.path, files={})
    directory = volume.directory(number)
    names: tuple[str, ...] = ()
    with suppress(OSError):
        names = tuple(file_names(directory))
        if sum((directory / name).stat().st_size for name in names) <= LARGEST:
            return _Set(number, directory, names, {name: (directory / name).read_bytes() for name in names})
    return _Set(number, directory, names)


def _targets(volume: Volume, before: int | None, after: int | None) -> tuple[bytes, bytes]:
    """Return the directory of the one set, and of the other, as the target sees them: another name of it is no change."""
    one, other = (volume.target_directory(number or 0).encode() for number in (before, after))
    return one, other


def _is_dear(mask: Mask, files: Mapping[str, bytes]) -> bool:
    lines = sum(data.count(b"\n") for data in files.values())
    return lines > LINES or mask.effort * sum(map(len, files.values())) > EFFORT


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            digest = sha256()
            while part := file.read(LARGEST):
                digest.update(part)
            return digest.digest()
    except OSError:
        return b""


def _cut(lines: Iterable[str]) -> str:
    """Return as many whole lines as are kept, and that there are more."""
    kept: list[str] = []
    size = 0
    for line in lines:
        size += len(line.encode())
        if len(kept) == MOST_LINES or size > MOST_BYTES:
            return "".join([*kept, CUT])
        kept.append(line)
    return "".join(kept)
