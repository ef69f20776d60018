"""What was measured: rows, as a table for people and as JSON for machines."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from benchmarks.goals import GOALS, Goal
from benchmarks.machine import Machine

OURS = "reloader"
"""The contender that ratios are taken to."""
SCHEMA = 2
"""The version of the JSON document: a new number when a key changes its meaning or goes."""


@dataclass(frozen=True)
class Row:
    """Every value of one measure of one contender; a value that is missing (a change that led to no signal) is none of them."""

    contender: str
    measure: str
    unit: str
    values: Sequence[float]

    @property
    def median(self) -> float | None:
        """Return the middle value."""
        return statistics.median(self.values) if self.values else None

    def percentile(self, share: float) -> float | None:
        """Return the least value that at least this share of the values do not exceed (nearest rank)."""
        return sorted(self.values)[max(0, ceil(share * len(self.values)) - 1)] if self.values else None

    def summary(self) -> dict[str, Any]:
        """Return the row as the JSON document has it, without the ratio."""
        return {
            "contender": self.contender,
            "measure": self.measure,
            "unit": self.unit,
            "count": len(self.values),
            "min": min(self.values, default=None),
            "p50": self.median,
            "p99": self.percentile(0.99),
            "max": max(self.values, default=None),
        }


@dataclass(frozen=True)
class Skipped:
    """A contender that could not be measured here, and why."""

    contender: str
    reason: str


@dataclass(frozen=True)
class Result:
    """One scenario, measured."""

    name: str
    about: str
    rows: Sequence[Row]
    skipped: Sequence[Skipped]
    load_before: float
    """The load average of the last minute when it began: much above what this run makes, and the figures are of a busy machine."""
    load_after: float
    took: float = 0.0
    """How many seconds it ran."""

    def document(self) -> dict[str, Any]:
        """Return the scenario as the JSON document has it."""
        rows = [{**row.summary(), "ratio": ratio, "goals": self._judged(row)} for row, ratio in self.compared()]
        skipped = [asdict(each) for each in self.skipped]
        load = {"before": self.load_before, "after": self.load_after}
        return {"name": self.name, "about": self.about, "load": load, "took": self.took, "rows": rows, "skipped": skipped}

    def compared(self) -> Iterator[tuple[Row, float | None]]:
        """Yield each row with its median as a multiple of ours; None where there is nothing to compare."""
        ours = {row.measure: row.median for row in self.rows if row.contender == OURS}
        for row in self.rows:
            base = ours.get(row.measure)
            yield row, None if row.median is None or not base or row.contender == OURS else row.median / base

    def goals(self, row: Row) -> Sequence[Goal]:
        """Return what a row is to reach; that of others is theirs."""
        return GOALS.get((self.name, row.measure), ()) if row.contender == OURS else ()

    def _judged(self, row: Row) -> list[dict[str, Any]]:
        summary = row.summary()
        return [{**asdict(goal), "met": goal.is_met(summary)} for goal in self.goals(row)]


def document(machine: Machine, options: Mapping[str, Any], results: Iterable[Result]) -> dict[str, Any]:
    """Return everything as one JSON document."""
    return {"schema": SCHEMA, "machine": asdict(machine), "options": dict(options), "scenarios": [each.document() for each in results]}


HEADINGS = ("", "measure", "n", "min", "p50", "p99", "max", "", "x reloader", "goal", "")
TEXTS = {0, 1, 7, 9, 10}
"""Columns that are read from the left."""


def table(result: Result) -> str:
    """Return one scenario as a table."""
    cells = [HEADINGS, *((*_cells(row, ratio), *_verdict(row, result.goals(row))) for row, ratio in result.compared())]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = [f"{result.name}: {result.about}"]
    lines += ["  " + "  ".join(_aligned(line, widths)).rstrip() for line in cells]
    lines += [f"  {each.contender}: not measured, {each.reason}" for each in result.skipped]
    lines.append(f"  took {result.took:.0f} s, load average {result.load_before:.1f} before, {result.load_after:.1f} after")
    return "\n".join(lines)


def heading(machine: Machine, *, quick: bool) -> str:
    """Return what it was measured on, for a person."""
    warning = "quick: too short for the figures to mean anything\n" if quick else ""
    return (
        f"{warning}"
        f"{machine.cores} cores ({machine.processor}), {machine.memory_mib} MiB, Linux {machine.kernel}, Python {machine.python}, "
        f"{machine.file_system} at {machine.directory}, target in {machine.target}"
    )


def _cells(row: Row, ratio: float | None) -> tuple[str, ...]:
    made = row.summary()
    numbers = [_number(made[key]) for key in ("min", "p50", "p99", "max")]
    if made["count"] == 1:
        numbers = ["", numbers[1], "", ""]
    return (row.contender, row.measure, str(made["count"]), *numbers, row.unit, "" if ratio is None else _number(ratio))


def _verdict(row: Row, goals: Sequence[Goal]) -> tuple[str, str]:
    """Return what is to be reached, and whether it is."""
    if not goals:
        return "", ""
    missed = [goal for goal in goals if not goal.is_met(row.summary())]
    which = f": {', '.join(goal.figure for goal in missed)}" if missed and len(goals) > 1 else ""
    return ", ".join(map(str, goals)), f"not met{which}" if missed else "met"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def _aligned(line: tuple[str, ...], widths: list[int]) -> list[str]:
    """Return the cells of a line at their widths: numbers to the right."""
    return [
        cell.ljust(width) if column in TEXTS else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
