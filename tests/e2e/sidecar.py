"""The product itself, as users run it: `reloader run FILE` in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.daemon import Daemon
from tests.servers.ports import free_port

PROGRAM: Sequence[str | Path] = (sys.executable, "-m", "reloader")


def reloader(*arguments: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [*map(str, PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}, check=False)


class Sidecar:
    """A running `reloader run` with its endpoints on a free port; `arguments` are its files, or its options.

    `program` is what takes the place of `reloader`, for a sidecar in a world of its own.
    """

    def __init__(
        self, folder: Path, *arguments: Path | str, env: Mapping[str, str] | None = None, program: Sequence[str | Path] = PROGRAM
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._program = program
        self._arguments = arguments
        self._env = env
        self.port = free_port()
        self._daemon = Daemon(folder / "reloader.log", death_signal="TERM")
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        return self._daemon.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._daemon.running

    @property
    def status(self) -> int | None:
        """The exit status once it left by itself; None while it runs."""
        return self._daemon.status

    def start(self) -> "Sidecar":
        """Start it and return when its endpoints answer."""
        command = [*map(str, self._program), "run", *map(str, self._arguments)]
        command += ["--listen", f"127.0.0.1:{self.port}", "--log-format", "json", "--log-level", "debug"]
        self._daemon.start(command, env=self._env, ready=lambda: self.get("/metrics").ok)
        return self

    def stop(self, *, kill: bool = False) -> None:
        """End it by SIGTERM, or SIGKILL."""
        self._daemon.stop(kill=kill)

    def get(self, path: str) -> requests.Response:
        """Ask one of the endpoints."""
        return self._session.get(f"http://127.0.0.1:{self.port}{path}", timeout=10)

    def ready(self) -> bool:
        """Return what /readyz says."""
        return self.get("/readyz").status_code == 200

    def pipeline(self, name: str | None = None) -> dict[str, Any]:
        """Return what /status says of a pipeline, the only one unless named."""
        pipelines = self.get("/status").json()["pipelines"]
        return next(each for each in pipelines if name in (None, each["name"]))

    def settled(self, name: str | None = None) -> bool:
        """Return whether everything that came in is published and confirmed."""
        numbers = self.pipeline(name)["generations"]
        return numbers["desired"] == numbers["published"] == numbers["confirmed"] > 0

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of one sample; 0 if there is none."""
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    def lines(self) -> list[dict[str, Any]]:
        """Return the log lines so far; what is no JSON is a line of its own kind."""
        return [_parsed(line) for line in self._daemon.log.read_text(errors="replace").splitlines()]

    def log(self) -> str:
        """Return the log as text."""
        return self._daemon.log.read_text(errors="replace")


def _parsed(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:
        return {"message": line}
