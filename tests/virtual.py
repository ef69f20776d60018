"""Reads in virtual time: the real schedule of a backend, with no thread and no sleep; the clock jumps from one read to the next."""

import heapq
import random
from dataclasses import replace
from itertools import count
from math import inf

from reloader.backends.turns import Job
from reloader.world import World
from reloader.world.clock import Clock
from reloader.world.connections import Connections


class VirtualClock(Clock):
    """Stands still until it is set."""

    time = 1000.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time


class VirtualTurns:
    """Does jobs one after the other, each when it is due; what takes time is not done here."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._jobs: set[Job] = set()
        self._queue: list[tuple[float, int, Job]] = []
        self._order = count()
        self.open = Connections(lambda: 1)

    def add(self, job: Job) -> None:
        self._jobs.add(job)
        self._schedule(job, self._clock.now())

    def hurry(self, job: Job, at: float = -inf) -> None:
        if job in self._jobs and (at := max(at, self._clock.now())) < job.due:
            self._schedule(job, at)

    def remove(self, job: Job) -> None:
        job.ended = True
        self._jobs.discard(job)

    def run(self, until: float) -> None:
        """Do what is due before `until`, and leave the clock there."""
        while self._queue and self._queue[0][0] < until:
            at, _, job = heapq.heappop(self._queue)
            if job.ended or at != job.due:
                continue
            self._clock.time = max(self._clock.time, at)
            self._begin(job)
        self._clock.time = until

    def _begin(self, job: Job) -> None:
        self._do(job)

    def _do(self, job: Job) -> None:
        job.due = inf
        again = job.run(0.0)
        if not job.ended:
            self._schedule(job, min(again, job.due))

    def _schedule(self, job: Job, at: float) -> None:
        job.due = at
        if at < inf:
            heapq.heappush(self._queue, (at, next(self._order), job))


def virtual_world(seed: int) -> tuple[World, VirtualClock]:
    """Return a world whose clock stands still, and that clock."""
    clock = VirtualClock()
    return replace(World(), clock=clock, random=random.Random(seed)), clock
