"""One bad source does not hold up the rest: what changed in a refused set keeps the value that was good, and the rest goes on."""

from collections.abc import Collection, Mapping

from reloader.snapshot import Value

Values = Mapping[str, Value]


class Holding:
    """The values that sets are made of; what earlier sets were made of is remembered as long as this process runs."""

    def __init__(self) -> None:
        self._made: dict[int, Values] = {}
        self._held: dict[str, tuple[Value, Value]] = {}
        """By source: the value that is not used, and the one that is used instead."""

    @property
    def held(self) -> frozenset[str]:
        """Return the names of the sources whose newest value is not used."""
        return frozenset(self._held)

    def effective(self, values: Values) -> dict[str, Value]:
        """Return the values to render: a held source has the good one until it says something new."""
        self._held = {name: held for name, held in self._held.items() if name in values and values[name] == held[0]}
        return {name: self._held[name][1] if name in self._held else value for name, value in values.items()}

    def published(self, number: int, values: Values, needed: Collection[int | None]) -> None:
        """Take note of what a published set was made of; sets that are not among the needed ones are forgotten."""
        self._made = {other: made for other, made in self._made.items() if other in needed} | {number: values}

    def made_of(self, number: int | None) -> Values:
        """Return what a set was made of; nothing of one that an earlier run published."""
        return self._made.get(number, {}) if number is not None else {}

    def refuse(self, values: Values, good: Values) -> bool:
        """Hold what differs between refused values and good ones; return whether there is a rest that is worth another set."""
        changed = {name: (value, good[name]) for name, value in values.items() if name in good and good[name] != value}
        self._held |= changed
        return bool(changed)

    def release(self) -> None:
        """Use the newest value of every source again."""
        self._held.clear()
