"""Clients of the endpoints that are slow, silent or never read, as many as want to, against the product as it runs."""

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.sidecar import Sidecar
from tests.scale import rounds
from tests.waiting import eventually

EACH = 200
"""Clients of a kind."""
PROBES = rounds(20, 200)


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "app.conf").write_text("hello")
    file = tmp_path / "app.yaml"
    file.write_text(f"sources: {{site: {{kind: files, path: {tmp_path / 'site'}}}}}\ntarget: {{kind: none}}\n")
    running = Sidecar(tmp_path, file).start()
    yield running
    running.stop()


class Drip:
    """Sends a byte now and then on every connection, until it is closed."""

    def __init__(self, connections: list[socket.socket]) -> None:
        self._connections = connections
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.5):
            for connection in self._connections:
                try:
                    connection.send(b"G")
                except OSError:
                    continue  # cut

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def connected(port: int, saying: bytes, window: int = 0) -> socket.socket:
    connection = socket.socket()
    if window:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", port))
    connection.sendall(saying)
    connection.setblocking(False)
    return connection


def tasks(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def cut(connection: socket.socket) -> bool:
    """Return whether the server has ended it; what it sent before stays unread."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        if not selector.select(0):
            return False
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except ConnectionError:
        return True


def test_slow_and_silent_clients_change_nothing_for_healthz_and_leave_no_thread(
    sidecar: Sidecar, closing: Callable[[Drip], Drip], request: pytest.FixtureRequest
):
    eventually(sidecar.ready, what="readiness")
    before, descriptors = tasks(sidecar.pid), Path(f"/proc/{sidecar.pid}/fd")
    silent = [connected(sidecar.port, b"") for _ in range(EACH)]
    dripping = [connected(sidecar.port, b"GET /metrics HTTP/1.1\r\nX-") for _ in range(EACH)]
    closing(Drip(dripping))
    deaf = [connected(sidecar.port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", window=2048) for _ in range(EACH)]
    request.addfinalizer(lambda: [each.close() for each in (*silent, *dripping, *deaf)])

    for _ in range(PROBES):
        assert sidecar.get("/healthz").text == "ok\n"
        assert tasks(sidecar.pid) < before + EACH / 10  # it has threads of its own that come and go; none is for a client
    eventually(lambda: all(map(cut, (*silent, *dripping))), what="the end of who says nothing whole")
    eventually(lambda: _sockets(descriptors) <= 2, what="the end of all connections")
    eventually(lambda: tasks(sidecar.pid) <= before, what="no thread that was not there before")
    assert sidecar.running


def _sockets(descriptors: Path) -> int:
    """Return how many sockets the process has; the listening one is there always, and one of a test that asks may be."""
    return sum(each.readlink().name.startswith("socket:") for each in descriptors.iterdir())
