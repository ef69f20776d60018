"""One of 2,000 separately named Consul keys changes, and is rendered and published; what that takes where keys fold into folders."""

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench, Finding
from benchmarks.footprint import footprint
from benchmarks.ours import configured, reloader
from benchmarks.report import OURS, Row
from benchmarks.wait import until

FOLDERS = 20
SHARE = 5
"""The part of the keys of the large prefix that this one has: each costs a read at first."""
LOST_AFTER = 10.0
"""How many seconds after it was written a key counts as lost."""


def run(bench: Bench) -> Iterator[Finding]:
    """Change keys one by one, anywhere among them, each after a pause."""
    bench.servers.consul.put_all(dict.fromkeys(_keys(bench), "at first"))
    with bench.folder() as folder, reloader(bench, folder, _configured(bench, folder)) as sidecar:
        shown = folder / "live" / "all.conf"
        until(lambda: shown.read_text().count("at first") == len(_keys(bench)))
        latencies = [latency for number in range(bench.size.rounds) if (latency := _change(bench, shown, number)) is not None]
        yield Row(OURS, "key to volume", "ms", [latency * 1000 for latency in latencies])
        yield from footprint(OURS, sidecar.pid, "after changes")


def _change(bench: Bench, shown: Path, number: int) -> float | None:
    """Change a key; return after how many seconds it is on the volume, or None if it was lost."""
    time.sleep(bench.size.pause * bench.random.uniform(1, 2))
    text = f"number {number}"
    bench.servers.consul.put(bench.random.choice(_keys(bench)), text)
    written = time.monotonic()
    try:
        return until(lambda: text in shown.read_text(), within=LOST_AFTER) - written
    except TimeoutError:
        return None


def _keys(bench: Bench) -> list[str]:
    return [f"key-to-volume/{number % FOLDERS}/{number}" for number in range(bench.size.keys // SHARE)]


def _configured(bench: Bench, folder: Path) -> Path:
    keys = _keys(bench)
    content = " ".join(f"{{{{ s{number} }}}}," for number in range(len(keys)))
    return configured(
        folder,
        f"consul: {{address: '{bench.servers.consul.address}'}}",
        "sources:",
        *(f"  s{number}: {{kind: consul, key: {key}}}" for number, key in enumerate(keys)),
        f"volume: {{path: {folder}/live, files: {{all.conf: {{content: '{content}'}}}}}}",
        "target: {kind: none}",
    )
