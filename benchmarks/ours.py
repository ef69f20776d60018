"""This program as a contender."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from benchmarks.bench import Bench
from tests.servers.daemon import Daemon
from tests.servers.ports import free_port
from tests.waiting import eventually

ENVIRONMENT = {"RELOADER_TIMING__MIN_INTERVAL": "0s"}
"""What a run differs in from the defaults: a reload may follow the one before at once, since how long one takes is the question."""


class Sidecar:
    """A running `reloader run` with its endpoints on a free port."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        self._daemon = daemon
        self._status = f"http://127.0.0.1:{port}/status"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._daemon.pid

    def settle(self) -> None:
        """Return when everything that came in is published and confirmed."""
        eventually(self._settled, within=30, what="nothing owed")

    def _settled(self) -> bool:
        with build_opener(ProxyHandler({})).open(self._status, timeout=5) as answer:
            document: dict[str, Any] = json.load(answer)
        numbers = [pipeline["generations"] for pipeline in document["pipelines"]]
        return all(each["desired"] == each["published"] == each["confirmed"] > 0 for each in numbers)


@contextmanager
def reloader(bench: Bench, folder: Path, *arguments: str | Path) -> Iterator[Sidecar]:
    """Run `reloader run` with these arguments."""
    port = free_port()
    command = [sys.executable, "-m", "reloader", "run", *arguments, "--listen", f"127.0.0.1:{port}"]
    with bench.running(command, folder, ENVIRONMENT) as daemon:
        yield Sidecar(daemon, port)


def configured(folder: Path, *lines: str) -> Path:
    """Write `reloader.yaml`, and return it."""
    configuration = folder / "reloader.yaml"
    configuration.write_text("\n".join([*lines, ""]))
    return configuration
