"""A real Prometheus that scrapes what a test runs and evaluates rules, and its `promtool`."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from tests.servers.daemon import Daemon
from tests.servers.debian import program
from tests.servers.ports import free_port

INTERVAL = "250ms"
"""How often it scrapes, and evaluates rules."""


def promtool(*arguments: str | Path, text: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `promtool` to its end.

    Raises:
        UnavailableError: it cannot be had on this machine.

    """
    tool = program("promtool", "prometheus")
    command = [str(tool.path), *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=tool.env)


class Prometheus:
    """Prometheus with its data below `folder`; `jobs` names the local ports to scrape, by instance."""

    def __init__(self, folder: Path, jobs: Mapping[str, int], rules: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._program = program("prometheus", "prometheus")
        self._folder = folder
        self._daemon = Daemon(folder / "prometheus.log", death_signal="TERM")
        self._port = free_port()
        self._session = requests.Session()
        self._session.trust_env = False
        (folder / "rules.yaml").write_text(rules)
        (folder / "prometheus.yaml").write_text(json.dumps(_configuration(jobs)))  # JSON is YAML

    def start(self) -> None:
        """Start it and return when it answers."""
        options = {
            "config.file": self._folder / "prometheus.yaml",
            "storage.tsdb.path": self._folder / "data",
            "web.listen-address": f"127.0.0.1:{self._port}",
        }
        command = [str(self._program.path), *(f"--{name}={value}" for name, value in options.items())]
        self._daemon.start(command, env=self._program.env, ready=lambda: self._get("/-/ready").ok)

    def stop(self, *, kill: bool = False) -> None:
        """End it."""
        self._daemon.stop(kill=kill)
        self._session.close()

    def firing(self) -> dict[tuple[str, str], dict[str, str]]:
        """Return what fires now: by the alert's name and its pipeline (empty where it has none), what it tells a person."""
        alerts = [each for each in self.api("alerts")["alerts"] if each["state"] == "firing"]
        return {(each["labels"]["alertname"], each["labels"].get("pipeline", "")): each["annotations"] for each in alerts}

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples that an expression gives now."""
        return list(self.api("query", query=expression)["result"])

    def metadata(self) -> dict[str, Any]:
        """Return what it learned of each metric."""
        return {name: told[0] for name, told in self.api("metadata").items()}

    def api(self, path: str, **parameters: str) -> dict[str, Any]:
        """Return the data of an answer."""
        answer = self._get(f"/api/v1/{path}", **parameters)
        answer.raise_for_status()
        return dict(answer.json()["data"])

    def _get(self, path: str, **parameters: str) -> requests.Response:
        return self._session.get(f"http://127.0.0.1:{self._port}{path}", params=parameters, timeout=10)


def _configuration(jobs: Mapping[str, int]) -> dict[str, Any]:
    targets = [{"targets": [f"127.0.0.1:{port}"], "labels": {"instance": instance}} for instance, port in jobs.items()]
    return {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "reloader", "static_configs": targets}],
    }
