"""Metrics: what happened is counted when it happens; what is now is read from the reports when somebody asks.

No label ever holds a value, a path from a backend or an error text, and every label is bounded: by the configuration that runs now, or by
a list here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reloader.snapshot import FailureKind
from reloader.status.report import PipelineReport, SourceReport, Status

BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
TROUBLES = ("absent", "gone", "ambiguous", "not_ready", "ignored", "permission")
"""What can keep a target from being asked, as in `reloader.targets.Trouble`."""
FAILURES = TROUBLES[2:]
"""What of that is a failure: that nothing runs there is none."""
REFUSING = ("render", "check", "verify")
"""The stages that refuse a set."""
MODES = ("inotify", "poll")
Rows = Iterable[tuple[tuple[str, ...], float | None]]


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, status: Status, version: str, watch_modes: Callable[[], Iterable[tuple[str, str]]] = tuple) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._counted = {
            "reloads": self._counter("reloader_reloads", "Reloads asked of the target."),
            "failed": self._counter("reloader_reloads_failed", "Reloads that could not be asked for, or were not confirmed."),
            "source_errors": self._counter(
                "reloader_source_errors", "Reads of a source that brought no answer it could use.", "source", "reason"
            ),
            "signal_failures": self._counter(
                "reloader_signal_failures", "Times a due reload began to be held back, because the target could not be asked.", "reason"
            ),
            "refusals": self._counter("reloader_refusals", "Sets that a stage refused; one that is only tried again counts once.", "stage"),
            "rollbacks": self._counter(
                "reloader_rollbacks", "Times an earlier generation was put back, because the target refused a newer one or by hand."
            ),
        }
        self._stages = Histogram(
            "reloader_stage_duration_seconds",
            "How long each stage took, whether it succeeded or failed.",
            ["pipeline", "stage"],
            registry=self.registry,
            buckets=BUCKETS,
        )
        self.registry.register(_Now(status, version, watch_modes))

    def count(self, what: str, pipeline: str, **labels: str) -> None:
        """Count one of `reloads`, `failed`, `source_errors`, `signal_failures`, `refusals` and `rollbacks`."""
        if "source" in labels:
            labels["source"] = _label(labels["source"])
        self._counted[what].labels(pipeline=pipeline, **labels).inc()

    def introduce(self, pipeline: str, sources: Iterable[str] = ()) -> None:
        """Show a new pipeline's counters from zero: a rate cannot see the step from nothing to one."""
        for name in ("reloads", "failed", "rollbacks"):
            self._counted[name].labels(pipeline)
        for reason in FAILURES:
            self._counted["signal_failures"].labels(pipeline, reason)
        for stage in REFUSING:
            self._counted["refusals"].labels(pipeline, stage)
        for source in sources:
            for kind in FailureKind:
                self._counted["source_errors"].labels(pipeline, _label(source), kind.value)

    def keep_only(self, sources: Mapping[str, Iterable[str]]) -> None:
        """Forget what was counted for pipelines, and for sources of theirs, that are not among these."""
        kept = {pipeline: {_label(name) for name in names} for pipeline, names in sources.items()}
        for family in (*self._counted.values(), self._stages):
            for labels in _series(family):
                pipeline, source = labels["pipeline"], labels.get("source")
                if pipeline not in kept or (source is not None and source not in kept[pipeline]):
                    family.remove_by_labels(labels)

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
        modes = [((directory, mode), float(mode == used)) for directory, used in self._watch_modes() for mode in MODES]
        successful = float(self._status.config_successful)
        yield _gauge("reloader_watch_mode", "How a directory is watched: 1 for the mode in use.", modes, "directory", "mode")
        yield _gauge(
            "reloader_config_reload_successful",
            "1 while the configuration on the disk is the one that runs; 0 after a change was refused, which would not survive a restart.",
            [((), successful)],
        )
        yield _gauge("reloader_build_info", "Always 1; the version is in the label.", [((self._version,), 1.0)], "version")


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
            sources.setdefault((report.name, _label(source.name)), []).append(source)

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


def _series(family: Collector) -> list[dict[str, str]]:
    """Return the labels of each series there is."""
    samples = [sample.labels for metric in family.collect() for sample in metric.samples]
    return [dict(each) for each in {tuple((name, value) for name, value in labels.items() if name != "le") for labels in samples}]


def _label(source: str) -> str:
    """Return the label of a source; the directories of templates, whose names are paths, are one together."""
    return "templates" if source.startswith("/") else source
