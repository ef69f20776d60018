"""Of which readings a set was made, and until when they hold."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from reloader.snapshot import Reading, Snapshot, Value


@dataclass(frozen=True)
class _Used:
    """A reading that went into a set, without its value."""

    at: float
    expires: float | None


class Made:
    """The sets that this process published or found published, by their numbers."""

    def __init__(self) -> None:
        self._of: dict[int, dict[str, _Used]] = {}

    def note(self, number: int, values: Mapping[str, Value], snapshot: Snapshot, needed: Collection[int | None]) -> None:
        """Take note of what a set was made of, and forget the sets that are not needed; a value that is held is not the newest one."""
        before = self._of.get(number, {})
        used = dict(before)
        for name, standing in snapshot.standings.items():
            if standing.reading is not None and name in values and values[name] == standing.reading.value:
                used[name] = _used(standing.reading)
        self._of = {other: made for other, made in self._of.items() if other in needed} | {number: used}

    def at(self, number: int) -> Mapping[str, float]:
        """Return when each reading came that a set was made of; nothing of a set that an earlier run made."""
        return {name: used.at for name, used in self._of.get(number, {}).items()}

    def follow(self, snapshot: Snapshot) -> Mapping[int, float]:
        """Take what was renewed since, and return until when each set holds, of those that end (boot clock)."""
        now = {name: _used(standing.reading) for name, standing in snapshot.standings.items() if standing.reading is not None}
        ends = {}
        for number, made in self._of.items():
            for name, used in made.items():
                if name in now and now[name].at == used.at:
                    made[name] = replace(used, expires=now[name].expires)
            known = [used.expires for used in made.values() if used.expires is not None]
            if known:
                ends[number] = min(known)
        return ends


def _used(reading: Reading) -> _Used:
    return _Used(reading.at, reading.expires)
