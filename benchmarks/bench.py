"""What every scenario is given: where to work, how often to repeat, a target to signal, processes that end with it."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.report import Row, Skipped
from benchmarks.target import Maker, Target
from tests.servers.daemon import Daemon

ROUNDS = 300
PAUSE = 0.25


@dataclass(frozen=True)
class Bench:
    """One run of the benchmarks."""

    directory: Path
    """On the file system to measure; scenarios work in folders below it."""
    targets: Maker
    rounds: int = ROUNDS
    """How often a thing is done that takes milliseconds; a scenario does longer ones less often."""
    pause: float = PAUSE
    """Least seconds of quiet after each round; up to twice that at random, so that nothing falls into step."""
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
            daemon.stop()


Finding = Row | Skipped
