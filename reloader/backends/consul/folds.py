"""Which keys are read together, by one recursive query of a folder that they share: 2,000 keys are then a handful of reads.

The server says nothing of keys that a recursive query leaves out because the token may not read them. So a fold serves those keys that its
answer holds; every other key is read by itself, which tells a missing key from a denied one.
"""

import heapq
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from os.path import commonprefix
from typing import Protocol

from reloader.backends.consul.reads import Fold, Key
from reloader.backends.reads import Inbox
from reloader.backends.turns import Turns
from reloader.snapshot import FailureKind, Outcome, Reading
from reloader.world.clock import Clock

FOREIGN_SHARE = 16
"""How many times as many keys as are wanted a fold may bring."""
FOREIGN_KEYS = 256
"""How many keys a fold may bring, however few of them are wanted."""
PATIENCE = 3
"""How often in a row a fold may fail while the server answers others."""
TRIED_AGAIN = 600.0
"""How many seconds a folder that could not serve is left alone."""


def folds(keys: Iterable[str], most: int, refused: Collection[str] = ()) -> dict[str, frozenset[str]]:
    """Return the folders that are worth a query each, with the keys that it serves.

    They are the deepest that two keys or more share. Where there are more than `most`, the deepest are merged into those above, with all
    that is below those, but never into the root, nor into one of `refused`.
    """
    groups: dict[str, set[str]] = {}
    for key in keys:
        if (folder := _above(key)) and folder not in refused:
            groups.setdefault(folder, set()).add(key)
    deepest = [(-folder.count("/"), folder) for folder in groups]
    heapq.heapify(deepest)
    while len(groups) > most and deepest:
        _, folder = heapq.heappop(deepest)
        above = _above(folder[:-1])
        if folder in groups and above and above not in refused:
            below = [each for each in groups if each.startswith(above)]  # its query brings all of them
            groups[above] = set().union(*map(groups.pop, below))
            heapq.heappush(deepest, (-above.count("/"), above))
    return {_shared(group): frozenset(group) for group in groups.values() if len(group) > 1}


def _above(path: str) -> str:
    return path[: path.rfind("/") + 1]


def _shared(keys: Collection[str]) -> str:
    return _above(commonprefix(tuple(keys)))  # noqa: RUF071 - only up to its last slash


class Reads(Protocol):
    """The backend whose keys are folded."""

    def watch(self, read: Hashable, inbox: Inbox, name: str) -> Callable[[], None]:
        """Keep reading; return what ends it."""
        ...

    def serve(self, outcomes: Mapping[Hashable, Outcome]) -> None:
        """Deliver outcomes of reads that are not done by themselves from now on."""
        ...

    def unserve(self, reads: Iterable[Hashable]) -> None:
        """Do these reads by themselves again, at once."""
        ...


@dataclass(eq=False)
class _InUse:
    """A folder that is read, and the wanted keys below it."""

    folder: str
    members: set[str]
    end: Callable[[], None] = lambda: None
    served: set[str] = field(default_factory=set)
    """Whom its last answer held."""
    missing: set[str] = field(default_factory=set)
    """Who did not exist when read alone; that is looked at again now and then only, since the fold shows when they are created."""
    answered: bool = False
    failures: int = 0
    """How often in a row it could not be read, though the server was there."""


class Folding:
    """The folds of one backend, whose lock is held by whoever calls; an inbox for their answers."""

    def __init__(self, reads: Reads, turns: Turns, clock: Clock) -> None:
        self._reads = reads
        self._turns = turns
        self._clock = clock
        self._unread: set[str] = set()
        self._wanted: set[str] = set()
        self._fold_of: dict[str, _InUse] = {}
        self._in_use: dict[str, _InUse] = {}
        self._left_alone: dict[str, float] = {}
        self._plan_at = -inf

    def want(self, key: str) -> None:
        """Take that a key is read."""
        if key not in self._wanted:
            self._wanted.add(key)
            self._unread.add(key)
            self._plan_at = -inf

    def drop(self, key: str) -> None:
        """Take that nobody waits for a key any more."""
        self._wanted.discard(key)
        self._unread.discard(key)
        if (fold := self._fold_of.pop(key, None)) is not None:
            for keys in (fold.members, fold.served, fold.missing):
                keys.discard(key)
            if not fold.members:
                self._end(fold)

    def read_alone(self, key: str) -> None:
        """Take that a key was read by itself; once all were, those that share folders are read together."""
        self._unread.discard(key)
        if not self._unread and self._clock.now() >= self._plan_at and self._turns.crowded():
            self._plan()

    def shows(self, key: str) -> bool:
        """Return whether a fold would show a key, which does not exist, once it is created."""
        fold = self._fold_of.get(key)
        if fold is None or not fold.answered:
            return False
        fold.missing.add(key)
        return True

    def failed_alone(self, folder: str, kind: FailureKind) -> None:
        """Take that a folder could not be read, though the server answers; it is given up at once if that will not pass by itself."""
        if (fold := self._in_use.get(folder)) is not None:
            fold.failures = fold.failures + 1 if kind is FailureKind.UNREACHABLE else PATIENCE

    def new_token(self) -> None:
        """Try every folder again: another token may have other rights."""
        self._left_alone.clear()
        self._plan_at = -inf

    def put(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take what came of reading folders, each under its name."""
        for folder, outcome in outcomes.items():
            if (fold := self._in_use.get(folder)) is None:
                continue
            if isinstance(outcome, Reading):
                self._answered(fold, outcome)
            elif fold.failures >= PATIENCE:
                self._give_up(fold)
            else:
                fold.served |= fold.missing
                self._reads.serve({Key(key): outcome for key in fold.served})

    def _plan(self) -> None:
        now = self._clock.now()
        self._left_alone = {folder: until for folder, until in self._left_alone.items() if until > now}
        self._plan_at = min(self._left_alone.values(), default=inf)
        for key in self._wanted - self._fold_of.keys():
            for folder, fold in self._in_use.items():
                if key.startswith(folder):
                    fold.members.add(key)
                    self._fold_of[key] = fold
        loose = self._wanted - self._fold_of.keys()
        for folder, keys in folds(loose, max(1, self._turns.connections - len(self._in_use)), self._left_alone).items():
            fold = self._in_use[folder] = _InUse(folder, set(keys))
            self._fold_of |= dict.fromkeys(keys, fold)
            fold.end = self._reads.watch(Fold(folder), self, folder)

    def _answered(self, fold: _InUse, reading: Reading) -> None:
        found: Mapping[str, str | bytes] = reading.value
        if len(found) > max(FOREIGN_KEYS, FOREIGN_SHARE * len(fold.members)):
            self._give_up(fold)
            return
        held = {key: found[name] for key in fold.members if (name := key.removeprefix(fold.folder)) in found}
        # At first all that it does not hold, so that those who are missing are known to be.
        gone = (fold.served if fold.answered else fold.members) - held.keys()
        fold.answered, fold.failures, fold.served = True, 0, set(held)
        fold.missing -= held.keys()
        self._reads.serve({Key(key): replace(reading, value=value) for key, value in held.items()})
        self._reads.unserve(Key(key) for key in gone)

    def _give_up(self, fold: _InUse) -> None:
        """Read its keys by themselves, and perhaps by a folder further down."""
        self._left_alone[fold.folder] = self._clock.now() + TRIED_AGAIN
        self._plan_at = -inf
        for key in fold.members:
            del self._fold_of[key]
        self._end(fold)
        self._reads.unserve(Key(key) for key in fold.served | fold.missing)

    def _end(self, fold: _InUse) -> None:
        del self._in_use[fold.folder]
        fold.end()
