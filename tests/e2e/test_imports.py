"""What a sidecar keeps in memory for good: the libraries that its configuration needs, and none that only validates it."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.app import App
from tests.e2e.sidecar import Sidecar
from tests.targets.started import starter, unique
from tests.waiting import eventually

VALIDATING = {"pydantic", "pydantic_core", "pydantic_settings"}
CLIENTS = {"requests", "urllib3", "hvac", "consul"}
OTHERS = {"jinja2", "yaml", "prometheus_client", "cryptography", "opentelemetry", "asyncio", "http.server", "importlib.metadata", "ssl"}


class Importing(Sidecar):
    """A sidecar that says of every module that it is imported; what it starts says nothing."""

    def __init__(self, folder: Path, *arguments: Path | str) -> None:
        super().__init__(folder, *arguments, program=(sys.executable, "-X", "importtime", "-m", "reloader"))

    def start(self) -> "Importing":
        """Start it without asking for its metrics."""
        command = [*map(str, self._program), "run", *map(str, self._arguments), "--listen", f"127.0.0.1:{self.port}"]
        self._daemon.start(command, ready=lambda: self.get("/healthz").ok)
        return self

    @property
    def imported(self) -> set[str]:
        """Return what was imported until now."""
        return set(re.findall(r"^import time:.*\| +(\S+)$", self.log(), re.MULTILINE))


@pytest.fixture
def importing(tmp_path: Path) -> Iterator[type[Importing]]:
    started: list[Importing] = []

    def start(*arguments: Path | str) -> Importing:
        started.append(Importing(tmp_path / "importing", *arguments))
        return started[-1].start()

    yield start
    for each in started:
        each.stop()


def test_one_that_only_watches_and_signals_needs_no_library_but_those_that_do_it(tmp_path, importing):
    """No templates, no YAML, no HTTP client, nothing of Prometheus; through a change and a reload."""
    app, name = App(tmp_path), unique()
    with starter(tmp_path) as start:
        target = start.target(name)
        running = importing("--watch", app.site.path, "--process", name)
        eventually(running.settled, what="the start")
        app.say("two")
        assert " ".join(target.hear("")) == "signal SIGHUP"
        eventually(running.settled, what="the reload")
    assert {"watchdog", "psutil"} <= running.imported
    assert running.imported.isdisjoint(VALIDATING | CLIENTS | OTHERS)


def test_nothing_that_validates_stays_though_the_configuration_changes(tmp_path, importing):
    """What is refused, what is taken, and what SIGHUP asks for: all of that is loaded elsewhere."""
    app = App(tmp_path)
    running = importing(app.file)
    eventually(running.settled, what="the first set")
    app.write(content="two")
    eventually(lambda: app.published() == "two", what="the change")
    app.write(target="{kind: nothing}")
    eventually(lambda: running.get("/status").json()["configuration"]["mistakes"], what="the refusal")
    assert "jinja2" in running.imported
    assert running.imported.isdisjoint(VALIDATING | CLIENTS | OTHERS - {"jinja2"})


def test_metrics_are_imported_for_the_first_who_asks(tmp_path, importing):
    running = importing(App(tmp_path).file)
    assert "prometheus_client" not in running.imported
    assert running.metric("reloader_build_info") == 1
    assert "prometheus_client" in running.imported


@pytest.mark.parametrize(
    ("kind", "read", "client", "other"), [("vault", "path: secret/app", "hvac", "consul"), ("consul", "key: app", "consul", "hvac")]
)
def test_a_client_is_imported_only_where_it_is_named(tmp_path, importing, kind, read, client, other):
    app = App(tmp_path)
    server = f"{{address: 'http://127.0.0.1:1'{', auth: {token: a}' if kind == 'vault' else ''}}}"
    app.write(reads=f"{{kind: {kind}, {read}}}", content="{{ site }}", **{kind: server})
    running = importing(app.file)
    eventually(lambda: client in running.imported, what="the client")
    eventually(lambda: not running.pipeline()["sources"][0]["up"], what="the first answer")
    assert running.imported.isdisjoint(VALIDATING | {other})
