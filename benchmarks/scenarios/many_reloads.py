"""10,000 swaps in a row, each as soon as the one before was signalled (no volume): what is taken before and after."""

from collections.abc import Iterator

from benchmarks.bench import Bench, Finding
from benchmarks.changes import Changer, swap
from benchmarks.footprint import taken
from benchmarks.ours import reloader
from benchmarks.report import OURS, Row
from tests.kubelet import KubeletVolume


def run(bench: Bench) -> Iterator[Finding]:
    """Take both when nothing is owed."""
    with bench.folder() as folder, bench.target() as target:
        volume = KubeletVolume(folder / "mounted")
        changer = Changer(bench, swap(volume), target)
        with reloader(bench, folder, "--watch", volume.path, "--process", target.name) as sidecar:
            changer.warm_up()
            sidecar.settle()
            before = taken(sidecar.pid)
            lost = changer.hurry(bench.size.cycles)
            sidecar.settle()
            after = taken(sidecar.pid)
    yield Row(OURS, "changes without a signal", "", [lost])
    for (name, unit, less), (_, _, more) in zip(before, after, strict=True):
        yield Row(OURS, f"{name} before", unit, [less])
        yield Row(OURS, f"{name} gained", unit, [more - less])
