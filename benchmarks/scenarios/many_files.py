"""A mounted set of 1,000 files, all of which change at once, is published on a volume."""

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench, Finding
from benchmarks.footprint import footprint
from benchmarks.ours import configured, reloader
from benchmarks.report import OURS, Row
from benchmarks.wait import until
from tests.kubelet import KubeletVolume

FILLING = "x" * 1000


def run(bench: Bench) -> Iterator[Finding]:
    """Swap it, wait for the first new file, and count at once how many of the others are new."""
    with bench.folder() as folder:
        volume, live = KubeletVolume(folder / "mounted"), folder / "live"
        _swap(bench, volume, "at first")
        with reloader(bench, folder, _configured(folder)) as sidecar:
            until(lambda: _new(bench, live, "at first") == bench.size.files)
            published = [_round(bench, volume, live, number) for number in range(bench.size.repeats)]
            sidecar.settle()
            yield Row(OURS, "swap to published", "ms", [passed * 1000 for passed, _ in published])
            yield Row(OURS, "files missing from a new set", "", [missing for _, missing in published])
            yield from footprint(OURS, sidecar.pid)


def _round(bench: Bench, volume: KubeletVolume, live: Path, number: int) -> tuple[float, int]:
    time.sleep(bench.size.pause * bench.random.uniform(1, 2))
    data, text = live / "..data", f"number {number}"
    before = data.readlink()
    began = _swap(bench, volume, text)
    passed = until(lambda: data.readlink() != before) - began
    return passed, bench.size.files - _new(bench, live, text)


def _swap(bench: Bench, volume: KubeletVolume, text: str) -> float:
    return volume.swap({f"{number}.conf": f"{text}\n{FILLING}\n" for number in range(bench.size.files)})


def _new(bench: Bench, live: Path, text: str) -> int:
    return sum((live / f"{number}.conf").read_text().startswith(f"{text}\n") for number in range(bench.size.files))


def _configured(folder: Path) -> Path:
    return configured(
        folder,
        f"sources: {{mounted: {{kind: files, path: {folder}/mounted/}}}}",
        f"volume: {{path: {folder}/live, copy: mounted}}",
        "target: {kind: none}",
    )
