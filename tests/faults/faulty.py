"""The sidecar on a disk and a wall clock that a test makes fail while it runs.

Usage: faulty.py CONTROL run FILE ... as for `reloader`. CONTROL is a JSON file that is read anew at every call: `fails` lists what calls of
the disk fail, each with the names of the `calls`, a regular expression for the `path`, the `error` by its name and how many of these calls
it lets pass first (`skip`); `held` lists the calls that do not begin while they are in it; `wall` is how many seconds the wall clock is
ahead. Nothing in the product knows of this.
"""

import errno
import json
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reloader import cli
from reloader.world import World
from reloader.world.clock import Clock
from reloader.world.disk import Disk


class Control:
    """What the test wants now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._passed: Counter[str] = Counter()

    def read(self) -> Mapping[str, Any]:
        return dict(json.loads(self._path.read_text()))

    def fail(self, call: str, path: object) -> None:
        """Raise OSError if this call is to fail; return when it may begin."""
        while any(call in rule["calls"] and re.search(rule["path"], str(path)) for rule in self.read().get("held", ())):
            time.sleep(0.005)
        for rule in self.read().get("fails", ()):
            if call in rule["calls"] and re.search(rule["path"], str(path)):
                key = json.dumps(rule)
                self._passed[key] += 1
                if self._passed[key] > rule.get("skip", 0):
                    number = getattr(errno, rule["error"])
                    raise OSError(number, os.strerror(number), str(path))


class FaultyDisk:
    """Hands every call on, but those that are to fail."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._disk = Disk()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self._control.fail(name, arguments[0])
            return getattr(self._disk, name)(*arguments)

        return call


class SteppedClock(Clock):
    """A wall clock that somebody sets; the boot clock goes on as it is."""

    def __init__(self, control: Control) -> None:
        self._control = control
        super().__init__()

    def wall(self) -> float:
        return super().wall() + float(self._control.read().get("wall", 0))


class Soonest(random.Random):
    """Waits as short as the rules allow, so that a test needs no patience."""

    def uniform(self, a: float, _b: float) -> float:
        return a


def main() -> int:
    control = Control(Path(sys.argv[1]))
    world = World(disk=FaultyDisk(control), clock=SteppedClock(control), random=Soonest())  # type: ignore[arg-type]
    cli.World = lambda: world  # type: ignore[misc, assignment]
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
