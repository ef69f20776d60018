"""What a process takes, as the kernel counts it."""

import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Row

_FIELDS = {"Rss": "RSS", "Pss": "PSS", "Anonymous": "anonymous"}
"""Those of smaps_rollup (proc(5)): all that is resident, the same with shared pages divided among their users, and what no file backs."""


def footprint(contender: str, pid: int, when: str) -> Iterator[Row]:
    """Yield memory, threads and descriptors of a process now."""
    rollup = dict(re.findall(r"^(\w+): +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE))
    for field, name in _FIELDS.items():
        yield Row(contender, f"{name} {when}", "MiB", [int(rollup[field]) / 1024])
    yield Row(contender, f"threads {when}", "", [_entries(pid, "task")])
    yield Row(contender, f"descriptors {when}", "", [_entries(pid, "fd")])


def _entries(pid: int, directory: str) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/{directory}").iterdir())
