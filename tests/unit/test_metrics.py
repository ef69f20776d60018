"""The metrics of one process: what each says, with which labels, and for how long."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, strategies as st
from prometheus_client.parser import text_string_to_metric_families

from reloader.status import Metrics, PipelineReport, SourceReport, Status, TargetReport
from reloader.status.metrics import TROUBLES
from reloader.targets import Trouble
from reloader.world.clock import Clock
from tests.servers import UnavailableError, missing
from tests.servers.prometheus import promtool

Key = tuple[str, frozenset[tuple[str, str]]]


class Stopped(Clock):
    """A clock that stands still."""

    def now(self) -> float:
        return 1000.0

    def wall(self) -> float:
        return 5_000.0


def source(name: str, **fields: object) -> SourceReport:
    return SourceReport(**{"name": name, "kind": "files", "up": True, "current_until": inf, **fields})


def key(metric: str, **labels: str) -> Key:
    return metric, frozenset(labels.items())


def values(metrics: Metrics) -> dict[Key, float]:
    """Return every sample; a test fails that finds two of the same labels, which Prometheus refuses with all the others."""
    found: dict[Key, float] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            assert key(sample.name, **sample.labels) not in found
            found[key(sample.name, **sample.labels)] = sample.value
    return found


def labelled(metrics: Metrics, label: str) -> set[str]:
    return {value for _, labels in values(metrics) for name, value in labels if name == label}


@pytest.fixture
def status() -> Status:
    return Status(Stopped())


@pytest.fixture
def metrics(status: Status) -> Metrics:
    return Metrics(status, "1.2.3", lambda: [("/site", "inotify")])


def test_promtool_finds_nothing_to_say(status: Status, metrics: Metrics) -> None:
    """Of everything there is, with every label."""
    sources = (source("a", expires=1060.0),)
    status.put(
        PipelineReport(
            name="web", mode="open", sources=sources, last_reload_successful=True, last_success=1.0, certified=2.0, certified_from=1.0
        )
    )
    metrics.introduce("web", ["a"])
    metrics.took("web", "render", 0.1)
    try:
        checked = promtool("check", "metrics", text=metrics.text().decode())
    except UnavailableError as reason:
        missing(reason)

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_what_keeps_a_target_from_being_asked_has_the_names_of_the_targets() -> None:
    assert set(TROUBLES) == {trouble.value for trouble in Trouble}


@pytest.mark.parametrize("trouble", [None, *Trouble])
def test_the_trouble_of_now_is_one_and_every_other_zero(status: Status, metrics: Metrics, trouble: Trouble | None) -> None:
    status.put(PipelineReport(name="web", mode="open", target=TargetReport(kind="process", trouble=trouble)))

    seen = {other: values(metrics)[key("reloader_target_trouble", pipeline="web", reason=other)] for other in Trouble}
    assert seen == {other: float(other == trouble) for other in Trouble}


def test_template_directories_are_one_source_that_is_as_bad_as_the_worst_of_them(status: Status, metrics: Metrics) -> None:
    """Their names are paths, which no label holds."""
    good, old = source("/a", kind="templates"), source("/b", kind="templates", up=False, current_until=940.0)
    never = source("/c", kind="templates", up=False, current_until=None)
    status.put(PipelineReport(name="web", mode="open", sources=(good, old, never, source("site"))))
    metrics.count("source_errors", "web", source="/b", reason="unreachable")

    templates = {"pipeline": "web", "source": "templates"}
    assert values(metrics)[key("reloader_source_up", **templates)] == 0
    assert values(metrics)[key("reloader_source_age_seconds", **templates)] == 60
    assert values(metrics)[key("reloader_source_errors_total", **templates, reason="unreachable")] == 1
    assert values(metrics)[key("reloader_source_up", pipeline="web", source="site")] == 1
    assert labelled(metrics, "source") == {"site", "templates"}


def test_a_source_that_a_person_named_templates_spoils_no_scrape(status: Status, metrics: Metrics) -> None:
    status.put(PipelineReport(name="web", mode="open", sources=(source("templates"), source("/a", up=False))))

    assert values(metrics)[key("reloader_source_up", pipeline="web", source="templates")] == 0


def test_the_end_of_a_lease_and_of_a_certificate_are_times_of_the_wall_clock(status: Status, metrics: Metrics) -> None:
    status.put(PipelineReport(name="web", mode="open", sources=(source("tls", expires=1060.0),), certified=7_000.0, certified_from=3_000.0))
    status.put(PipelineReport(name="plain", mode="open"))

    assert values(metrics)[key("reloader_lease_expiry_timestamp_seconds", pipeline="web", source="tls")] == 5_060
    assert values(metrics)[key("reloader_certificate_expiry_timestamp_seconds", pipeline="web")] == 7_000
    assert values(metrics)[key("reloader_certificate_not_before_timestamp_seconds", pipeline="web")] == 3_000
    assert key("reloader_certificate_expiry_timestamp_seconds", pipeline="plain") not in values(metrics)


def test_what_may_be_counted_is_there_from_zero(metrics: Metrics) -> None:
    """Else the first one is a series that begins with 1, in which `increase()` sees nothing."""
    metrics.introduce("web", ["site", "/templates"])

    counters = {each: value for each, value in values(metrics).items() if each[0].endswith("_total")}
    assert set(counters.values()) == {0.0}
    metrics.count("reloads", "web")
    metrics.count("failed", "web")
    metrics.count("rollbacks", "web")
    for trouble in set(Trouble) - {Trouble.ABSENT, Trouble.GONE}:
        metrics.count("signal_failures", "web", reason=trouble.value)
    for stage in ("render", "check", "verify"):
        metrics.count("refusals", "web", stage=stage)
    for name in ("site", "/templates"):
        for kind in ("unreachable", "refused", "misconfigured"):
            metrics.count("source_errors", "web", source=name, reason=kind)
    assert {each: value for each, value in values(metrics).items() if each[0].endswith("_total")} == dict.fromkeys(counters, 1.0)


def test_introducing_a_pipeline_again_takes_nothing_from_what_was_counted(metrics: Metrics) -> None:
    """A pipeline that is made anew for a changed configuration goes on counting."""
    metrics.introduce("web", ["site"])
    metrics.count("source_errors", "web", source="site", reason="refused")
    metrics.introduce("web", ["site", "other"])

    assert values(metrics)[key("reloader_source_errors_total", pipeline="web", source="site", reason="refused")] == 1


def test_what_is_no_longer_configured_leaves_no_series(status: Status, metrics: Metrics) -> None:
    for name in ("web", "web2"):
        status.put(PipelineReport(name=name, mode="open", sources=(source("site"), source("gone"), source("/t"))))
        metrics.introduce(name, ["site", "gone", "/t"])
        metrics.took(name, "render", 0.1)
    metrics.count("source_errors", "web", source="site", reason="refused")
    status.drop("web2")
    status.put(PipelineReport(name="web", mode="open", sources=(source("site"),)))
    metrics.keep_only({"web": ["site"]})

    assert labelled(metrics, "pipeline") == {"web"}
    assert labelled(metrics, "source") == {"site"}
    assert values(metrics)[key("reloader_source_errors_total", pipeline="web", source="site", reason="refused")] == 1
    assert values(metrics)[key("reloader_stage_duration_seconds_count", pipeline="web", stage="render")] == 1


CONFIGURATIONS = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sets(st.sampled_from(["x", "y", "/t", "/u"])), max_size=3), min_size=1, max_size=6
)


@given(CONFIGURATIONS)
def test_after_any_changes_of_the_configuration_there_is_what_a_new_process_would_show(changes: list[Mapping[str, set[str]]]) -> None:
    def shown(metrics: Metrics) -> set[Key]:
        return {each for each in values(metrics) if not each[0].startswith("reloader_stage")}

    status, new_status = Status(Stopped()), Status(Stopped())
    metrics, new = Metrics(status, "1"), Metrics(new_status, "1")
    for change in changes:
        for gone in set(status.reports) - set(change):
            status.drop(gone)
        for name, names in change.items():
            metrics.introduce(name, names)
            metrics.took(name, "render", 0.1)
            status.put(PipelineReport(name=name, mode="open", sources=tuple(source(each) for each in names)))
        metrics.keep_only(change)
    for name, names in changes[-1].items():
        new.introduce(name, names)
        new_status.put(PipelineReport(name=name, mode="open", sources=tuple(source(each) for each in names)))

    assert shown(metrics) == shown(new)
    assert {dict(labels)["pipeline"] for name, labels in values(metrics) if name == "reloader_stage_duration_seconds_count"} == set(
        changes[-1]
    )


def test_no_label_and_no_help_text_holds_what_a_report_tells_people(status: Status, metrics: Metrics) -> None:
    """Reasons and details are for people; they may name paths and keys of a backend."""
    told = "canary"
    status.put(
        replace(
            PipelineReport(name="web", mode="open", sources=(source("db", failure=told, detail=told, up=False),)),
            reasons=(told,),
            owed=told,
            rejected=told,
        )
    )

    assert told not in metrics.text().decode()
