"""Which backends are open, and for whom."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reloader.backends import Backends
from reloader.plan import Directory
from reloader.world import World


@pytest.fixture
def _switching() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switching")
def test_one_that_another_gives_back_is_there_all_the_time(tmp_path: Path) -> None:
    """A pipeline asks for a look on its own thread, while the supervisor lets go of what another one read of the same."""
    backends, plan, ended = Backends(World()), Directory(path=str(tmp_path)), threading.Event()
    kept = backends.acquire(plan)

    def come_and_go() -> None:
        for _ in range(20_000):
            backends.acquire(plan)
            backends.release(plan)
        ended.set()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        while not ended.is_set():
            assert backends.get(plan) is kept
    finally:
        thread.join()
        backends.release(plan)
