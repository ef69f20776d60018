"""Gives the pid of a target that was found to a stranger of the same name, and asks for a reload; run in a pid namespace of its own."""

import os
import sys
from errno import ENOSYS
from pathlib import Path

import pytest

from reloader.plan import Verify
from reloader.targets import Held, Trouble
from reloader.targets._find import Match
from reloader.targets.process import Settings, Target
from tests.targets.started import Started, Starter, sidecar, starter


def with_pid(start: Starter, pid: int) -> Started:
    """Start a target that gets this pid; others may be quicker, so try again."""
    for _ in range(50):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        started = start.target("app")
        if started.pid == pid:
            return started
        started.stop()
    raise AssertionError(f"pid {pid} was not to be had again")


def reload_after_reuse(start: Starter) -> None:
    target = Target(Settings(match=Match(name="app")), Verify(), sidecar())
    original = start.target("app")
    instance = target.find()
    original.kill()
    stranger = with_pid(start, original.pid)

    with pytest.raises(Held) as held:
        target.reload(instance)
    assert held.value.trouble is Trouble.GONE
    assert target.find() != instance
    assert stranger.end() == [], "the stranger got a signal"
    target.close()
    print("untouched", flush=True)


def no_pidfd(_pid: int, _flags: int = 0) -> int:
    raise OSError(ENOSYS, os.strerror(ENOSYS))


if __name__ == "__main__":
    with starter(Path(sys.argv[1])) as start:
        reload_after_reuse(start)
        os.pidfd_open = no_pidfd
        reload_after_reuse(start)
