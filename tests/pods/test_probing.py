"""What runs the probes of the Pods here: that it says no, and asks for a restart, when a kubelet would."""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.pods.network import Answer
from tests.pods.probing import Probe, Prober, Verdict
from tests.waiting import eventually

QUICK = {"periodSeconds": 0.02}


def container(**probes: Any) -> dict[str, Any]:
    asked = {name: {"httpGet": {"path": f"/{name}", "port": "own"}, **written} for name, written in probes.items()}
    return {"name": "app", "ports": [{"name": "own", "containerPort": 9533}], **asked}


@dataclass
class Application:
    """A process, and what it answers to each path."""

    answers: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    starts: int = 0

    def ask(self, port: int, path: str, _: float) -> Answer:
        assert port == 9533
        self.asked.append(path)
        if path not in self.answers:
            raise ConnectionRefusedError
        return Answer(self.answers[path], "")

    def start(self) -> None:
        self.stop()
        self._child: subprocess.Popen[bytes] | None = subprocess.Popen(["sleep", "600"])
        self.starts += 1

    def process(self) -> int | None:
        return self._child.pid if self._child else None

    def stop(self) -> None:
        if self.starts and self._child:
            self._child.kill()
            self._child.wait()
            self._child = None


@pytest.fixture
def application() -> Iterator[Application]:
    application = Application()
    application.start()
    yield application
    application.stop()


@pytest.fixture
def watched(application: Application) -> Iterator[Prober]:
    """One whose startup takes four failures, and whose liveness takes two."""
    every = container(startupProbe={**QUICK, "failureThreshold": 5}, readinessProbe=QUICK, livenessProbe={**QUICK, "failureThreshold": 2})
    prober = Prober(every, application.ask, application.process, application.start)
    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(prober.watch)
        yield prober
        prober.closing.set()
        watching.result()


def test_what_is_not_written_is_what_kubernetes_takes():
    probe = Probe.of(container(readinessProbe={}), "readinessProbe")
    assert probe == Probe(port=9533, path="/readinessProbe", delay=0, period=10, timeout=1, failures=3, successes=1)
    assert Probe.of(container(), "livenessProbe") is None


def test_it_changes_its_mind_after_enough_answers_in_a_row(application: Application):
    probe = Probe.of(container(readinessProbe={"periodSeconds": 0}), "readinessProbe")
    verdict, held = Verdict(probe, holds=False, begins=0), []
    for status in (200, 500, 500, 204, 503, 404, 400, 399):
        application.answers["/readinessProbe"] = status
        verdict.take(application.ask)
        held.append(verdict.holds)
    assert held == [True, True, True, True, True, True, False, True]


def test_nothing_else_is_asked_before_the_start(application: Application, watched: Prober):
    eventually(lambda: len(application.asked) >= 3)
    assert (set(application.asked), watched.started, watched.ready) == ({"/startupProbe"}, False, False)


def test_what_does_not_start_is_restarted(application: Application, watched: Prober):
    eventually(lambda: application.starts == 2)
    assert (watched.restarts[0], len(application.asked) >= 5) == ("startupProbe", True)


def test_what_is_not_alive_is_restarted_and_begins_anew(application: Application, watched: Prober):
    application.answers |= {"/startupProbe": 200, "/readinessProbe": 200, "/livenessProbe": 200}
    eventually(lambda: watched.ready)
    del application.answers["/readinessProbe"]
    eventually(lambda: not watched.ready)
    assert (watched.restarts, watched.started) == ([], True)
    application.answers.pop("/startupProbe")
    application.answers["/livenessProbe"] = 500
    eventually(lambda: watched.restarts[:1] == ["livenessProbe"])
    eventually(lambda: not watched.started)


def test_what_ended_is_neither_started_nor_ready(application: Application, watched: Prober):
    application.answers |= {"/startupProbe": 200, "/readinessProbe": 200, "/livenessProbe": 200}
    eventually(lambda: watched.ready)
    application.stop()
    eventually(lambda: not (watched.started or watched.ready))
    application.start()
    eventually(lambda: watched.ready)
