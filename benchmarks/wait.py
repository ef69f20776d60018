"""Waiting for what somebody else does, so closely that it can be timed."""

import time
from collections.abc import Callable
from contextlib import suppress

CLOSELY = 0.001
"""Seconds between two looks."""
PATIENCE = 120.0


def until(look: Callable[[], object], within: float = PATIENCE) -> float:
    """Return when it held, in seconds of the monotonic clock; a file that is not there yet is not yet.

    Args:
        look: tells whether it holds.
        within: how many seconds to wait at most.

    Raises:
        TimeoutError: it did not.

    """
    deadline = time.monotonic() + within
    while (now := time.monotonic()) < deadline:
        with suppress(FileNotFoundError):
            if look():
                return now
        time.sleep(CLOSELY)
    raise TimeoutError(f"what was waited for did not come within {within:g} s")
