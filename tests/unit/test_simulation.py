"""The real schedule under a virtual clock: a fleet against one backend, with no thread and no sleep."""

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field

from reloader.schedule import Backoff, first_poll, next_poll

SIDECARS = 2_000
INTERVAL = 30.0
OUTAGE = (600.0, 900.0)
END = 1_500.0


@dataclass
class Fleet:
    """Sidecars that poll; the clock jumps from one event to the next."""

    seed: int
    requests: Counter = field(default_factory=Counter)
    read_at: dict[int, float] = field(default_factory=dict)
    waits: list[tuple[int, float]] = field(default_factory=list)

    def run(self) -> None:
        rng, backoff = random.Random(self.seed), Backoff()
        due = [(rng.uniform(0, 2.0), sidecar, 0) for sidecar in range(SIDECARS)]  # a rollout: all start within 2 s
        heapq.heapify(due)
        while due[0][0] < END:
            now, sidecar, failures = heapq.heappop(due)
            self.requests[int(now)] += 1
            if OUTAGE[0] <= now < OUTAGE[1]:
                delay = backoff.delay(failures + 1, rng)
                self.waits.append((failures + 1, delay))
                heapq.heappush(due, (now + delay, sidecar, failures + 1))
            else:
                poll = next_poll if sidecar in self.read_at else first_poll
                self.read_at[sidecar] = now
                heapq.heappush(due, (poll(now, INTERVAL, rng), sidecar, 0))

    def peak(self, begin: float, end: float) -> int:
        return max(self.requests[second] for second in range(int(begin), int(end)))


def test_a_fleet_that_starts_together_spreads_out():
    """From the second read on a rollout is no herd: no second has more than twice the mean."""
    fleet = Fleet(seed=1)
    fleet.run()

    mean = SIDECARS / INTERVAL

    assert fleet.peak(3, OUTAGE[0]) <= 2 * mean


def test_an_outage_is_no_herd_and_everyone_comes_back():
    """While the backend is down and when it is back, requests stay near the quiet rate, and all have read within one cap."""
    fleet = Fleet(seed=2)
    fleet.run()

    mean = SIDECARS / INTERVAL

    assert fleet.peak(OUTAGE[0] + 60, OUTAGE[1]) <= 2 * mean
    assert fleet.peak(OUTAGE[1], OUTAGE[1] + 120) <= 2 * mean
    assert all(fleet.read_at[sidecar] > OUTAGE[1] for sidecar in range(SIDECARS))
    assert len(fleet.read_at) == SIDECARS


def test_no_retry_comes_sooner_than_its_backoff():
    fleet = Fleet(seed=3)
    fleet.run()

    assert fleet.waits
    assert all(delay >= Backoff().floor(failures) for failures, delay in fleet.waits)


def test_the_same_seed_gives_the_same_run():
    one, other = Fleet(seed=4), Fleet(seed=4)
    one.run()
    other.run()

    assert one.requests == other.requests
