"""What a whole sidecar says of its changes: log lines, events, the last change, traces."""

import base64
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.app import App
from tests.e2e.sidecar import PROGRAM, Sidecar, reloader
from tests.servers.collector import Collector, attributes, collector
from tests.servers.misbehaving import hang, misbehaving
from tests.waiting import eventually

CANARY, NEXT = "canary-first-7d1c", "canary-second-90aa"
FORMS = [form for text in (CANARY, NEXT) for form in (text, base64.b64encode(text.encode()).decode()[:-3])]
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@pytest.fixture
def taking() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture
def app(tmp_path: Path) -> App:
    """A file with a secret in it, checked, and taken by a command that says no to what is bad."""
    app = App(tmp_path)
    (tmp_path / "secret").mkdir()
    keep(app, CANARY)
    app.write(
        sources=f"{{site: {{kind: files, path: {app.site.path}}}, db: {{kind: files, path: {tmp_path}/secret/password}}}}",
        volume=f"""
  path: {app.live}
  files: {{app.conf: {{content: "{{{{ site['text'] }}}}\\npassword={{{{ db }}}}\\nencoded={{{{ db | b64encode }}}}\\n"}}}}
  check: {{command: [sh, -c, '! grep unfit "$0"/app.conf', "{{staged}}"]}}""",
        target=f"{{kind: command, command: [sh, -c, 'cat {app.live}/app.conf; ! grep -q bad {app.live}/app.conf']}}",
    )
    return app


def keep(app: App, text: str) -> None:
    """Put a secret where the sidecar reads it."""
    path = app.file.parent / "secret/password"
    fresh = path.with_name(".fresh")
    fresh.write_text(text)
    fresh.chmod(0o600)
    fresh.rename(path)


def stages(running: Sidecar, generation: int) -> list[tuple[str, str]]:
    """Return what the log says of a generation."""
    lines = (line for line in running.lines() if line.get("generation") == generation and line.get("level") != "debug")
    return [(line["message"], line.get("outcome", "")) for line in lines]


@pytest.mark.timeout(180)
def test_a_change_is_seen_alike_in_the_log_the_status_and_the_trace_and_its_secret_nowhere(app, sidecar, taking):
    running = sidecar(app.file, OTEL_EXPORTER_OTLP_ENDPOINT=taking.address, OTEL_SERVICE_NAME="web-sidecar", **SOON)
    eventually(lambda: taking.change(1), what="the trace of the first set")
    keep(app, NEXT)
    eventually(lambda: taking.change(2), what="the trace of the second set")

    change, spans = taking.change(2)
    assert [span.name for span in spans] == ["render", "stage", "check", "publish", "reload", "verify"]
    assert stages(running, 2) == [(name, "ok") for name in ("check", "publish", "reload", "verify")]
    assert attributes(change) == {"reloader.pipeline": "app", "reloader.generation": 2, "reloader.outcome": "ok"}
    assert change.start_time_unix_nano <= spans[0].start_time_unix_nano
    assert spans[-1].end_time_unix_nano <= change.end_time_unix_nano
    assert taking.resource["service.name"] == "web-sidecar"

    seen = running.pipeline()
    assert [(event["stage"], event["generation"]) for event in seen["events"][:4]] == [
        (name, 2) for name in ("verify", "reload", "publish", "check")
    ]
    assert seen["change"]["generation"] == 2
    assert "+password=********\n+encoded=********\n" in seen["change"]["diff"]

    app.say("unfit")
    eventually(lambda: taking.change(3), what="the trace of a set that the check refused")
    app.say("bad")
    refused = eventually(
        lambda: next((each for each in taking.changes if "rollback" in [span.name for span in each[1]]), None), what="the way back"
    )
    assert attributes(refused[0])["reloader.outcome"] == "failed"
    assert refused[0].status.code == 2
    nothing_leaked(running, taking)


def nothing_leaked(running: Sidecar, taking: Collector) -> None:
    running.stop()
    places = {"log": running.log(), "traces": "".join(str(request) for request in taking.requests)}
    assert "password" not in places["traces"]
    assert [(place, form) for place, text in places.items() for form in FORMS if form in text] == []


def test_a_look_that_changes_nothing_is_no_trace(app, sidecar, taking):
    running = sidecar(app.file, OTEL_EXPORTER_OTLP_ENDPOINT=taking.address, **SOON)
    eventually(lambda: taking.change(1), what="the first trace")
    looks = len([line for line in running.lines() if line["message"] == "render"])
    os.kill(running.pid, signal.SIGHUP)
    eventually(lambda: len([line for line in running.lines() if line["message"] == "render"]) > looks, what="another look")
    keep(app, NEXT)
    eventually(lambda: taking.change(2), what="the second trace")
    assert len(taking.changes) == 2


def test_what_is_queued_goes_out_at_the_end(app, sidecar, taking):
    running = sidecar(app.file, OTEL_EXPORTER_OTLP_ENDPOINT=taking.address, OTEL_BSP_SCHEDULE_DELAY="3600000")
    eventually(running.settled, what="the first set")
    assert taking.requests == []
    running.stop()
    assert taking.change(1)


def test_a_collector_that_never_answers_does_not_hold_up_the_end(app, sidecar):
    with misbehaving(hang) as server:
        running = sidecar(app.file, OTEL_EXPORTER_OTLP_ENDPOINT=server.address, **SOON)
        eventually(lambda: server.exchanges, what="a request")
        os.kill(running.pid, signal.SIGTERM)
        eventually(lambda: not running.running, what="the end", within=20)
    assert running.status == 0


def imports(folder: Path, app: App, **env: str) -> str:
    """Return what a sidecar imported until its first set was confirmed."""
    program = (sys.executable, "-X", "importtime", *PROGRAM[1:])
    running = Sidecar(folder, app.file, env=env, program=program).start()
    try:
        eventually(running.settled, what="the first set")
    finally:
        running.stop()
    return running.log()


def test_nothing_of_opentelemetry_is_imported_unless_it_is_asked_for(app, tmp_path, taking):
    assert "opentelemetry" not in imports(tmp_path / "without", app)
    disabled = {"OTEL_EXPORTER_OTLP_ENDPOINT": taking.address, "OTEL_SDK_DISABLED": "true"}
    assert "opentelemetry" not in imports(tmp_path / "disabled", app, **disabled)
    imported = imports(tmp_path / "with", app, OTEL_EXPORTER_OTLP_ENDPOINT=taking.address)
    assert "opentelemetry.sdk.trace" in imported
    assert "grpc" not in imported


def test_without_the_extra_one_line_names_the_mend_and_all_else_works(app, sidecar, tmp_path, taking):
    """A package of the same name without the SDK in it is found first, as if no more were installed."""
    (tmp_path / "bare/opentelemetry").mkdir(parents=True)
    (tmp_path / "bare/opentelemetry/__init__.py").touch()
    running = sidecar(app.file, OTEL_EXPORTER_OTLP_ENDPOINT=taking.address, PYTHONPATH=f"{tmp_path}/bare:{Path.cwd()}")
    eventually(running.settled, what="the first set")
    [line] = [line for line in running.lines() if line["message"] == "no traces"]
    assert line["level"] == "warning"
    assert "pip install 'config-reloader[otel]'" in line["reason"]
    keep(app, NEXT)
    eventually(lambda: NEXT in app.published(), what="the next set")


def test_a_repeated_failure_is_counted_and_its_end_says_how_often(app, sidecar):
    """A check that cannot be run, until somebody puts it there."""
    program = app.file.with_name("check.sh")
    app.write(volume=f"{{path: {app.live}, files: {{app.conf: {{content: x}}}}, check: {{command: [{program}]}}}}")
    running = sidecar(app.file)
    failing = eventually(lambda: [event for event in running.pipeline()["events"] if event["times"] > 1], what="a failure that repeats")
    assert [event["outcome"] for event in failing] == ["failed"]
    program.with_suffix(".fresh").write_text("#!/bin/sh\n")
    program.with_suffix(".fresh").chmod(0o755)
    program.with_suffix(".fresh").rename(program)
    eventually(running.settled, what="the first set")
    told = [line for line in running.lines() if line["message"] == "check"]
    assert [line["outcome"] for line in told if line.get("times", 1) == 1] == ["failed", "ok"]
    assert told[-1]["failures"] >= failing[0]["times"]


# The formats, as they are on a terminal and off it


def test_logfmt_has_the_same_fields(app):
    said = reloader("once", app.file, "--log-format", "logfmt").stderr
    [line] = [line for line in said.splitlines() if "message=publish" in line]
    assert re.fullmatch(r"time=\S+ level=info message=publish pipeline=app generation=1 outcome=ok duration_ms=[\d.]+", line)


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_person_at_a_terminal_gets_columns(app, env, coloured):
    master, slave = pty.openpty()
    command = [*map(str, PROGRAM), "once", str(app.file)]
    with subprocess.Popen(command, stderr=slave, env={**os.environ, "TERM": "xterm", "NO_COLOR": "", **env}) as running:
        os.close(slave)
        said = b""
        while part := _read(master):
            said += part
    os.close(master)
    assert running.returncode == 0
    shown = said.decode()
    assert ("\x1b[" in shown) == coloured
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} +publish +app +#1 ok +\d+ ms\r$", re.sub(r"\x1b\[\d*m", "", shown), re.MULTILINE)


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # Linux says so when the other side is closed
        return b""
