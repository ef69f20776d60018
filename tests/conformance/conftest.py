"""What these tests are run with: real servers, a relay before them that counts, sidecars and targets that end with the test."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.app import App
from tests.conformance.relay import Relay, relayed
from tests.servers.consul import Consul
from tests.servers.openbao import OpenBao
from tests.targets.started import Starter, starter


@pytest.fixture
def consul(consul_server: Consul) -> Iterator[Relay]:
    """A real Consul, behind a relay."""
    with relayed(consul_server.address) as relay:
        yield relay


@pytest.fixture
def vault(openbao: OpenBao) -> Iterator[Relay]:
    """A real OpenBao with a KV v2 at `secret/`, behind a relay."""
    openbao.enable("kv", "secret", version="2")
    with relayed(openbao.address) as relay:
        yield relay


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Makes an application's configuration; its sidecar, if it is started, ends with the test."""
    with contextlib.ExitStack() as stops:

        def make(**keys: Any) -> App:
            made = App(tmp_path / "app", **keys)
            stops.callback(made.sidecar.stop)
            return made

        yield make
