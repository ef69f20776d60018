"""Time: one clock for everything that is compared or waited for, and the wall clock for people and for records that outlive a boot."""

import time
from collections.abc import Iterable
from math import inf
from pathlib import Path


class Clock:
    """The machine's clocks."""

    _lead = inf
    """The least that the wall clock was seen ahead of the boot clock, in seconds."""

    def __init__(self) -> None:
        self.learn([(self.now(), self.wall())])

    def now(self) -> float:
        """Return seconds since boot, suspended time included: the clock of `/proc/PID/stat`, untouched by steps of the wall clock."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def suspended(self) -> float:
        """Return how many seconds of `now` the machine was suspended for."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)

    def awake(self) -> float:
        """Return `now` without the time in which the machine was suspended: what a thread that waits goes by."""
        return self.now() - self.suspended()

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def learn(self, clocks: Iterable[tuple[float, float]]) -> None:
        """Take note how `now` and `wall` stood together at some time of this boot."""
        self._lead = min((self._lead, *(wall - now for now, wall in clocks)))

    def dated(self, wall: float) -> float:
        """Return when a file got this time of the wall clock, as a time of `now`.

        If the wall clock was set since, it is the latest time that it can have been: what is too old by this is too old.
        """
        now = self.now()
        self.learn([(now, self.wall())])
        return min(now, wall - self._lead)

    def boot(self) -> str:
        """Return the id of this boot; times of `now` mean nothing in another one."""
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
