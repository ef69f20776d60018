"""What is to be reached: by scenario and measure, for this program's own rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Goal:
    """One figure of a row, and what it may be."""

    figure: str
    """Of `Row.summary`: min, p50, p99, max."""
    limit: float
    least: bool = False
    """Whether the limit is the least rather than the most it may be."""

    def __str__(self) -> str:
        return f"{self.figure} {'≥' if self.least else '≤'} {self.limit:g}"

    def is_met(self, summary: Mapping[str, Any]) -> bool:
        """Return whether a row reaches it; one without a value does not."""
        value = summary[self.figure]
        return value is not None and (value >= self.limit if self.least else value <= self.limit)


def _latency(p50: float, p99: float) -> tuple[Goal, Goal]:
    return Goal("p50", p50), Goal("p99", p99)


EXACTLY_ONE = Goal("min", 1, least=True), Goal("max", 1)
NONE_MORE = (Goal("p50", 0),)

GOALS: Mapping[tuple[str, str], Sequence[Goal]] = {
    ("swap_to_signal", "swap to signal"): _latency(2, 8),
    ("swap_to_signal", "signals per swap"): EXACTLY_ONE,
    ("swap_to_volume", "swap to signal"): _latency(6, 20),
    ("put_to_signal", "put to signal"): (Goal("p50", 8),),
    ("write_to_signal", "write to signal"): (Goal("p50", 600),),
    ("write_to_signal", "reads per interval"): (Goal("p50", 1.1),),
    ("start_to_published", "start to published"): (Goal("p50", 450),),
    ("quiet_files", "RSS"): (Goal("p50", 34),),
    ("quiet_servers", "RSS"): (Goal("p50", 45),),
    ("quiet_servers", "CPU"): (Goal("p50", 0.1),),
    ("large_prefix", "put to signal"): (Goal("p50", 200),),
    ("large_prefix", "RSS"): (Goal("p50", 65),),
    ("many_files", "swap to published"): (Goal("p50", 500),),
    ("many_files", "files missing from a new set"): (Goal("max", 0),),
    ("many_reloads", "RSS gained"): (Goal("p50", 2),),
    ("many_reloads", "descriptors gained"): NONE_MORE,
    ("many_reloads", "threads gained"): NONE_MORE,
    ("many_reloads", "changes without a signal"): NONE_MORE,
    ("key_to_volume", "key to volume"): (Goal("p50", 500),),
}
"""Milliseconds and MiB. At an interval with jitter a window may see one read more than it has intervals, hence the tenth."""
