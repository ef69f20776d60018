"""Starts the targets of the tests and hears what they say."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from reloader.world import World
from reloader.world.processes import Processes
from tests.waiting import eventually

PRINT_SIGNALS = Path(__file__).parent / "print_signals.py"


class Beside(Processes):
    """The processes as a sidecar sees them: what a test started is no descendant of it."""

    own = 0


def sidecar() -> World:
    """Return the outside of a sidecar that runs beside what a test starts."""
    return World(processes=Beside())


def wait_taken(pid: int, number: int = signal.SIGHUP) -> None:
    """Return when a signal that was sent waits no longer; it depends on the kernel when the process runs next."""
    eventually(lambda: _has_taken(pid, number), every=0.001, what="the signal being taken")


def _has_taken(pid: int, number: int) -> bool:
    try:
        return not Processes().masks(pid).holds_back(number)
    except ProcessLookupError:
        return True


def unique(prefix: str = "t") -> str:
    """Return a name that no other process on this machine has, short enough to be kept whole."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


class Started:
    """A process that talks by lines."""

    def __init__(self, command: list[str], *, expect: str = "up") -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.pid = self._process.pid
        if expect:
            self.hear(expect)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def hear(self, expected: str) -> list[str]:
        """Return the words of the next line, which has to begin with `expected`."""
        line = self._process.stdout.readline()
        assert line.startswith(expected), f"expected {expected!r}, heard {line!r}"
        return line.split()

    def say(self) -> None:
        """Send a line."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it at once, reaped."""
        self._process.kill()
        self._process.wait()

    def end(self) -> list[str]:
        """Ask it to end and return the lines that were not heard yet."""
        self._process.terminate()
        rest, _ = self._process.communicate(timeout=10)
        return rest.splitlines()

    def stop(self) -> None:
        """End it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with self._process:
            pass


class Starter:
    """Starts processes that end with the test."""

    def __init__(self, folder: Path, stops: contextlib.ExitStack) -> None:
        self._folder = folder
        self.stops = stops

    def run(self, *command: str | Path, expect: str = "up") -> Started:
        """Start any command."""
        started = Started([str(word) for word in command], expect=expect)
        self.stops.callback(started.stop)
        return started

    def interpreter(self, name: str) -> Path:
        """Return a Python whose processes have that name."""
        link = self._folder / name
        if not link.exists():
            link.symlink_to(Path(sys.executable).resolve())
        return link

    def target(self, name: str, *options: str, expect: str = "up") -> Started:
        """Start the program that prints signals, under a name."""
        return self.run(self.interpreter(name), PRINT_SIGNALS, *options, expect=expect)


@contextlib.contextmanager
def starter(folder: Path) -> Iterator[Starter]:
    """Give what starts processes, and end them all."""
    with contextlib.ExitStack() as stops:
        yield Starter(folder, stops)
