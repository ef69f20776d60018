"""Waiting for what another process or thread does: look again until it holds, with a deadline, never a fixed sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], *, within: float = 30, every: float = 0.02, what: str = "it") -> T:
    """Return the first true answer of `look`; an exception counts as not yet.

    Raises:
        AssertionError: none came `within` seconds; the message tells what was seen last.

    """
    deadline = time.monotonic() + within
    while True:
        seen: object
        try:
            seen = answer = look()
            if answer:
                return answer
        except Exception as problem:
            seen = problem
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within:g} s; last seen: {seen!r}")
        time.sleep(every)
