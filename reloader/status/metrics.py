"""Metrics: what happened is counted when it happens; what is now is read from the reports when somebody asks.

No label ever holds a value, a path from a backend or an error text, and every label is bounded: by the configuration that runs now, or by
a list here. How all of that is shown is in `exposition`, which is imported for the first who asks.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from reloader.snapshot import FailureKind
from reloader.status.report import Status

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
TROUBLES = ("absent", "gone", "ambiguous", "not_ready", "ignored", "permission")
"""What can keep a target from being asked, as in `reloader.targets.Trouble`."""
FAILURES = TROUBLES[2:]
"""What of that is a failure: that nothing runs there is none."""
REFUSING = ("render", "check", "verify")
"""The stages that refuse a set."""

Labels = tuple[str, ...]
"""The values of a series' labels; the first is the pipeline."""


@dataclass(frozen=True)
class Counted:
    """What is counted: how it is shown, and by what beside the pipeline its series differ."""

    name: str
    text: str
    labels: Labels = ()


COUNTED: Mapping[str, Counted] = {
    "reloads": Counted("reloader_reloads", "Reloads asked of the target."),
    "failed": Counted("reloader_reloads_failed", "Reloads that could not be asked for, or were not confirmed."),
    "source_errors": Counted("reloader_source_errors", "Reads of a source that brought no answer it could use.", ("source", "reason")),
    "signal_failures": Counted(
        "reloader_signal_failures", "Times a due reload began to be held back, because the target could not be asked.", ("reason",)
    ),
    "refusals": Counted("reloader_refusals", "Sets that a stage refused; one that is only tried again counts once.", ("stage",)),
    "rollbacks": Counted(
        "reloader_rollbacks", "Times an earlier generation was put back, because the target refused a newer one or by hand."
    ),
}


@dataclass
class Durations:
    """How often something took how long."""

    total: float = 0.0
    """Seconds."""
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    """For each bucket alone, and for all that took longer."""

    def add(self, seconds: float) -> None:
        """Take one more."""
        self.total += seconds
        self.counts[bisect_left(BUCKETS, seconds)] += 1


class Metrics:
    """The metrics of one process."""

    def __init__(self, status: Status, version: str, watch_modes: Callable[[], Iterable[tuple[str, str]]] = tuple) -> None:
        self.status = status
        self.version = version
        self.watch_modes = watch_modes
        self._lock = threading.Lock()
        self._counts: dict[str, dict[Labels, int]] = {what: {} for what in COUNTED}
        self._took: dict[Labels, Durations] = {}

    def count(self, what: str, pipeline: str, **labels: str) -> None:
        """Count one of `COUNTED`."""
        if "source" in labels:
            labels["source"] = label_of(labels["source"])
        series = (pipeline, *(labels[name] for name in COUNTED[what].labels))
        with self._lock:
            self._counts[what][series] = self._counts[what].get(series, 0) + 1

    def introduce(self, pipeline: str, sources: Iterable[str] = ()) -> None:
        """Show a new pipeline's counters from zero: a rate cannot see the step from nothing to one."""
        failing = [(pipeline, label_of(source), kind.value) for source in sources for kind in FailureKind]
        with self._lock:
            for what in ("reloads", "failed", "rollbacks"):
                self._counts[what].setdefault((pipeline,), 0)
            for reason in FAILURES:
                self._counts["signal_failures"].setdefault((pipeline, reason), 0)
            for stage in REFUSING:
                self._counts["refusals"].setdefault((pipeline, stage), 0)
            for series in failing:
                self._counts["source_errors"].setdefault(series, 0)

    def keep_only(self, sources: Mapping[str, Iterable[str]]) -> None:
        """Forget what was counted for pipelines, and for sources of theirs, that are not among these."""
        kept = {(pipeline, label_of(name)) for pipeline, names in sources.items() for name in names}
        with self._lock:
            for what, series in self._counts.items():
                by_source = "source" in COUNTED[what].labels
                gone = [each for each in series if each[0] not in sources or (by_source and each[:2] not in kept)]
                for each in gone:
                    del series[each]
            for each in [each for each in self._took if each[0] not in sources]:
                del self._took[each]

    def took(self, pipeline: str, stage: str, seconds: float) -> None:
        """Note how long a stage took."""
        with self._lock:
            self._took.setdefault((pipeline, stage), Durations()).add(seconds)

    def counts(self, what: str) -> dict[Labels, int]:
        """Return what was counted, for each series."""
        with self._lock:
            return dict(self._counts[what])

    def durations(self) -> dict[Labels, Durations]:
        """Return how long stages took, by pipeline and stage."""
        with self._lock:
            return {series: Durations(took.total, [*took.counts]) for series, took in self._took.items()}

    @cached_property
    def registry(self) -> "CollectorRegistry":
        """Return all of it as the client library of Prometheus has it."""
        from reloader.status.exposition import registry_of  # noqa: PLC0415 - 4 MiB, only where somebody asks

        return registry_of(self)

    def text(self) -> bytes:
        """Return everything in the text exposition format."""
        from prometheus_client import generate_latest  # noqa: PLC0415 - likewise

        return generate_latest(self.registry)


def label_of(source: str) -> str:
    """Return the label of a source; the directories of templates, whose names are paths, are one together."""
    return "templates" if source.startswith("/") else source
