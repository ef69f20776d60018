"""What was written, and where: the file's mappings with the environment laid over them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reloader.settings.mistakes import Mistake

Loc = tuple[str | int, ...]
"""The path to a value: keys of mappings, positions in lists."""
Problem = tuple[Loc, str]
"""Where something is wrong, and what was expected."""

MISSING = object()


@dataclass(frozen=True)
class Place:
    """Where a value was written."""

    where: str
    name: str = ""
    """What it was called there, where that is not the path of its key: a variable, an option."""
    line: int = 0
    column: int = 0

    def mistake(self, loc: Loc, message: str) -> Mistake:
        """Return the mistake at this place."""
        where = f"{self.where}:{self.line}:{self.column}" if self.line else self.where
        return Mistake(where, self.name or ".".join(map(str, loc)), message)


class Tree:
    """Plain data, and the place of each value in it."""

    def __init__(self, data: dict[str, Any], places: Mapping[Loc, Place]) -> None:
        self.data = data
        self.places = dict(places)

    def look(self, loc: Loc) -> Any:
        """Return the value there, or `MISSING`."""
        value: Any = self.data
        for key in loc:
            if not isinstance(value, dict) or key not in value:
                return MISSING
            value = value[key]
        return value

    def has(self, *loc: str) -> bool:
        """Return whether something is written there."""
        return self.look(loc) is not MISSING

    def keys(self, *loc: str) -> Iterator[str]:
        """Yield the keys of the mapping there, if it is one."""
        value = self.look(loc)
        yield from value if isinstance(value, dict) else ()

    def put(self, loc: Loc, value: Any, place: Place) -> None:
        """Write a value over what is there; where something other than a mapping is in the way, that stays and is its own mistake."""
        mapping: Any = self.data
        for key in loc[:-1]:
            mapping = mapping.setdefault(key, {})
            if not isinstance(mapping, dict):
                return
        mapping[loc[-1]] = value
        self.places = {at: kept for at, kept in self.places.items() if at[: len(loc)] != loc} | {loc: place}

    def without(self, loc: Loc) -> "Tree | None":
        """Return the tree without the value there, or without what should hold it; None when nothing would be left."""
        while loc and (not isinstance(above := self.look(loc[:-1]), dict) or loc[-1] not in above):
            loc = loc[:-1]
        if not loc:
            return None
        return Tree(_without(self.data, loc), self.places)

    def place(self, loc: Loc) -> Place:
        """Return where a value is written, or the nearest that holds it."""
        while loc and loc not in self.places:
            loc = loc[:-1]
        return self.places[loc]

    def mistakes(self, problems: Iterator[Problem] | list[Problem]) -> list[Mistake]:
        """Return each problem at its place, in the order of the file."""
        placed = [(self.place(loc), loc, message) for loc, message in problems]
        placed.sort(key=lambda found: (found[0].line == 0, found[0].line, found[0].column))
        return [place.mistake(loc, message) for place, loc, message in placed]


def _without(data: dict[str, Any], loc: Loc) -> dict[str, Any]:
    key, *rest = loc
    if not rest:
        return {name: value for name, value in data.items() if name != key}
    return {name: _without(value, tuple(rest)) if name == key else value for name, value in data.items()}
