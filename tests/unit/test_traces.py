"""Changes as spans, and what happens where nobody takes them."""

import logging
from collections.abc import Callable, Iterator

import pytest

from reloader.plan import Tls
from reloader.traces import MEND, Cycle, Step, Traces, traces, unmet
from reloader.world.session import BoundedSession
from tests.servers.collector import Collector, attributes, collector
from tests.servers.misbehaving import Exchange, hang, misbehaving
from tests.servers.ports import free_port
from tests.waiting import eventually

CHANGE = Cycle(
    "app",
    7,
    1_700_000_000.5,
    1_700_000_004.5,
    "failed",
    (
        Step("publish", 7, 1_700_000_000.5, 1_700_000_001.0, "ok"),
        Step("verify", 7, 1_700_000_001.0, 1_700_000_004.5, "failed", "refused"),
    ),
)

Start = Callable[..., Traces]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts traces with the OTEL_ variables of the test, and no others; OpenTelemetry itself reads the environment."""
    started: list[Traces] = []
    levels = {name: logging.getLogger(name).level for name in ("opentelemetry", "opentelemetry.exporter")}

    def start(**environ: str) -> Traces:
        for name, value in {"BSP_SCHEDULE_DELAY": "20", "EXPORTER_OTLP_TIMEOUT": "0.5", **environ}.items():
            monkeypatch.setenv(f"OTEL_{name}", value)
        made = traces("1.2.3", lambda: BoundedSession(Tls(), timeout=10))
        assert made is not None
        started.append(made)
        return made

    yield start
    for each in started:
        if each._closing.ident is None:
            each.close()
            each.join(10)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def taking() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "web"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318"}, None),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, None),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, None),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ""),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ""),
        ({"OTEL_TRACES_EXPORTER": "console, OTLP"}, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, ""),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ""),
    ],
)
def test_the_standard_variables_say_whether_traces_are_wanted(environ: dict[str, str], expected: str | None):
    assert unmet(environ) == expected


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "'zipkin'"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "'grpc'"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
    ],
)
def test_what_is_asked_for_and_not_known_here_is_told_once(environ: dict[str, str], named: str, caplog: pytest.LogCaptureFixture):
    assert traces("1", lambda: BoundedSession(Tls(), timeout=1), environ) is None
    [record] = caplog.records
    assert (record.getMessage(), record.levelname) == ("no traces", "WARNING")
    assert named in vars(record)["fields"]["reason"]


@pytest.mark.parametrize(("name", "value"), [("BSP_MAX_QUEUE_SIZE", "-1"), ("BSP_MAX_EXPORT_BATCH_SIZE", "1000000")])
def test_variables_that_opentelemetry_does_not_take_are_no_reason_not_to_run(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(f"OTEL_{name}", value)
    assert traces("1", lambda: BoundedSession(Tls(), timeout=1)) is None
    assert [record.getMessage() for record in caplog.records if record.name == "reloader"] == ["no traces"]


def test_the_mend_names_the_extra_of_this_distribution():
    assert MEND == "pip install 'config-reloader[otel]'"


def test_a_change_is_a_span_with_one_for_each_stage(start: Start, taking: Collector):
    """With times, attributes and status of their own."""
    start(EXPORTER_OTLP_ENDPOINT=taking.address).take(CHANGE)
    change, (publish, verify) = eventually(lambda: taking.change(7), what="the change")

    about = {"reloader.pipeline": "app", "reloader.generation": 7}
    assert (change.name, attributes(change)) == ("change", {**about, "reloader.outcome": "failed"})
    assert (change.start_time_unix_nano, change.end_time_unix_nano) == (1_700_000_000_500_000_000, 1_700_000_004_500_000_000)
    assert (publish.name, attributes(publish)) == ("publish", {**about, "reloader.outcome": "ok"})
    assert (verify.name, attributes(verify)) == ("verify", {**about, "reloader.outcome": "failed", "error.type": "refused"})
    assert (verify.start_time_unix_nano, verify.end_time_unix_nano) == (1_700_000_001_000_000_000, 1_700_000_004_500_000_000)
    assert {publish.trace_id, verify.trace_id} == {change.trace_id}
    assert [span.status.code for span in (change, publish, verify)] == [2, 0, 2]
    assert not any(span.status.message or span.events for span in (change, publish, verify))


def test_two_changes_are_two_traces(start: Start, taking: Collector):
    running = start(EXPORTER_OTLP_ENDPOINT=taking.address)
    running.take(CHANGE)
    running.take(CHANGE)
    eventually(lambda: len(taking.changes) == 2, what="both")
    assert len({change.trace_id for change, _ in taking.changes}) == 2


def test_the_service_is_named_reloader_unless_the_environment_says_otherwise(start: Start, taking: Collector):
    start(EXPORTER_OTLP_TRACES_ENDPOINT=f"{taking.address}/v1/traces").take(CHANGE)
    eventually(lambda: taking.changes, what="the change")
    assert {"service.name": "reloader", "service.version": "1.2.3"}.items() <= taking.resource.items()

    start(RESOURCE_ATTRIBUTES="service.name=by-attributes,pod=web-1").take(CHANGE)
    eventually(lambda: len(taking.changes) == 2, what="the second")
    assert {"service.name": "by-attributes", "pod": "web-1"}.items() <= taking.resource.items()

    start(SERVICE_NAME="web").take(CHANGE)
    eventually(lambda: len(taking.changes) == 3, what="the third")
    assert taking.resource["service.name"] == "web"


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


def test_a_collector_that_fails_is_told_once_and_so_is_its_return(start: Start, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "reloader")
    with misbehaving(lambda exchange: exchange.answer("no canary", status=500)) as server:
        running = start(EXPORTER_OTLP_ENDPOINT=server.address)
        for number in range(3):
            running.take(CHANGE)
            eventually(lambda number=number: len(server.exchanges) > number, what="another try")
        server.behave = lambda exchange: exchange.answer(b"")
        running.take(CHANGE)
        eventually(lambda: "traces are taken again" in told(caplog), what="its return")
    assert told(caplog) == ["traces are not taken", "traces are taken again"]


def test_nobody_there_costs_the_pipeline_nothing(start: Start, caplog: pytest.LogCaptureFixture):
    """Far more than the queue holds is dropped without a word."""
    running = start(EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}", BSP_MAX_QUEUE_SIZE="10", BSP_MAX_EXPORT_BATCH_SIZE="5")
    for _ in range(200):
        running.take(CHANGE)
    eventually(lambda: told(caplog) == ["traces are not taken"], what="the one line")


def test_what_is_queued_goes_out_at_the_end(start: Start, taking: Collector):
    running = start(EXPORTER_OTLP_ENDPOINT=taking.address, BSP_SCHEDULE_DELAY="3600000")
    running.take(CHANGE)
    running.close()
    running.join(30)
    assert taking.change(7)


def test_a_collector_that_never_answers_does_not_hold_up_the_end(start: Start):
    with misbehaving(hang) as server:
        running = start(EXPORTER_OTLP_ENDPOINT=server.address, EXPORTER_OTLP_TIMEOUT="60")
        running.take(CHANGE)
        eventually(lambda: server.exchanges, what="the request")
        running.close()
        running.join(0.2)
        assert running._closing.is_alive()  # nobody waited for it


def test_a_collector_cannot_send_spans_elsewhere(start: Start, taking: Collector, caplog: pytest.LogCaptureFixture):
    def elsewhere(exchange: Exchange) -> None:
        exchange.answer("", status=307, Location=f"{taking.address}/v1/traces")

    with misbehaving(elsewhere) as server:
        start(EXPORTER_OTLP_ENDPOINT=server.address).take(CHANGE)
        eventually(lambda: told(caplog) == ["traces are not taken"], what="the refusal")
    assert taking.requests == []
