"""What every scenario is given: where to work, how often to repeat, a target to signal, processes and servers that end with it."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.report import Row, Skipped
from benchmarks.servers import Servers
from benchmarks.target import Maker, Target
from tests.servers.daemon import Daemon


@dataclass(frozen=True)
class Size:
    """How much of everything is done."""

    rounds: int = 300
    """How often a thing is done that takes milliseconds."""
    repeats: int = 20
    """How often a thing is done that takes a good part of a second."""
    polled: int = 60
    """How often a thing is done that waits for somebody's next look, a second later."""
    pause: float = 0.25
    """Least seconds of quiet after each round; up to twice that at random, so that nothing falls into step."""
    files: int = 1000
    keys: int = 10_000
    cycles: int = 10_000
    """How many reloads in a row."""
    quiet: float = 60.0
    """For how many seconds nothing happens before what is resident is taken."""
    window: float = 300.0
    """Over how many seconds requests are counted."""


QUICK = Size(rounds=3, repeats=2, polled=2, pause=0.05, files=20, keys=100, cycles=20, quiet=0.5, window=2.0)
"""Every step of every scenario, too short for its figures to mean anything."""


@dataclass(frozen=True)
class Bench:
    """One run of the benchmarks."""

    directory: Path
    """On the file system to measure; scenarios work in folders below it."""
    targets: Maker
    servers: Servers
    size: Size = field(default_factory=Size)
    random: Random = field(default_factory=lambda: Random(1))

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Make a new folder, and remove it."""
        path = Path(tempfile.mkdtemp(dir=self.directory))
        try:
            yield path
        finally:
            shutil.rmtree(path)

    @contextmanager
    def target(self) -> Iterator[Target]:
        """Start a target of its own for a contender."""
        with self.targets.started() as target:
            yield target

    @contextmanager
    def running(self, command: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Daemon]:
        """Run a contender, output to `folder/contender.log`, and end it with all that it started."""
        daemon = Daemon(folder / "contender.log")
        daemon.start(command, env=env, ready=lambda: True)
        try:
            yield daemon
        finally:
            daemon.stop(kill=True)


Finding = Row | Skipped
