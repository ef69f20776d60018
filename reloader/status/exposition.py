"""The metrics as Prometheus reads them."""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from reloader.status.metrics import BUCKETS, COUNTED, TROUBLES, Durations, Metrics, label_of
from reloader.status.report import PipelineReport, SourceReport, Status

MODES = ("inotify", "poll")
Rows = Iterable[tuple[tuple[str, ...], float | None]]


def registry_of(metrics: Metrics) -> CollectorRegistry:
    """Return a registry with these metrics alone."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(_Counted(metrics))
    registry.register(_Now(metrics))
    return registry


class _Counted(Collector):
    """What happened since the process began."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield every counter, and how long the stages took."""
        for what, counted in COUNTED.items():
            family = CounterMetricFamily(counted.name, counted.text, labels=("pipeline", *counted.labels))
            for series, count in self._metrics.counts(what).items():
                family.add_metric(series, count)
            yield family
        text = "How long each stage took, whether it succeeded or failed."
        stages = HistogramMetricFamily("reloader_stage_duration_seconds", text, labels=("pipeline", "stage"))
        for series, durations in self._metrics.durations().items():
            stages.add_metric(series, buckets=_cumulated(durations), sum_value=durations.total)
        yield stages


def _cumulated(durations: Durations) -> list[tuple[str, float]]:
    """Return how many took as long as each bound at most."""
    return list(zip([*map(str, BUCKETS), "+Inf"], accumulate(durations.counts), strict=True))


class _Now(Collector):
    """Reads the reports at scrape time, so that ages are of that moment."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield every gauge."""
        status = self._metrics.status
        reports = tuple(status.reports.values())
        yield from _pipelines(reports)
        yield from _sources(reports, status)
        yield from self._process()

    def _process(self) -> Iterator[Metric]:
        modes = [((directory, mode), float(mode == used)) for directory, used in self._metrics.watch_modes() for mode in MODES]
        successful = float(self._metrics.status.config_successful)
        yield _gauge("reloader_watch_mode", "How a directory is watched: 1 for the mode in use.", modes, "directory", "mode")
        yield _gauge(
            "reloader_config_reload_successful",
            "1 while the configuration on the disk is the one that runs; 0 after a change was refused, which would not survive a restart.",
            [((), successful)],
        )
        yield _gauge("reloader_build_info", "Always 1; the version is in the label.", [((self._metrics.version,), 1.0)], "version")


def _gauge(name: str, text: str, rows: Rows, *labels: str) -> GaugeMetricFamily:
    """Return a gauge with a sample for each row that has a value."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for row, value in rows:
        if value is not None:
            family.add_metric(row, value)
    return family


def _pipelines(reports: tuple[PipelineReport, ...]) -> Iterator[Metric]:
    def gauge(name: str, text: str, value: Callable[[PipelineReport], float | None]) -> GaugeMetricFamily:
        return _gauge(name, text, [((report.name,), value(report)) for report in reports], "pipeline")

    yield gauge(
        "reloader_last_reload_successful", "Whether the last reload was confirmed; absent before the first.", _last_reload_successful
    )
    yield gauge("reloader_last_reload_success_timestamp_seconds", "When a reload was last confirmed.", lambda report: report.last_success)
    yield gauge(
        "reloader_reload_owed",
        "1 while the published generation is not confirmed, also while no target runs.",
        lambda report: float(bool(report.owed)),
    )
    yield gauge("reloader_closed", "1 while the pipeline is closed: what is published may not be relied on.", lambda report: report.closed)
    yield gauge(
        "reloader_certificate_expiry_timestamp_seconds",
        "When the first certificate of the published set ends to be valid; absent where there is none.",
        lambda report: report.certified,
    )
    yield gauge(
        "reloader_certificate_not_before_timestamp_seconds",
        "When that certificate began to be valid.",
        lambda report: report.certified_from,
    )
    yield _gauge(
        "reloader_generation",
        "The number of the generation that is wanted, published and confirmed; 0 for none.",
        [((report.name, state), float(getattr(report, state))) for report in reports for state in ("desired", "published", "confirmed")],
        "pipeline",
        "state",
    )
    yield _gauge(
        "reloader_target_trouble",
        "1 for what keeps the target from being asked for a reload that is due.",
        [((report.name, reason), float(report.target.trouble == reason)) for report in reports for reason in TROUBLES],
        "pipeline",
        "reason",
    )


def _last_reload_successful(report: PipelineReport) -> float | None:
    return None if report.last_reload_successful is None else float(report.last_reload_successful)


def _sources(reports: tuple[PipelineReport, ...], status: Status) -> Iterator[Metric]:
    now, wall = status.clock.now(), status.clock.wall()
    sources: dict[tuple[str, str], list[SourceReport]] = {}
    for report in reports:
        for source in report.sources:
            sources.setdefault((report.name, label_of(source.name)), []).append(source)

    def gauge(name: str, text: str, worst: Callable[[Iterable[float]], float], value: Callable[[SourceReport], float | None]) -> Metric:
        known = {labels: [seen for source in each if (seen := value(source)) is not None] for labels, each in sources.items()}
        return _gauge(name, text, [(labels, worst(seen)) for labels, seen in known.items() if seen], "pipeline", "source")

    yield gauge("reloader_source_up", "Whether the last read of the source succeeded.", min, lambda source: float(source.up))
    yield gauge(
        "reloader_source_age_seconds",
        "Seconds since the source's value was last known to be current; absent before its first value.",
        max,
        lambda source: source.age(now),
    )
    yield gauge(
        "reloader_lease_expiry_timestamp_seconds",
        "When the source's value stops being valid, unless it is renewed.",
        min,
        lambda source: None if source.expires is None else wall + source.expires - now,
    )
