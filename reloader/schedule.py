"""When to act: pure functions of the time, what happened and a random number; threads only sleep until these say so.

All times and durations are seconds. Jitter is everywhere, because sidecars start together (a rollout) and fail together (an outage).
"""

import random
from dataclasses import dataclass, replace
from math import ceil, inf

BACKOFF_BASE = 0.5
BACKOFF_CAP = 60.0
PATIENCE = 2.5
"""How many intervals a retry of what is polled waits at most, where that is longer than the cap of its backoff.

Then a fleet asks a failing server less often than a healthy one (once in 1.4 intervals on average), and no more than twice as often when it
is back, even where each poll finds news and asks twice; and all are back within three intervals (docs/scale.md has the simulation).
"""
BLOCKING_WAIT = 60.0
"""How long a Consul blocking query asks the server to hold it."""
TURN_CYCLE = 10.0
"""How long it should take until every read had its turn, where there are more reads than connections."""
SUCCESSION = 10.0
"""Over how many seconds leases are had anew after a change of tokens, where the end of the old one is not known."""
ANSWER_INTERVAL = 0.1
"""The least time between two answers of one blocking query, so that a busy key is no busy loop (consul-template's 100 ms).

It is the least that a read holds its connection too, so that however many reads there are, each connection asks ten times a second at most.
"""

RESUMED_PER_SECOND = 200.0
"""How many reads of one process are done in a second, on average, when their server is back."""
RESUMED_WITHIN = 10.0
"""Within how many seconds all of them are, however many."""


@dataclass(frozen=True)
class Backoff:
    """Exponential with full jitter: the n-th retry waits a random time up to `base * 2**n`, `cap` at most, a tenth of that at least."""

    base: float = BACKOFF_BASE
    cap: float = BACKOFF_CAP

    def ceiling(self, failures: int) -> float:
        """Return the longest wait after that many failures in a row (1 or more)."""
        return min(self.cap, self.base * 2.0 ** min(failures - 1, 32))

    def floor(self, failures: int) -> float:
        """Return the shortest wait after that many failures in a row: no retry comes sooner."""
        return self.ceiling(failures) / 10

    def patient(self, interval: float) -> "Backoff":
        """Return the same, stretched for what is asked every `interval` seconds while all is well; 0 where that is no matter of time."""
        factor = max(1.0, PATIENCE * interval / self.cap)
        return replace(self, base=self.base * factor, cap=self.cap * factor)

    def delay(self, failures: int, rng: random.Random) -> float:
        """Return the wait after that many failures in a row."""
        return rng.uniform(self.floor(failures), self.ceiling(failures))


def first_poll(now: float, interval: float, rng: random.Random) -> float:
    """Return when a polled value is read for the second time: anywhere in the interval, so that a rollout is no herd from then on."""
    return now + interval * rng.uniform(0.0, 1.0)


def next_poll(now: float, interval: float, rng: random.Random) -> float:
    """Return when a polled value is read again: a tenth of the interval early or late, so that a fleet spreads out."""
    return now + interval * rng.uniform(0.9, 1.1)


def renewal(now: float, left: float, rng: random.Random) -> float:
    """Return when a lease is renewed: at about two thirds of what is left of it."""
    return now + max(0.0, left) * rng.uniform(0.6, 0.7)


def reissue(now: float, lifetime: float, rng: random.Random) -> float:
    """Return when a value that cannot be renewed is issued again: at 85 to 95 % of its lifetime from now."""
    return now + max(0.0, lifetime) * rng.uniform(0.85, 0.95)


def last_renewal(now: float, left: float, term: float, rng: random.Random) -> float:
    """Return when a lease that grows no more is issued anew: when 5 to 15 % of its usual term are left, so that both live for a while."""
    return now + max(0.0, left - term * rng.uniform(0.05, 0.15))


def rotation(now: float, left: float) -> float:
    """Return when a value is read again that the server changes in `left` seconds, which it tells in whole ones."""
    return now + left + 1.0


def succession(now: float, left: float, rng: random.Random) -> float:
    """Return when what ends with a token is had anew with the next one: spread over half of what is left, soon where nobody knows that."""
    return now + rng.uniform(0.0, SUCCESSION if left == inf else max(0.0, left) / 2)


def after_outage(now: float, reads: int, rng: random.Random) -> float:
    """Return when one of so many reads that waited for their server is done, now that it is back: promptly, and not all at once."""
    return now + rng.uniform(0.0, min(RESUMED_WITHIN, (reads - 1) / RESUMED_PER_SECOND))


def turn(reads: int, connections: int) -> float:
    """Return how long a blocking read may hold its connection, so that each of `reads` has its turn."""
    if reads <= connections:
        return BLOCKING_WAIT
    return max(ANSWER_INTERVAL, TURN_CYCLE / ceil(reads / connections))


def round_of_turns(reads: int, connections: int) -> float:
    """Return how long it takes until each of `reads` had its turn; a server may add a sixteenth to what it is told to hold."""
    return ceil(reads / connections) * turn(reads, connections) * 17 / 16


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When changes are acted on."""

    settle: float = 0.1
    settle_max: float = 2.0
    min_interval: float = 1.0

    def settled(self, first_change: float, last_change: float, *, whole: bool) -> float:
        """Return when changes have settled: at once where they are whole, else after a quiet time that is bounded."""
        if whole:
            return last_change
        return min(last_change + self.settle, first_change + self.settle_max)

    def due(self, first_change: float | None, last_change: float | None, *, whole: bool, last_reload: float | None) -> float:
        """Return when to act: settled, and not too soon after the last reload; infinite when nothing changed."""
        if first_change is None or last_change is None:
            return inf
        earliest = -inf if last_reload is None else last_reload + self.min_interval
        return max(earliest, self.settled(first_change, last_change, whole=whole))


def splay(now: float, longest: float, rng: random.Random) -> float:
    """Return when to signal, so that a fleet that got one change does not reload as one."""
    return now + rng.uniform(0.0, longest)
