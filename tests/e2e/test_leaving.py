"""SIGTERM gets through whatever is in hand: it leaves with status 0 at once, and what is owed is delivered by the next run."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.e2e.app import App, Starts, process, starting
from tests.e2e.sidecar import Sidecar
from tests.targets.started import Started, Starter, starter, unique
from tests.waiting import eventually

WITHIN = 15.0
"""Seconds; 5 are promised; with a machine that is busy, and a thread that takes all of the interpreter, it is more."""
HANGING = Path(__file__).with_name("hanging.py")


@dataclass
class Scene:
    """A sidecar with its pipeline and its target."""

    folder: Path
    app: App
    start: Starter
    starts: Starts
    name: str = field(default_factory=unique)
    running: Sidecar | None = None

    def target(self, *options: str) -> Started:
        return self.start.target(self.name, *options, expect="workers" if "--workers" in options else "up")

    def run(self, **changes: str) -> Sidecar:
        self.app.write(**{"target": process(self.name)} | changes)
        self.running = self.starts(self.app.file)
        return self.running


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with starter(tmp_path) as start, starting(tmp_path) as starts:
        yield Scene(tmp_path, App(tmp_path), start, starts)


def leave(running: Sidecar, number: int = signal.SIGTERM) -> None:
    """Ask it to end, and expect it to, with status 0."""
    began = time.monotonic()
    os.kill(running.pid, number)
    eventually(lambda: not running.running, within=20, what="its end")
    assert running.status == 0
    assert time.monotonic() - began < WITHIN


def splaying(scene: Scene) -> None:
    """The random delay before a reload."""
    scene.target()
    running = scene.run(timing="{splay: 1h}")
    eventually(lambda: running.pipeline()["owed"], what="the delay")


def settling(scene: Scene) -> None:
    """A change that comes in pieces."""
    scene.target()
    folder = scene.folder / "plain"
    folder.mkdir()
    (folder / "text").write_text("one")
    running = scene.run(reads=f"{{kind: files, path: {folder}}}", timing="{settle: 1h, settle_max: 1h}")
    eventually(lambda: running.pipeline()["sources"][0]["up"], what="the reading")


def between_reloads(scene: Scene) -> None:
    """The least time between two reloads."""
    scene.target()
    running = scene.run(timing="{min_interval: 1h}")
    eventually(running.settled, what="the first reload")
    scene.app.say("two")
    eventually(lambda: running.pipeline()["generations"]["desired"] == 2, what="the change")


def verifying(scene: Scene) -> None:
    """A verification that takes its time."""
    scene.target("--workers", "2", "--refuse")
    running = scene.run(target=process(scene.name, verify="{workers: true, within: 1h}"))
    eventually(lambda: running.pipeline()["owed"] == "owed: being verified", what="the verification")


def probing(scene: Scene) -> None:
    """A command that proves nothing yet."""
    scene.target()
    pid = scene.folder / "pid"
    command = json.dumps(["sh", "-c", f"echo $$ > {pid}; exec sleep 1000"])
    scene.run(target=process(scene.name, verify=f"{{command: {command}, within: 1h}}"))
    eventually(pid.read_text, what="the command")


def checking(scene: Scene) -> None:
    """A check that runs."""
    scene.target()
    pid = scene.folder / "pid"
    command = json.dumps(["sh", "-c", f"echo $$ > {pid}; exec sleep 1000"])
    scene.run(volume=f"{{path: {scene.app.live}, files: {{app.conf: {{content: x}}}}, check: {{command: {command}, timeout: 1h}}}}")
    eventually(pid.read_text, what="the check")


def rendering(scene: Scene) -> None:
    """A template that takes minutes."""
    scene.target()
    content = "{% for a in range(90000) %}{% for b in range(90000) %}{% if a == b %}x{% endif %}{% endfor %}{% endfor %}"
    running = scene.run(content=content, failure="{startup_grace: 1s}")
    eventually(lambda: psutil.Process(running.pid).cpu_times().user > 1.5, what="the render")


def reading(scene: Scene) -> None:
    """Servers that never answer."""
    scene.target()
    silent = [scene.start.stops.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
    consul, vault = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in silent)
    sources = "{a: {kind: consul, key: a}, b: {kind: vault, path: secret/b}}"
    servers = {"consul": f"{{address: '{consul}'}}", "vault": f"{{address: '{vault}', auth: {{token: t}}}}"}
    scene.run(**servers, sources=sources, content="{{ a }}{{ b }}")
    for each in silent:
        each.settimeout(30)
        each.accept()


STATES: list[Callable[[Scene], None]] = [splaying, settling, between_reloads, verifying, probing, checking, rendering, reading]
DELIVERED = (splaying, settling, between_reloads, verifying, probing, checking)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_it_leaves_from_whatever_is_in_hand(scene, state):
    """And the next run, which has nothing in its way, delivers what is owed."""
    state(scene)
    children = psutil.Process(scene.running.pid).children()
    leave(scene.running)
    eventually(lambda: not any(child.is_running() for child in children), what="the end of its commands")
    if state in DELIVERED:
        scene.app.say("delivered")
        again = scene.run()
        eventually(lambda: scene.app.published() == "delivered" and again.settled(), what="what was owed")


def test_a_disk_that_hangs_is_left_alone(scene, tmp_path):
    control = tmp_path / "control.json"
    control.write_text("{}")
    running = Sidecar(tmp_path / "hanging", scene.app.file, program=(sys.executable, HANGING, control))
    scene.starts.started.append(running)
    running.start()
    eventually(running.ready, what="readiness")
    control.write_text(json.dumps({"hangs": str(scene.app.live)}))
    scene.app.say("two")
    eventually(control.with_suffix(".hung").exists, what="a call that hangs")
    leave(running)
    control.write_text("{}")
    running.start()
    eventually(lambda: scene.app.published() == "two", what="what was owed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_by_either_signal_however_often(scene, number):
    running = scene.run()
    eventually(running.ready, what="readiness")
    for _ in range(3):
        os.kill(running.pid, number)
    leave(running, number)


def test_it_leaves_amid_a_storm_of_sighups(scene):
    running = scene.run()
    eventually(running.ready, what="readiness")
    for _ in range(500):
        os.kill(running.pid, signal.SIGHUP)
    leave(running)


def test_it_leaves_while_its_own_configuration_changes(scene):
    running = scene.run()
    eventually(running.ready, what="readiness")
    for number in range(20):
        scene.app.write(content=f"{number}")
    leave(running)


def test_it_leaves_before_its_first_cycle(tmp_path):
    """As soon as it can be asked: while it loads, it takes note."""
    app = App(tmp_path)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(30):
        each = App(tmp_path, f"app{number}")
        each.file.rename(folder / each.file.name)
    assert app.file.exists()
    with starting(tmp_path) as starts:
        running = Sidecar(tmp_path / "early", folder)
        starts.started.append(running)
        running._daemon.start([*map(str, running._program), "run", str(folder), "--listen", "off"], ready=lambda: caught(running.pid))
        leave(running)


def caught(pid: int) -> bool:
    """Return whether the process has a handler for SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(mask & 1 << (signal.SIGTERM - 1))
