"""Reports, the status document, metrics and log lines."""

import io
import json
import logging
import re
import warnings
from dataclasses import replace
from math import inf
from pathlib import Path

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from reloader import logs
from reloader.plan import Log
from reloader.status import Metrics, Page, PipelineReport, SourceReport, Status, TargetReport, document
from reloader.status.table import table
from reloader.world.clock import Clock
from tests.unit.reports import EVERY, GOOD, document_of

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "status.schema.json").read_text())


class Stopped(Clock):
    """A clock that stands still."""

    def now(self) -> float:
        return 1000.0

    def wall(self) -> float:
        return 5_000.0


REPORT = PipelineReport(
    name="web",
    mode="closed",
    ready=True,
    started=True,
    degraded=True,
    reasons=("source routes is not current",),
    desired=8,
    published=7,
    confirmed=6,
    published_at=4_990.0,
    owed="owed: being verified",
    rejected="check: no",
    last_reload_successful=True,
    last_success=4_000.0,
    sources=(
        SourceReport(name="routes", kind="consul", up=False, current_until=990.0, failure="unreachable: refused", detail="index 4"),
        SourceReport(name="tls", kind="vault", up=True, current_until=inf, expires=1060.0),
        SourceReport(name="late", kind="files", up=False, current_until=None),
    ),
    target=TargetReport(kind="process", pid=42),
)


@pytest.fixture
def status():
    status = Status(Stopped())
    status.put(REPORT)
    return status


def samples(status: Status) -> dict[tuple, float]:
    metrics = Metrics(status, "1.2.3", lambda: [("/site", "inotify")])
    metrics.introduce("web")
    metrics.count("refusals", "web", stage="check")
    metrics.took("web", "render", 0.003)
    families = text_string_to_metric_families(metrics.text().decode())
    return {(sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples}


def test_the_document_follows_its_published_schema(status):
    jsonschema.validate(document(status, "1.2.3"), SCHEMA)


@pytest.mark.parametrize("report", EVERY, ids=lambda report: report.name)
def test_the_document_follows_it_whatever_there_is_to_tell(report):
    made = document_of(report, mistakes=("web.yaml:3:1: taget: unknown key",), stuck=("pipeline web",))

    jsonschema.validate(made, SCHEMA)
    assert jsonschema.validators.validator_for(SCHEMA).check_schema(SCHEMA) is None
    json.dumps(made).encode("ascii")


def test_the_document_of_a_process_that_only_starts_follows_it_too():
    status = Status(Clock())
    status.put(PipelineReport(name="new", mode="open"))

    jsonschema.validate(document(status, "1.2.3"), SCHEMA)


def test_the_schema_allows_nothing_else(status):
    made = document(status, "1.2.3")
    made["pipelines"][0]["surprise"] = 1

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(made, SCHEMA)


def test_the_document_says_how_old_and_until_when(status):
    routes, tls, late = document(status, "1")["pipelines"][0]["sources"]

    assert (routes["age_seconds"], tls["age_seconds"], late["age_seconds"]) == (10.0, 0.0, None)
    assert tls["expires_at"] == 5_060.0


def test_an_age_that_nobody_knows_is_none_and_what_is_shown_stays_whole():
    """After a restart with the wall clock set back: infinite is no number in JSON, and no span of time for people."""
    report = replace(GOOD, sources=(SourceReport(name="site", kind="files", up=False, current_until=-inf, failure="unreachable: x"),))
    made = document_of(report)

    assert json.loads(json.dumps(made, allow_nan=False))["pipelines"][0]["sources"][0]["age_seconds"] is None
    jsonschema.validate(made, SCHEMA)
    assert any("unreachable: x" in line for line in table(made))
    assert b"unreachable: x" in Page().html(made)


def test_gauges_are_read_from_the_report(status):
    values = samples(status)

    assert values["reloader_source_up", ("pipeline", "web"), ("source", "routes")] == 0
    assert values["reloader_source_age_seconds", ("pipeline", "web"), ("source", "routes")] == 10
    assert ("reloader_source_age_seconds", ("pipeline", "web"), ("source", "late")) not in values
    assert values["reloader_generation", ("pipeline", "web"), ("state", "published")] == 7
    assert values["reloader_generation", ("pipeline", "web"), ("state", "confirmed")] == 6
    assert values["reloader_reload_owed", ("pipeline", "web")] == 1
    assert values["reloader_last_reload_success_timestamp_seconds", ("pipeline", "web")] == 4_000
    assert values["reloader_lease_expiry_timestamp_seconds", ("pipeline", "web"), ("source", "tls")] == 5_060
    assert values["reloader_watch_mode", ("directory", "/site"), ("mode", "inotify")] == 1
    assert values["reloader_build_info", ("version", "1.2.3")] == 1


def test_counters_start_at_zero_and_count(status):
    values = samples(status)

    assert values["reloader_reloads_total", ("pipeline", "web")] == 0
    assert values["reloader_reloads_failed_total", ("pipeline", "web")] == 0
    assert values["reloader_refusals_total", ("pipeline", "web"), ("stage", "check")] == 1
    assert values["reloader_stage_duration_seconds_count", ("pipeline", "web"), ("stage", "render")] == 1


def test_a_pipeline_that_never_reloaded_says_neither_yes_nor_no():
    status = Status(Stopped())
    status.put(replace(REPORT, last_reload_successful=None, last_success=None))

    assert not any(name == "reloader_last_reload_successful" for name, *_ in samples(status))


def lines(plan: Log, emit) -> list[str]:
    stream, level, show = io.StringIO(), logging.getLogger().level, warnings.showwarning
    logs.set_up(plan, stream)
    try:
        emit(logging.getLogger("reloader"))
    finally:
        logging.basicConfig(handlers=[], level=level, force=True)
        warnings.showwarning = show
    return stream.getvalue().splitlines()


def note(log: logging.Logger) -> None:
    log.info("publish", extra={"fields": {"pipeline": "web", "reason": 'a "quoted" thing'}})


def test_json_lines_are_json():
    (line,) = lines(Log(format="json"), note)

    assert {"level": "info", "message": "publish", "pipeline": "web"}.items() <= json.loads(line).items()


def test_a_warning_of_a_library_is_a_line_too():
    """As urllib3's, that TLS is not verified: it would stand in the middle of the log as plain text."""

    def warn(_log: logging.Logger) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("Unverified HTTPS request", UserWarning, stacklevel=1)

    (line,) = lines(Log(format="json"), warn)
    assert {"level": "warning", "message": "Unverified HTTPS request"}.items() <= json.loads(line).items()


def test_logfmt_lines_are_quoted_where_they_must():
    (line,) = lines(Log(format="logfmt"), note)

    assert line.endswith('level=info message=publish pipeline=web reason="a \\"quoted\\" thing"')


def test_console_lines_are_for_people():
    (line,) = lines(Log(format="console"), note)

    assert re.search('publish +web +a "quoted" thing$', line)


def test_a_stream_that_is_no_terminal_gets_json():
    (line,) = lines(Log(), note)

    assert json.loads(line)


@pytest.mark.parametrize("chosen", ["json", "logfmt", "console"])
def test_the_text_of_an_error_is_never_logged(chosen):
    """An exception may quote what was read."""

    def fail(log: logging.Logger) -> None:
        try:
            int("hunter2")
        except ValueError:
            log.exception("read failed")

    text = "\n".join(lines(Log(format=chosen), fail))

    assert "ValueError" in text
    assert "hunter2" not in text


def test_lines_below_the_level_are_left_out():
    assert lines(Log(level="error", format="json"), note) == []


def test_what_has_not_reported_yet_is_not_ready() -> None:
    """The first of several pipelines must not open the Pod's door for all of them."""
    status = Status(Clock())
    status.introduce("one", "open")
    status.introduce("two", "closed")
    status.put(replace(REPORT, name="one", ready=True, started=True))
    assert (status.ready, status.started) == (False, False)

    status.put(replace(REPORT, name="two", ready=True, started=True))
    assert (status.ready, status.started) == (True, True)


def test_the_start_does_not_wait_for_a_pipeline_that_is_configured_no_more() -> None:
    status = Status(Clock())
    status.introduce("one", "open")
    status.introduce("never", "closed")
    status.put(replace(REPORT, name="one", started=True))
    assert not status.started

    status.drop("never")
    assert status.started


def test_nothing_left_is_no_start() -> None:
    status = Status(Clock())
    status.introduce("one", "open")
    status.drop("one")
    assert not status.started


def test_a_pipeline_that_is_made_anew_keeps_its_report_until_the_next() -> None:
    status = Status(Clock())
    status.put(replace(REPORT, name="one", ready=True, started=True))
    status.introduce("one", "open")
    assert (status.ready, status.started) == (True, True)
