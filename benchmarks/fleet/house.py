"""A fleet: the product's own Vault backend for every sidecar, all in one time, and what came of it."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import Any, cast

from benchmarks.fleet.server import ADDRESS, Server
from benchmarks.fleet.together import Lane, Together
from reloader.backends.turns import Turns
from reloader.backends.vault import Backend, Secret
from reloader.backends.vault.issued import Read
from reloader.plan import Timing, Vault, VaultAuth
from reloader.schedule import Pace, splay
from reloader.snapshot import Outcome, Reading
from reloader.world import World
from reloader.world.session import BoundedSession
from tests.virtual import VirtualClock

SMOOTH = 30.0
"""Of 10,000 sidecars that poll at this interval, in seconds, requests are counted second by second."""

Session = Callable[..., BoundedSession]

_PLAN = Vault(address=ADDRESS, auth=VaultAuth(method="cert", role="app"))


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a fleet is, and what it may ask of the server."""

    sidecars: int
    seed: int
    capacity: float = 2.0
    """How many requests the server can answer, as a multiple of what the fleet asks for in quiet times."""


@dataclass
class Arrivals:
    """When the sidecars had something, and when they had their targets reload for it; in seconds."""

    seen: list[float] = field(default_factory=list)
    reloads: list[float] = field(default_factory=list)


class Fleet:
    """Sidecars that start when they are told to, and run until they are let be."""

    def __init__(self, size: Size, reads: Sequence[Read], *, timing: Timing = Timing(), lifetime: float = 3600.0) -> None:  # noqa: B008 - frozen
        self.size = size
        self.reads = reads
        self.timing = timing
        self.clock = VirtualClock()
        self.clock.time = 0.0
        self.together = Together(self.clock)
        self.random = random.Random(size.seed)
        self.server = Server(self.clock, self.together, capacity=size.capacity * self.steady or inf, lifetime=lifetime)
        self.world = replace(World(), clock=self.clock, random=self.random, session=cast("Session", lambda *_, **__: self.server))
        self.arrivals: dict[object, Arrivals] = {}
        """By the version of a secret."""

    @property
    def steady(self) -> float:
        """Return how many polls a second there are in quiet times."""
        return self.size.sidecars * sum(1 / read.poll for read in self.reads if isinstance(read, Secret))

    @property
    def window(self) -> float:
        """Return for how many seconds requests are counted together: longer for fewer sidecars and for rarer polls."""
        polls = [read.poll for read in self.reads if isinstance(read, Secret)]
        return max(1.0, min(10.0, 10_000 / self.size.sidecars)) * min(polls) / SMOOTH

    def start(self, over: float) -> None:
        """Let the next seconds pass, while the sidecars start at random times of them."""
        begin = self.clock.now()
        for at in sorted(self.random.uniform(0, over) for _ in range(self.size.sidecars)):
            self.run(begin + at)
            Sidecar(self).start()
        self.run(begin + over)

    def run(self, until: float) -> None:
        """Let time pass."""
        self.together.run(until)

    def peak(self, begin: float, end: float) -> float:
        """Return how many requests a second there were when it was most."""
        return max(rate for _, rate in self.rates(begin, end))

    def rates(self, begin: float, end: float, *kinds: str, window: float | None = None) -> list[tuple[float, float]]:
        """Return the requests a second, of these kinds or of any, over some time: the middle of each window, and its rate."""
        times = (at for kind, times in self.server.asked.items() if kind in kinds or not kinds for at in times)
        return rates(times, begin, end, window or self.window)


class Sidecar:
    """One sidecar, from what it reads to the reload; its volume and its target take no time here."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._pace = Pace(settle=fleet.timing.settle, settle_max=fleet.timing.settle_max, min_interval=fleet.timing.min_interval)
        self._values: dict[str, Any] = {}
        self._reload_at: float | None = None

    def start(self) -> None:
        """Read from now on."""
        fleet = self._fleet
        backend = Backend(_PLAN, cast("Turns", Lane(fleet.together)), fleet.world)
        for number, read in enumerate(fleet.reads):
            backend.watch(read, self, str(number))

    def put(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take what came, as the intake of a pipeline does."""
        for name, outcome in outcomes.items():
            if isinstance(outcome, Reading) and outcome.value != self._values.get(name):
                self._values[name] = outcome.value
                self._changed(outcome)

    def _changed(self, reading: Reading) -> None:
        versions = {value.get("version") for value in self._values.values()}
        if len(self._values) < len(self._fleet.reads) or len(versions) > 1:
            return
        now, (version,) = self._fleet.clock.now(), versions
        due = self._pace.due(now, now, whole=reading.whole, last_reload=self._reload_at)
        self._reload_at = splay(due, self._fleet.timing.splay, self._fleet.random)
        arrivals = self._fleet.arrivals.setdefault(version, Arrivals())
        arrivals.seen.append(now)
        arrivals.reloads.append(self._reload_at)


def rates(times: Iterable[float], begin: float, end: float, window: float) -> list[tuple[float, float]]:
    """Return how often something happened: the middle of each window of that many seconds, and how often a second in it."""
    counts = [0] * ceil((end - begin) / window)
    for at in times:
        if begin <= at < end:
            counts[int((at - begin) / window)] += 1
    return [(begin + (number + 0.5) * window, count / window) for number, count in enumerate(counts)]
