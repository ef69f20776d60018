"""One of 2,000 separately named Consul keys changes, and is rendered and published; what that takes where keys fold into folders."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import Bench, Finding
from benchmarks.footprint import footprint
from benchmarks.ours import Sidecar, reloader
from benchmarks.report import OURS, Row, Skipped
from tests.servers import UnavailableError
from tests.servers.consul import Consul
from tests.waiting import eventually

KEYS = 2000
FOLDERS = 20
UP_WITHIN = 120.0
LOST_AFTER = 10.0
"""How many seconds after it was written a key counts as lost."""


def run(bench: Bench) -> Iterator[Finding]:
    """Change keys one by one, anywhere among them, each after a pause."""
    try:
        with _started(bench) as (consul, sidecar, shown):
            latencies = [latency for number in range(bench.rounds) if (latency := _change(bench, consul, shown, number)) is not None]
            yield Row(OURS, "key to volume", "ms", [latency * 1000 for latency in latencies])
            yield from footprint(OURS, sidecar.pid, "after changes")
    except UnavailableError as reason:
        yield Skipped(OURS, str(reason))


def _change(bench: Bench, consul: Consul, shown: Path, number: int) -> float | None:
    """Change a key; return after how many seconds it is on the volume, or None if it was lost."""
    time.sleep(bench.pause * bench.random.uniform(1, 2))
    text = f"number {number}"
    consul.put(_key(bench.random.randrange(KEYS)), text)
    written = time.monotonic()
    while (now := time.monotonic()) < written + LOST_AFTER:
        if text in shown.read_text():
            return now - written
        time.sleep(0.001)
    return None


def _key(number: int) -> str:
    return f"many/{number % FOLDERS}/{number}"


@contextmanager
def _started(bench: Bench) -> Iterator[tuple[Consul, Sidecar, Path]]:
    with bench.folder() as folder:
        consul = Consul(folder / "consul")
        consul.start()
        try:
            consul.put_all({_key(number): "at first" for number in range(KEYS)})
            with reloader(bench, folder, _configured(folder, consul)) as sidecar:
                shown = folder / "live" / "all.conf"
                eventually(lambda: shown.read_text().count("at first") == KEYS, within=UP_WITHIN, every=0.5, what="the first set")
                yield consul, sidecar, shown
        finally:
            consul.stop(kill=True)


def _configured(folder: Path, consul: Consul) -> Path:
    sources = "".join(f"  s{number}: {{kind: consul, key: {_key(number)}}}\n" for number in range(KEYS))
    content = " ".join(f"{{{{ s{number} }}}}," for number in range(KEYS))
    configuration = folder / "reloader.yaml"
    configuration.write_text(
        f"consul: {{address: '{consul.address}'}}\nsources:\n{sources}"
        f"volume:\n  path: {folder / 'live'}\n  files:\n    all.conf: {{content: '{content}'}}\ntarget: {{kind: none}}\n"
    )
    return configuration
