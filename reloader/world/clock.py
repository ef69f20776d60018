"""Time: one clock for everything that is compared or waited for, and the wall clock for people and for records that outlive a boot."""

import time
from pathlib import Path


class Clock:
    """The machine's clocks."""

    def now(self) -> float:
        """Return seconds since boot, suspended time included: the clock of `/proc/PID/stat`, untouched by steps of the wall clock."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def boot(self) -> str:
        """Return the id of this boot; times of `now` mean nothing in another one."""
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
