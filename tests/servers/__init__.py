"""Real servers for the tests, each a process of its own on a free port of this machine, ended with the tests whatever happens."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol, TypeVar

import pytest


class Startable(Protocol):
    """What all of them have in common."""

    def start(self) -> None:
        """Return when it can be asked."""

    def stop(self, *, kill: bool = False) -> None:
        """End it, with SIGKILL if `kill`."""


Server = TypeVar("Server", bound=Startable)


class UnavailableError(Exception):
    """A server cannot be had on this machine; the text says why."""


def missing(reason: object) -> NoReturn:
    """Skip the test on a laptop; fail it where CI is set, since a part that nobody tests is no longer known to work."""
    if os.environ.get("CI"):
        pytest.fail(str(reason), pytrace=False)
    pytest.skip(str(reason))


@contextmanager
def running(make: Callable[[], Server]) -> Iterator[Server]:
    """Run a server until the end of the block; the test is over where it cannot be had, see `missing`."""
    try:
        server = make()
    except UnavailableError as reason:
        missing(reason)
    try:
        server.start()
        yield server
    finally:
        server.stop(kill=True)
