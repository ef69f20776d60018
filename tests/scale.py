"""How often a test that repeats itself repeats, and by what chance: a little in every run, a lot when `.ci/long` asks for it."""

import os
import random

SEED = int(os.environ.setdefault("TEST_SEED", str(random.randrange(10**6))))
"""What is random takes it; in the environment, so that the workers of a run have the same."""


def rounds(quick: int, long: int) -> int:
    """Return `long` when LONG_TESTS is set, else `quick`."""
    return long if os.environ.get("LONG_TESTS") else quick
