"""The servers as fixtures: one process for each pytest worker and kind, clean for each test; `own_*` for a test that kills or seals it."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import hypothesis
import psutil
import pytest

from tests.scale import SEED, rounds
from tests.servers import UnavailableError, missing, running
from tests.servers.browser import Browser
from tests.servers.certificates import Authority
from tests.servers.consul import Consul
from tests.servers.debian import cache
from tests.servers.haproxy import Haproxy
from tests.servers.nginx import Nginx
from tests.servers.openbao import OpenBao
from tests.servers.podman import Podman
from tests.servers.postgres import Postgres

# No deadline: how long an example takes says nothing on a machine that runs other things too.
hypothesis.settings.register_profile("reloader", deadline=None, max_examples=rounds(100, 2000))
hypothesis.settings.load_profile("reloader")

# Under nohup, or in the background of a shell without job control, they are ignored, and every program that a test starts would be so too.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


MEASURED_ELSEWHERE = ("conformance/", "deploy/", "examples/", "faults/", "pods/", "e2e/test_failure_table.py")
"""Tests that start so many sidecars that half a second for the coverage of each would be minutes; the others run the same lines."""

Closed = TypeVar("Closed")
Proxy = TypeVar("Proxy", Nginx, Haproxy)


def pytest_report_header() -> str:
    """Tell what repeats this run, in each of them: what fails once in a while is found again by it."""
    return f"seed: {SEED} (TEST_SEED)"


@pytest.fixture(autouse=True)
def _processes_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks at processes of its own tells psutil where they are, for the whole process."""
    monkeypatch.setattr(psutil, "PROCFS_PATH", "/proc")


@pytest.fixture(autouse=True)
def _measured_elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if str(request.path.relative_to(Path(__file__).parent)).startswith(MEASURED_ELSEWHERE):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(scope="session")
def _shared_openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with running(lambda: OpenBao(tmp_path_factory.mktemp("openbao"))) as server:
        yield server


@pytest.fixture
def openbao(_shared_openbao: OpenBao) -> Iterator[OpenBao]:
    """A running OpenBao with no mounts but its own; not to be stopped or sealed."""
    yield _shared_openbao
    _shared_openbao.clean()


@pytest.fixture(scope="session")
def _shared_postgres() -> Iterator[Postgres]:
    with running(Postgres) as server:
        yield server


@pytest.fixture
def database(_shared_postgres: Postgres, openbao: OpenBao) -> Postgres:
    """A running PostgreSQL that OpenBao's engine at `database` makes users in."""
    _shared_postgres.clean()
    _shared_postgres.connect(openbao)
    return _shared_postgres


@pytest.fixture
def own_openbao(tmp_path: Path) -> Iterator[OpenBao]:
    """A running OpenBao of this test alone."""
    with running(lambda: OpenBao(tmp_path / "openbao")) as server:
        yield server


@pytest.fixture
def openbao_tls(tmp_path: Path) -> Iterator[OpenBao]:
    """A running OpenBao of this test alone that serves TLS; its `ca_file` is what a client has to trust."""
    with running(lambda: OpenBao(tmp_path / "openbao", Authority(tmp_path / "authority"))) as server:
        yield server


@pytest.fixture(scope="session")
def _shared_consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    with running(lambda: Consul(tmp_path_factory.mktemp("consul"))) as server:
        yield server


@pytest.fixture
def consul_server(_shared_consul: Consul) -> Iterator[Consul]:
    """A running Consul with no keys and no services but its own; not to be stopped."""
    yield _shared_consul
    _shared_consul.clean()


@pytest.fixture
def own_consul(tmp_path: Path) -> Iterator[Consul]:
    """A running Consul of this test alone."""
    with running(lambda: Consul(tmp_path / "consul")) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser without a window; opening an address in it leaves nothing of the one before."""
    with running(Browser) as browser:
        yield browser


@pytest.fixture(scope="session")
def engine() -> Iterator[Podman]:
    """What builds images and runs containers; its containers end with the tests, and without it those that need it are skipped."""
    try:
        podman = Podman(cache() / "podman")
    except UnavailableError as reason:
        pytest.skip(str(reason))
    yield podman
    podman.close()


@pytest.fixture(scope="session")
def base_image(engine: Podman) -> str:
    """The name of a small Debian with Python."""
    return _image(engine.base)


@pytest.fixture(scope="session")
def nginx_image(engine: Podman) -> str:
    """The name of an image with Debian's NGINX."""
    return _image(engine.nginx)


@pytest.fixture(scope="session")
def reloader_image(engine: Podman) -> str:
    """The name of the image that the repository's Dockerfile makes."""
    return _image(engine.reloader)


@pytest.fixture
def closing() -> Iterator[Callable[[Closed], Closed]]:
    """Takes what is to be closed at the end of the test, and returns it."""
    with contextlib.ExitStack() as stack:
        yield lambda made: stack.enter_context(contextlib.closing(made))


@pytest.fixture
def nginx() -> Iterator[Callable[[Path, Path], Nginx]]:
    """Makes an NGINX from its prefix and its configuration file; not started, but stopped at the end of the test."""
    with contextlib.ExitStack() as stops:
        yield lambda prefix, conf: _stopped_by(stops, lambda: Nginx(prefix, conf))


@pytest.fixture
def haproxy() -> Iterator[Callable[[Path, Path], Haproxy]]:
    """Makes a HAProxy from its folder and its configuration file; not started, but stopped at the end of the test."""
    with contextlib.ExitStack() as stops:
        yield lambda folder, conf: _stopped_by(stops, lambda: Haproxy(folder, conf))


def _image(make: Callable[[], str]) -> str:
    try:
        return make()
    except UnavailableError as reason:
        missing(reason)


def _stopped_by(stops: contextlib.ExitStack, make: Callable[[], Proxy]) -> Proxy:
    try:
        proxy = make()
    except UnavailableError as reason:
        missing(reason)
    stops.callback(proxy.stop, kill=True)
    return proxy
