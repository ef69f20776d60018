"""Metrics: what happened is counted when it happens; what is now is read from the reports when somebody asks.

No label ever holds a value, a path from a backend or an error text.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reloader.status.report import PipelineReport, Status

BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, status: Status, version: str, watch_modes: Callable[[], Iterable[tuple[str, str]]] = tuple) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._counted = {
            "reloads": self._counter("reloader_reloads", "Reloads asked of the target."),
            "failed": self._counter("reloader_reloads_failed", "Reloads that could not be asked for, or were not confirmed."),
            "source_errors": self._counter("reloader_source_errors", "Reads that brought no answer.", "source", "reason"),
            "signal_failures": self._counter("reloader_signal_failures", "Times a due reload was held back.", "reason"),
            "refusals": self._counter("reloader_refusals", "Sets that a stage refused.", "stage"),
            "rollbacks": self._counter(
                "reloader_rollbacks", "Times an earlier generation was put back because the target refused a newer one."
            ),
        }
        self._stages = Histogram(
            "reloader_stage_duration_seconds", "How long a stage took.", ["pipeline", "stage"], registry=self.registry, buckets=BUCKETS
        )
        self.registry.register(_Now(status, version, watch_modes))

    def count(self, what: str, pipeline: str, **labels: str) -> None:
        """Count one of `reloads`, `failed`, `source_errors`, `signal_failures`, `refusals` and `rollbacks`."""
        self._counted[what].labels(pipeline=pipeline, **labels).inc()

    def introduce(self, pipeline: str) -> None:
        """Show a new pipeline's counters from zero, so that a rate has a start."""
        for name in ("reloads", "failed", "rollbacks"):
            self._counted[name].labels(pipeline=pipeline)

    def took(self, pipeline: str, stage: str, seconds: float) -> None:
        """Note how long a stage took."""
        self._stages.labels(pipeline=pipeline, stage=stage).observe(seconds)

    def text(self) -> bytes:
        """Return everything in the text exposition format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ["pipeline", *labels], registry=self.registry)


class _Now(Collector):
    """Reads the reports at scrape time, so that ages are of that moment."""

    def __init__(self, status: Status, version: str, watch_modes: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self._status = status
        self._version = version
        self._watch_modes = watch_modes

    def collect(self) -> Iterator[Metric]:
        """Yield every gauge."""
        reports = tuple(self._status.reports.values())
        yield from _pipelines(reports)
        yield from _sources(reports, self._status)
        yield from self._process()

    def _process(self) -> Iterator[Metric]:
        config = GaugeMetricFamily("reloader_config_reload_successful", "Whether the configuration on the disk is the one that runs.")
        config.add_metric([], float(self._status.config_successful))
        yield config
        build = GaugeMetricFamily("reloader_build_info", "Always 1; the version is in the label.", labels=["version"])
        build.add_metric([self._version], 1.0)
        yield build
        modes = GaugeMetricFamily(
            "reloader_watch_mode", "How directories are watched; 1 for the mode in use.", labels=["directory", "mode"]
        )
        for directory, mode in self._watch_modes():
            for each in ("inotify", "poll"):
                modes.add_metric([directory, each], float(each == mode))
        yield modes


def _gauge(name: str, text: str, rows: Iterable[tuple[list[str], float | None]], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["pipeline", *labels])
    for row, value in rows:
        if value is not None:
            family.add_metric(row, value)
    return family


def _pipelines(reports: tuple[PipelineReport, ...]) -> Iterator[Metric]:
    def each(value: Callable[[PipelineReport], float | None]) -> list[tuple[list[str], float | None]]:
        return [([report.name], value(report)) for report in reports]

    def successful(report: PipelineReport) -> float | None:
        return None if report.last_reload_successful is None else float(report.last_reload_successful)

    yield _gauge("reloader_last_reload_successful", "Whether the last reload was confirmed.", each(successful))
    yield _gauge(
        "reloader_last_reload_success_timestamp_seconds", "When a reload was last confirmed.", each(lambda report: report.last_success)
    )
    yield _gauge(
        "reloader_reload_owed", "Whether the published generation is not confirmed.", each(lambda report: float(bool(report.owed)))
    )
    yield _gauge("reloader_closed", "Whether the pipeline is closed.", each(lambda report: float(report.closed)))
    yield _gauge(
        "reloader_generation",
        "The number of the generation that is wanted, published, confirmed.",
        [
            ([report.name, state], float(number))
            for report in reports
            for state, number in (("desired", report.desired), ("published", report.published), ("confirmed", report.confirmed))
        ],
        "state",
    )


def _sources(reports: tuple[PipelineReport, ...], status: Status) -> Iterator[Metric]:
    now, wall = status.clock.now(), status.clock.wall()
    rows = [(report.name, source) for report in reports for source in report.sources]
    yield _gauge(
        "reloader_source_up", "Whether the last read of the source succeeded.", [([p, s.name], float(s.up)) for p, s in rows], "source"
    )
    yield _gauge(
        "reloader_source_age_seconds",
        "Seconds since the source's value was last known to be current.",
        [([p, s.name], s.age(now)) for p, s in rows],
        "source",
    )
    yield _gauge(
        "reloader_lease_expiry_timestamp_seconds",
        "When the source's value stops being valid.",
        [([p, s.name], None if s.expires is None else wall + s.expires - now) for p, s in rows],
        "source",
    )
