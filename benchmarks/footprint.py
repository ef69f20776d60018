"""What a contender takes, as the kernel counts it: its process, and those that it started."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.report import Row

_FIELDS = {"Rss": "RSS", "Pss": "PSS", "Anonymous": "anonymous"}
"""Those of smaps_rollup (proc(5)): all that is resident, the same with shared pages divided among their users, and what no file backs."""
AFTERWARDS = 5.0
"""How many seconds after the last change it counts as quiet: a reload is confirmed after two."""


def footprint(contender: str, pid: int, when: str = "") -> Iterator[Row]:
    """Yield memory, threads and descriptors now."""
    for name, unit, amount in taken(pid):
        yield Row(contender, f"{name} {when}".strip(), unit, [amount])


def taken(pid: int) -> list[tuple[str, str, float]]:
    """Return what is taken now: names, units and amounts."""
    members = _members(pid)
    rollups = [_rollup(each) for each in members]
    memory = [(name, "MiB", sum(int(rollup.get(field, 0)) for rollup in rollups) / 1024) for field, name in _FIELDS.items()]
    return [*memory, ("threads", "", _sum(members, _entries("task"))), ("descriptors", "", _sum(members, _entries("fd")))]


def at_rest(contender: str, pid: int, seconds: float) -> Iterator[Row]:
    """Let it be for so long; yield the share of a core that it took, and what it takes then."""
    time.sleep(min(seconds, AFTERWARDS))
    began, before = time.monotonic(), _processor_times(pid)
    time.sleep(seconds)
    after, passed = _processor_times(pid), time.monotonic() - began
    yield from footprint(contender, pid)
    used = sum(ran - before.get(task, 0.0) for task, ran in after.items())
    yield Row(contender, "CPU", "% of a core", [100 * used / passed])


def _processor_times(pid: int) -> dict[Path, float]:
    """Return for how many seconds each thread ran, as the scheduler has it: ticks are too coarse for what does nearly nothing."""
    times = {}
    for task in (task for member in _members(pid) for task in member.glob("task/*")):
        with suppress(OSError):
            times[task] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return times


def _members(pid: int) -> list[Path]:
    """Return the processes of the session that it began: itself, and all that it started."""
    found = [Path(f"/proc/{pid}")]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            session = (process / "stat").read_text().rpartition(")")[2].split()[3]
            if int(session) == pid and process != found[0]:
                found.append(process)
    return found


def _rollup(process: Path) -> dict[str, str]:
    with suppress(OSError):
        return dict(re.findall(r"^(\w+): +(\d+) kB$", (process / "smaps_rollup").read_text(), re.MULTILINE))
    return {}


def _entries(directory: str) -> Callable[[Path], float]:
    return lambda process: sum(1 for _ in (process / directory).iterdir())


def _sum(processes: list[Path], amount: Callable[[Path], float]) -> float:
    """Return the sum over those that are still there."""
    total = 0.0
    for process in processes:
        with suppress(OSError):
            total += amount(process)
    return total
