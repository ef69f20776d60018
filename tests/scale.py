"""How often a test that repeats itself repeats: a little in every run, a lot when `.ci/long` asks for it."""

import os


def rounds(quick: int, long: int) -> int:
    """Return `long` when LONG_TESTS is set, else `quick`."""
    return long if os.environ.get("LONG_TESTS") else quick
