"""Leases that are in use and that nobody who reads them renews: they were replaced, should be, or may be read by nobody any more."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf

from reloader.backends.vault.issued import Issued, Read
from reloader.schedule import Backoff
from reloader.world.clock import Clock

RETRIED = Backoff()
"""How soon the renewal of such a lease is tried again."""


@dataclass(eq=False)
class Older:
    """One of them."""

    issued: Issued
    replaced_at: float
    """When its successor came; infinite while there is none."""
    needed: bool = True
    is_current: bool = False
    """It is what is read still, because no successor could be issued."""


class InUse:
    """Those of one backend, and how often the renewal of each lease failed, whoever tried; its owner locks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._all: list[Older] = []
        self._failures: dict[str, tuple[int, float]] = {}

    def keep(self, issued: Issued, replaced_at: float = inf, *, is_current: bool = False) -> Older:
        """Take one, to be renewed no sooner than its failures so far allow."""
        failures, last = self.failed(issued.lease)
        if failures:
            issued = replace(issued, renew=max(issued.renew, last + RETRIED.floor(failures)))
        self._all.append(older := Older(issued, replaced_at, is_current=is_current))
        return older

    def alike(self, issued: Issued) -> list[Older]:
        """Return all that is kept of one lease: several may hold it."""
        return [older for older in self._all if older.issued.lease == issued.lease]

    def is_kept_up(self, issued: Issued) -> bool:
        """Return whether its lease is renewed from here, and so by nobody else."""
        return any(older.needed for older in self.alike(issued))

    def prolonged(self, issued: Issued) -> Older | None:
        """Return what its lease is kept by because no successor could be issued."""
        return next((older for older in self.alike(issued) if older.is_current), None)

    def replaced(self, read: Read, until: float) -> list[Older]:
        """Return what is kept though something else came for this read until then."""
        return [older for older in self._all if older.needed and older.issued.read == read and older.replaced_at <= until]

    def due(self) -> Older | None:
        """Return what is to be renewed next."""
        waiting = [older for older in self._all if older.needed and older.issued.renew < inf]
        return min(waiting, key=lambda older: older.issued.renew, default=None)

    def leases(self) -> dict[str, Issued]:
        """Return what each lease is kept for."""
        return {older.issued.lease: older.issued for older in self._all}

    def drop(self, older: Older) -> None:
        """Keep one no more."""
        self._all.remove(older)

    def clear(self) -> None:
        """Keep none."""
        self._all.clear()

    def forget_ended(self, current: Iterable[Issued]) -> None:
        """Keep what lives, and the failures of that and of what is `current`."""
        now = self._clock.now()
        self._all = [older for older in self._all if older.issued.ends > now]
        living = {*self.leases(), *(issued.lease for issued in current)}
        self._failures = {lease: failed for lease, failed in self._failures.items() if lease in living}

    def failed(self, lease: str) -> tuple[int, float]:
        """Return how many renewals of a lease failed in a row, and when the last one did."""
        return self._failures.get(lease, (0, -inf))

    def fails(self, lease: str, times: int = 1) -> None:
        """Take that a renewal of a lease failed just now."""
        failures, _ = self.failed(lease)
        self._failures[lease] = failures + times, self._clock.now()

    def succeeds(self, lease: str) -> None:
        """Take that a lease was renewed."""
        self._failures.pop(lease, None)
