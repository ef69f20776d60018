"""Real servers for the tests, each a process of its own on a free port of this machine, ended with the tests whatever happens."""

import os
from typing import NoReturn

import pytest


class UnavailableError(Exception):
    """A server cannot be had on this machine; the text says why."""


def missing(reason: object) -> NoReturn:
    """Skip the test on a laptop; fail it where CI is set, since a part that nobody tests is no longer known to work."""
    if os.environ.get("CI"):
        pytest.fail(str(reason), pytrace=False)
    pytest.skip(str(reason))
