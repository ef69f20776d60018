"""What the tests of the directory backend share."""

import contextlib
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from reloader.backends import directory
from reloader.backends.directory import Backend, Scan
from reloader.plan import Directory
from reloader.snapshot import Failure, FailureKind, Outcome, Reading
from reloader.world import World
from tests.waiting import eventually

ALL = Scan()


class Inbox:
    """Keeps everything that was put, in order."""

    def __init__(self) -> None:
        self.puts: list[Mapping[str, Outcome]] = []

    def put(self, outcomes: Mapping[str, Outcome]) -> None:
        self.puts.append(outcomes)

    def outcomes(self, name: str = "it") -> list[Outcome]:
        return [put[name] for put in self.puts if name in put]

    def reading(self, value: Any, name: str = "it") -> Reading:
        """Return the latest outcome once it is a reading of that value."""

        def latest() -> Outcome | None:
            outcome = self.outcomes(name)[-1]
            return outcome if isinstance(outcome, Reading) and outcome.value == value else None

        return eventually(latest, within=20, every=0.002, what=f"a reading of {value!r}")

    def failure_now(self, kind: FailureKind, name: str = "it") -> str | None:
        """Return the reason of the latest outcome if it is a failure of that kind."""
        outcome = self.outcomes(name)[-1]
        return outcome.reason if isinstance(outcome, Failure) and outcome.kind is kind else None

    def failure(self, kind: FailureKind, name: str = "it") -> str:
        """Return the reason of the latest outcome once it is a failure of that kind."""

        def latest() -> Outcome | None:
            outcome = self.outcomes(name)[-1]
            return outcome if isinstance(outcome, Failure) and outcome.kind is kind else None

        return eventually(latest, within=20, every=0.002, what=f"a failure that is {kind}").reason


@contextlib.contextmanager
def looking(path: Path) -> Iterator[Backend]:
    """A backend of that directory that looks only when woken while it has a watch, closed at the end; no thread of it is left."""
    before = set(threading.enumerate())
    backend = Backend(Directory(path=str(path)), None, World())
    with patch.object(directory, "RESYNC", 3600.0):
        try:
            yield backend
        finally:
            backend.close()
    assert not [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]


@contextlib.contextmanager
def watching(path: Path, read: Scan = ALL) -> Iterator[tuple[Backend, Inbox]]:
    """The same, with one who waits for `read` under the name `it`."""
    with looking(path) as backend:
        inbox = Inbox()
        backend.watch(read, inbox, "it")
        yield backend, inbox


def settled(backend: Backend) -> None:
    """Return when the backend sees changes as they happen."""
    eventually(lambda: backend.mode == "inotify", every=0.002, what="a watch")


class Log(logging.Handler):
    """Keeps what the backend logs."""

    def __init__(self, logger: str = "reloader.backends.directory") -> None:
        super().__init__()
        self.lines: list[str] = []
        logging.getLogger(logger).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def program(function: Callable[..., None], *arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start `function` of a test module in a process of its own, with its arguments as texts."""
    call = f"import sys; from {function.__module__} import {function.__name__} as run; run(*sys.argv[1:])"
    argv = [*launcher, sys.executable, "-c", call, *map(str, arguments)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parents[2])


def succeeds(running: subprocess.Popen[str]) -> None:
    """Wait for the end of a program, which must not fail."""
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 0, output
