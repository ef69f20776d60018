"""Whether an answer is one: a list or a folder that is suddenly empty, or shorter, may be an outage that looks like an answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from math import inf
from typing import Any

from reloader.snapshot import Failure, FailureKind, Outcome, Reading
from reloader.words import counted

_TOO_FEW = (
    "an answer with {items} is no answer, as `min_items: {least}` says; what is in use stays. Check that the server has its data, and that "
    "the token may read it"
)
_EMPTIED = (
    "an empty answer where there were items before; what is in use stays. Check that the server has its data, and that the token may read "
    "it; `min_items: 0` on the source allows empty"
)
_NOT_KNOWN = "an empty answer, and the volume that remembers whether there were items before cannot be used yet"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a source demands of its answers."""

    min_items: int | None = None
    """The least number of items; None for 1 after the first answer that had any."""
    hold: float = 0.0
    """How many seconds an answer with fewer items than the one in use must last before it counts."""
    read: str = ""
    """Names what is read: what another read had says nothing of this one."""


def rules_of(settings: Any, read: object) -> Rules | None:
    """Return what the settings of a source demand; None where its kind has no such keys."""
    if not hasattr(settings, "min_items"):
        return None
    return Rules(min_items=settings.min_items, hold=settings.hold, read=sha256(repr(read).encode()).hexdigest()[:16])


class Guard:
    """The judge of one source's answers, with what it has to remember; values that are no lists or mappings pass."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._filled: bool | None = None  # None while nobody knows
        self._in_use: Reading | None = None
        self._waiting: list[tuple[float, Reading]] = []  # ever shorter answers, with since when none was longer
        self._refused: Reading | None = None
        self._failing = False

    @property
    def filled(self) -> str | None:
        """Return what was read that had items, for the record; None if nothing had, or nobody knows."""
        return self._rules.read if self._filled else None

    @property
    def look_at(self) -> float:
        """Return when an answer has lasted long enough; infinite if none waits for that."""
        return self._waiting[0][0] + self._rules.hold if self._waiting and not self._failing else inf

    def judge(self, outcome: Outcome) -> Outcome:
        """Return what an outcome amounts to: itself, the reading in use while a shrink has not lasted, or a failure."""
        self._failing = isinstance(outcome, Failure)
        if isinstance(outcome, Failure) or not isinstance(outcome.value, list | Mapping):
            return outcome
        items = len(outcome.value)
        if items < self._least():
            self._refused, self._failing = outcome, True
            self._waiting.clear()
            return Failure(kind=FailureKind.REFUSED, reason=self._too_few(items), at=outcome.at)
        self._refused = None
        self._filled = bool(items)
        return self._held(outcome)

    def remember(self, filled: Mapping[str, str] | None, name: str) -> Outcome | None:
        """Take what earlier runs read that had items, by source; None where nobody knows, and then this one may well have had some.

        Return what an answer amounts to by that which had to wait for it, if there is one.
        """
        if self._filled is not None:
            return None
        self._filled = filled is None or filled.get(name) == self._rules.read
        return None if self._refused is None else self.judge(self._refused)

    def ripe(self, now: float) -> Reading | None:
        """Return the reading to use from now on, if an answer has lasted long enough."""
        return self._release(now) if self.look_at <= now else None

    def _least(self) -> int:
        if self._rules.min_items is not None:
            return self._rules.min_items
        return 0 if self._filled is False else 1

    def _too_few(self, items: int) -> str:
        if self._rules.min_items is not None:
            return _TOO_FEW.format(items=counted(items, "item"), least=self._rules.min_items)
        return _EMPTIED if self._filled else _NOT_KNOWN

    def _held(self, reading: Reading) -> Reading:
        """Use a reading, or let it wait behind those that are longer; one that is shorter than it did not last."""
        if self._in_use is None or len(reading.value) >= len(self._in_use.value):
            self._in_use = reading
            self._waiting.clear()
            return reading
        since = reading.at
        while self._waiting and len(self._waiting[-1][1].value) <= len(reading.value):
            since, _ = self._waiting.pop()
        self._waiting.append((since, reading))
        return self._release(reading.at)

    def _release(self, now: float) -> Reading:
        """Use the shortest answer that has lasted, and keep that as current as the newest one."""
        newest = self._waiting[-1][1]
        while self._waiting and self._waiting[0][0] + self._rules.hold <= now:
            _, self._in_use = self._waiting.pop(0)
        assert self._in_use is not None  # noqa: S101 - nothing waits without one
        if not self._waiting:
            return self._in_use
        kept = counted(len(self._in_use.value), "item")
        detail = f"{newest.detail}; {kept} in use until the shrink has lasted for `hold`"
        return replace(self._in_use, at=newest.at, current_until=newest.current_until, detail=detail)
