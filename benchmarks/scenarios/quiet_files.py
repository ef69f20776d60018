"""What is taken after a quiet minute where only mounted files are watched."""

from collections.abc import Iterator

from benchmarks.bench import Bench, Finding
from benchmarks.changes import Changer, swap
from benchmarks.contenders import PROMETHEUS, SIDECAR, Contender, each
from benchmarks.footprint import at_rest
from benchmarks.report import OURS
from benchmarks.scenarios.swap_to_signal import inotifywait, ours, prometheus, sidecar
from benchmarks.scenarios.swap_to_volume import rendering
from tests.kubelet import KubeletVolume

CONTENDERS = (
    Contender(OURS, rendering),
    Contender(f"{OURS} --watch", ours),
    Contender("inotifywait + pkill", inotifywait, needs=("inotifywait", "pkill")),
    Contender(SIDECAR, sidecar, needs=(SIDECAR,)),
    Contender(PROMETHEUS, prometheus, needs=(PROMETHEUS,)),
)


def run(bench: Bench) -> Iterator[Finding]:
    """Measure each after it has signalled a few swaps."""
    return each(CONTENDERS, lambda contender: _measure(bench, contender))


def _measure(bench: Bench, contender: Contender) -> Iterator[Finding]:
    with bench.folder() as folder, bench.target() as target:
        volume = KubeletVolume(folder / "mounted")
        changer = Changer(bench, swap(volume), target)
        with contender.started(bench, folder, volume.path, target) as process:
            changer.warm_up()
            yield from at_rest(contender.name, process.pid, bench.size.quiet)
