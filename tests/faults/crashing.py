"""The sidecar, killed right before one call that touches the volume or a process.

Nothing in the product knows of this: it is the outside that kills.
"""

import ctypes
import json
import os
import signal
from pathlib import Path
from typing import Any

from reloader import logs, settings
from reloader.supervisor import Supervisor
from reloader.world import World
from reloader.world.disk import Disk
from reloader.world.processes import Grip, Processes

LOOKING = {"all", "look", "started", "masks", "own", "ended", "children"}
"""Calls that only look; all others count, so that a new step is covered by itself."""


class Calls:
    """Notes every call as a JSON line `[count, name, argument ...]`, and kills this process instead of call number `at`; at 0 it does not.

    They are counted from when the file `armed` is there; before that their count is 0.
    """

    def __init__(self, notes: Path, armed: Path, at: int) -> None:
        self._notes, self._armed, self._at = notes, armed, at
        self._count = 0
        notes.touch()

    def note(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self._count or self._armed.exists():
            self._count += 1
        if self._at and self._at == self._count:
            os.kill(os.getpid(), signal.SIGKILL)
        with self._notes.open("a") as notes:
            notes.write(json.dumps([self._count, name, *_plain(arguments)]) + "\n")


class Noting:
    """Hands every call on, once it is noted."""

    def __init__(self, wrapped: object, calls: Calls) -> None:
        self._wrapped, self._calls = wrapped, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        if name in LOOKING or not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self._calls.note(name, arguments)
            return found(*arguments, **options)

        return call


def run(configuration: Path, log: Path, calls: tuple[Path, Path, int]) -> None:
    """Run the sidecar in this process, to be killed as `Calls` is told."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed test run leaves nothing behind
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    counted = Calls(*calls)
    world = World(disk=Noting(Disk(), counted), processes=Noting(Processes(), counted))  # type: ignore[arg-type]
    plan, files = settings.find([configuration], [], "", None, os.environ)
    logs.set_up(plan.log)
    Supervisor(plan, files, lambda: plan, world).run()


def _plain(arguments: tuple[Any, ...]) -> list[Any]:
    """Return what tells a person what a call is about: paths, pids, numbers."""
    plain = [argument.pid if isinstance(argument, Grip) else argument for argument in arguments]
    return [str(argument) if isinstance(argument, Path) else argument for argument in plain if not isinstance(argument, bytes)]
