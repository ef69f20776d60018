"""Startup, readiness and liveness: each means what it says, and none of them kills what would go on by itself."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from reloader.world.processes import TICK
from tests.bad_configs import CANARY
from tests.e2e.app import App, process
from tests.e2e.sidecar import Sidecar
from tests.targets.started import unique
from tests.waiting import eventually

HANGING = Path(__file__).with_name("hanging.py")


class Hanging:
    """A sidecar whose disk and clock a test holds."""

    def __init__(self, folder: Path, app: App) -> None:
        self._control = folder / "control.json"
        self.hung = self._control.with_suffix(".hung")
        self.says()
        self.sidecar = Sidecar(folder / "hanging", app.file, program=(sys.executable, HANGING, self._control))

    def says(self, **what: object) -> None:
        new = self._control.with_suffix(".new")
        new.write_text(json.dumps(what))
        new.rename(self._control)

    def healthz(self) -> tuple[int, str]:
        answer = self.sidecar.get("/healthz")
        return answer.status_code, answer.text


@pytest.fixture
def hanging(tmp_path: Path, app: App) -> Iterator[Hanging]:
    hanging = Hanging(tmp_path, app)
    yield hanging
    hanging.says()
    hanging.sidecar.stop(kill=True)


def codes(running: Sidecar) -> Mapping[str, int]:
    return {path: running.get(path).status_code for path in ("/startupz", "/readyz", "/readyz/app", "/healthz")}


def test_ready_never_waits_for_a_target(app, start, sidecar):
    """The order of a native sidecar: its target is started only once /startupz is 200, and needs no signal then."""
    name = unique()
    app.write(target=process(name))
    running = sidecar(app.file)
    eventually(lambda: running.get("/startupz").ok, what="the start")
    assert set(codes(running).values()) == {200}
    now = time.monotonic()
    eventually(lambda: time.monotonic() > now + 2 * TICK)  # a process that starts in the tick of the publish counts as older
    target = start.target(name)
    eventually(running.settled, what="the target to be verified")
    assert running.metric("reloader_reloads_total") == 0
    assert target.end() == []


def test_nothing_good_is_not_started_and_alive_all_the_same(app, sidecar):
    app.write(reads="{kind: files, path: /nowhere}")
    running = sidecar(app.file)
    eventually(lambda: running.pipeline()["sources"], what="a report")
    assert codes(running) == {"/startupz": 503, "/readyz": 503, "/readyz/app": 503, "/healthz": 200}


def test_the_start_is_kept_when_readiness_goes(app, sidecar):
    """What was closed later has started all the same."""
    app.write(failure="{mode: closed, max_staleness: 1s}")
    running = sidecar(app.file)
    eventually(running.ready, what="readiness")
    app.site.path.rename(app.site.path.with_suffix(".gone"))
    eventually(lambda: not running.ready(), what="the end of readiness")
    assert codes(running) == {"/startupz": 200, "/readyz": 503, "/readyz/app": 503, "/healthz": 200}


def test_a_source_that_hangs_is_no_death(app, sidecar):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        app.write(consul=f"{{address: '{address}'}}", reads="{kind: consul, key: a}", content="{{ site }}")
        running = sidecar(app.file)
        silent.accept()[0].close()
        assert codes(running) == {"/startupz": 503, "/readyz": 503, "/readyz/app": 503, "/healthz": 200}


def test_a_check_that_hangs_is_no_death_within_its_time(app, sidecar, tmp_path):
    pid_file = tmp_path / "pid"
    check = json.dumps(["sh", "-c", f"echo $$ > {pid_file}; exec sleep 60"])
    app.write(volume=f"{{path: {app.live}, files: {{app.conf: {{content: x}}}}, check: {{command: {check}, timeout: 50s}}}}")
    running = sidecar(app.file)
    eventually(pid_file.read_text, what="the check")
    assert running.get("/healthz").ok


def test_a_volume_that_hangs_is_a_death_after_its_limit(app, hanging):
    """And no longer once it goes on."""
    hanging.sidecar.start()
    eventually(hanging.sidecar.ready, what="readiness")
    hanging.says(hangs=str(app.live))
    app.say("two")
    eventually(hanging.hung.exists, what="a call that hangs")  # before the clock jumps, so that its cycle is late by then
    assert hanging.healthz()[0] == 200
    hanging.says(hangs=str(app.live), later=1000)
    eventually(lambda: hanging.healthz() == (503, "not ok\nthread pipeline app is stuck\n"), what="the stuck thread", within=60)
    hanging.says(later=1000)
    eventually(lambda: app.published() == "two", what="the volume")
    eventually(lambda: hanging.healthz()[0] == 200, what="life")


def test_a_thread_that_died_is_a_death(app, hanging):
    hanging.sidecar.start()
    eventually(hanging.sidecar.ready, what="readiness")
    hanging.says(dies=str(app.live))
    app.say("two")
    eventually(lambda: hanging.healthz() == (503, "not ok\nthread pipeline app is stuck\n"), what="the dead thread")


def test_a_mistake_of_ours_is_told_by_its_line_and_no_value(app, hanging):
    """It ends nothing, and passes by itself."""
    hanging.sidecar.start()
    eventually(hanging.sidecar.ready, what="readiness")
    hanging.says(breaks=str(app.live))
    app.say("two")
    eventually(lambda: "internal error: KeyError in " in hanging.sidecar.log(), what="the mistake")
    assert CANARY not in hanging.sidecar.log()
    assert hanging.healthz()[0] == 200
    hanging.says()
    eventually(lambda: app.published() == "two", what="the change")


def test_a_machine_that_was_suspended_for_hours_kills_nobody(hanging):
    """No thread had its time yet when it wakes up; none is late for that."""
    hanging.sidecar.start()
    eventually(hanging.sidecar.ready, what="readiness")
    hanging.says(later=10_000, slept=10_000)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert hanging.healthz()[0] == 200
    assert hanging.sidecar.ready()


def test_a_process_that_was_stopped_is_alive_as_soon_as_it_goes_on(app, sidecar):
    running = sidecar(app.file)
    eventually(running.ready, what="readiness")
    os.kill(running.pid, signal.SIGSTOP)
    app.say("two")
    os.kill(running.pid, signal.SIGCONT)
    assert running.get("/healthz").ok
    eventually(lambda: app.published() == "two", what="the change")


# The end of a Pod


@pytest.mark.parametrize("first", ["target", "sidecar"])
def test_the_end_of_a_pod_raises_no_alarm(app, start, sidecar, first):
    """Both are asked to end, in either order: no line that warns, nothing counted that alerts, status 0."""
    name = unique()
    target = start.target(name)
    app.write(target=process(name))
    running = sidecar(app.file)
    eventually(running.settled, what="the reload")
    if first == "target":
        target.end()
        eventually(lambda: running.pipeline()["target"]["trouble"] == "absent", what="its end")
        known = running.pipeline()
        assert (known["degraded"], known["closed"], known["ready"]) == (False, False, True)
        for metric in ("reloader_reloads_failed_total", "reloader_signal_failures_total", "reloader_refusals_total"):
            assert running.metric(metric) == 0
    os.kill(running.pid, signal.SIGTERM)
    target.kill()
    eventually(lambda: not running.running, what="its end")
    assert running.status == 0
    assert [line for line in running.lines() if line.get("level") not in ("debug", "info")] == []
