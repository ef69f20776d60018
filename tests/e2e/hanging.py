"""The sidecar on a disk that hangs, and a machine that was suspended, as a test says while it runs.

Usage: hanging.py CONTROL run FILE ... as for `reloader`. CONTROL is a JSON file that is read anew at every call. Three of its keys are
regular expressions for the paths of calls of the disk: those that match `hangs` return only once it says so no more, `dies` ends their
thread, and in `breaks` is a mistake of ours. `later` is how many seconds the boot clock is ahead, `slept` for how many of them the machine
was suspended.
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from reloader import cli
from reloader.world import World
from reloader.world.clock import Clock
from reloader.world.disk import Disk
from tests.bad_configs import CANARY


class Control:
    """What the test wants now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.hung = path.with_suffix(".hung")
        """Is there once a call hangs."""

    def says(self, what: str) -> Any:
        return json.loads(self._path.read_text()).get(what)

    def matches(self, what: str, path: object) -> bool:
        pattern = self.says(what)
        return bool(pattern and re.search(pattern, str(path)))


class HangingDisk:
    """Hands every call on, once it may."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._disk = Disk()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            while self._control.matches("hangs", arguments[0]):
                self._control.hung.touch()
                time.sleep(0.01)
            if self._control.matches("dies", arguments[0]):
                sys.exit("a thread that ends")
            if self._control.matches("breaks", arguments[0]):
                raise KeyError(CANARY)
            return getattr(self._disk, name)(*arguments)

        return call


class SuspendedClock(Clock):
    """A boot clock that somebody sets."""

    def __init__(self, control: Control) -> None:
        self._control = control
        super().__init__()

    def now(self) -> float:
        return super().now() + float(self._control.says("later") or 0)

    def suspended(self) -> float:
        return super().suspended() + float(self._control.says("slept") or 0)


def main() -> int:
    control = Control(Path(sys.argv[1]))
    world = World(disk=HangingDisk(control), clock=SuspendedClock(control))  # type: ignore[arg-type]
    cli.World = lambda: world  # type: ignore[misc, assignment]
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
