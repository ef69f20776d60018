"""A mounted directory is swapped as the kubelet does it, and its reader signalled (no volume)."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench, Finding
from benchmarks.ours import reloader
from benchmarks.report import OURS, Skipped
from benchmarks.swaps import NeverUp, Swapper
from benchmarks.target import Target
from tests.kubelet import KubeletVolume

INOTIFYWAIT = """\
inotifywait -m -e close_write,create,delete,move "$0" | while read -r _; do pkill -HUP -x "$1"; done
"""
POLLING = """\
old=$(sha256sum "$0"/*)
while sleep 1; do
  new=$(sha256sum "$0"/*)
  [ "$new" = "$old" ] || { old=$new; kill -HUP "$2"; }
done
"""

Started = Callable[[Bench, Path, Path, Target], AbstractContextManager[object]]
"""Starts a contender, given a folder for its log, the directory to watch, and whom to signal."""


@dataclass(frozen=True)
class Contender:
    """Something that a user may run for this."""

    name: str
    started: Started
    needs: Sequence[str] = ()
    """Programs that have to be on PATH."""
    period: float = 0.0
    """Seconds between two looks of one that polls; it does a tenth of the rounds."""


def _ours(bench: Bench, folder: Path, watched: Path, target: Target) -> AbstractContextManager[object]:
    return reloader(bench, folder, "--watch", watched, "--process", target.name)


def _shell(script: str) -> Started:
    """Return what runs a script, given the directory, the name and the pid of the target."""

    def started(bench: Bench, folder: Path, watched: Path, target: Target) -> AbstractContextManager[object]:
        return bench.running(["sh", "-c", script, watched, target.name, str(target.pid)], folder)

    return started


CONTENDERS = (
    Contender(OURS, _ours),
    Contender("inotifywait + pkill", _shell(INOTIFYWAIT), needs=("inotifywait", "pkill")),
    Contender("shell, looks every 1 s", _shell(POLLING), needs=("sha256sum",), period=1.0),
)


def run(bench: Bench) -> Iterator[Finding]:
    """Measure each contender that is here, one after the other."""
    for contender in CONTENDERS:
        missing = [program for program in contender.needs if shutil.which(program) is None]
        if missing:
            yield Skipped(contender.name, f"no {' and no '.join(missing)} on PATH")
        else:
            yield from _measure(bench, contender)


def _measure(bench: Bench, contender: Contender) -> Iterator[Finding]:
    with bench.folder() as folder, bench.target() as target:
        volume = KubeletVolume(folder / "mounted")
        swapper = Swapper(bench, volume, target, period=contender.period)
        with contender.started(bench, folder, volume.path, target):
            try:
                swapper.warm_up()
            except NeverUp as reason:
                yield Skipped(contender.name, str(reason))
                return
            swaps = swapper.measure(max(1, bench.rounds // 10) if contender.period else bench.rounds)
        yield from swaps.rows(contender.name)
