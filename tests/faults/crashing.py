"""The sidecar, killed right before one call that touches the volume or a process.

Usage: crashing.py CONFIGURATION CALLS AT. Every such call is noted in the file CALLS; call number AT is the one that is not made any more.
0 kills nothing. Nothing in the product knows of this: it is the outside that kills.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from reloader import settings
from reloader.supervisor import Supervisor
from reloader.world import World
from reloader.world.disk import Disk
from reloader.world.processes import Processes

LOOKING = {"all", "look", "started", "masks", "own", "ended", "children"}
"""Calls that only look; all others count, so that a new step is covered by itself."""


class Killing:
    """Hands every call on, and kills this process at one of them."""

    count = 0

    def __init__(self, wrapped: object, calls: Path, at: int) -> None:
        self._wrapped, self._calls, self._at = wrapped, calls, at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        if name in LOOKING or not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            Killing.count += 1
            with self._calls.open("a") as calls:
                calls.write(f"{name}\n")
            if self._at == Killing.count:
                os.kill(os.getpid(), signal.SIGKILL)
            return found(*arguments, **options)

        return call


def main() -> None:
    configuration, calls, at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    calls.touch()
    world = World(disk=Killing(Disk(), calls, at), processes=Killing(Processes(), calls, at))  # type: ignore[arg-type]
    plan, files = settings.find([configuration], [], "", None, os.environ)
    Supervisor(plan, files, lambda: plan, world).run()


if __name__ == "__main__":
    main()
