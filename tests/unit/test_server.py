"""The endpoints over real sockets."""

import contextlib
import errno
import http.client
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus

import pytest

from reloader.plan import Server as Plan
from reloader.server import Endpoints, Server, connections
from reloader.server.connections import CONNECTIONS, UNTAKEN, Connections
from reloader.server.message import LARGEST_HEAD, LONGEST_LINE, MOST_HEADERS, Answer
from reloader.status import Metrics, PipelineReport, Status
from reloader.world.clock import Clock
from tests.waiting import eventually

GOOD = PipelineReport(name="web", mode="open", ready=True, started=True, degraded=False, reasons=())


@pytest.fixture
def status():
    status = Status(Clock())
    status.put(GOOD)
    return status


@pytest.fixture
def server(status):
    server = Server(Plan(listen="127.0.0.1:0"), Endpoints(status, Metrics(status, "1.2.3"), "loopback"))
    server.start()
    yield server
    server.close()


def ask(server: Server, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_probes_say_ok(server):
    for path in ("/startupz", "/readyz", "/readyz/web", "/healthz"):
        assert ask(server, path) == (200, "ok\n")


def test_a_pipeline_that_is_not_ready_makes_the_process_not_ready(server, status):
    status.put(replace(GOOD, name="other", ready=False, reasons=("nothing is published yet",)))

    assert ask(server, "/readyz") == (503, "not ok\nother: nothing is published yet\n")
    assert ask(server, "/readyz/web")[0] == 200
    assert ask(server, "/readyz/other")[0] == 503


def test_having_started_is_kept(server, status):
    """A startup probe latches: what fails later is readiness."""
    status.put(replace(GOOD, ready=False, started=False))

    assert ask(server, "/startupz")[0] == 200
    assert ask(server, "/readyz")[0] == 503


def test_nothing_configured_is_not_ready(server, status):
    status.drop("web")

    assert ask(server, "/readyz")[0] == 503


def test_a_stuck_thread_is_not_healthy(server, status):
    status.alive = lambda: ("pipeline web",)

    assert ask(server, "/healthz") == (503, "not ok\nthread pipeline web is stuck\n")


def test_unknown_paths_and_pipelines_are_not_found(server):
    assert ask(server, "/nothing")[0] == 404
    assert ask(server, "/readyz/nobody")[0] == 404


def say(server: Server, *parts: bytes) -> str:
    """Send each part and return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        for part in parts:
            connection.sendall(part)
        return "".join(iter(lambda: connection.recv(65536).decode(), ""))


@pytest.mark.parametrize("path", ["/startupz", "/readyz", "/readyz/web", "/healthz", "/metrics", "/status", "/", "/nothing"])
def test_head_is_get_without_a_body(server, path):
    code, body = ask(server, path)
    told = say(server, f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    assert ask(server, path, "HEAD") == (code, "")
    assert body
    assert told.startswith(f"HTTP/1.1 {code} ")
    assert told.endswith("\r\n\r\n")
    if path not in ("/metrics", "/status", "/"):  # those change from one moment to the next
        assert f"Content-Length: {len(body)}\r\n" in told


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "BREW", "get"])
def test_only_get_and_head_are_answered(server, method):
    told = say(server, f"{method} /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    assert told.startswith("HTTP/1.1 405 ")
    assert "Allow: GET, HEAD\r\n" in told


def test_a_body_is_not_waited_for_and_does_not_spoil_the_answer(server, monkeypatch):
    """A client that is still sending when it is answered must not be reset: many systems then forget what it has not read."""
    monkeypatch.setattr(connections, "LIMIT", 120.0)
    monkeypatch.setattr(connections, "FAREWELL", 120.0)
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(b"POST /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16384\r\n\r\n")
        (served,) = eventually(lambda: [each for each in server._connections._open if each.answered], what="the answer")
        for sent in (4096, 8192, 12288, 16384):
            connection.sendall(b"x" * 4096)
            eventually(lambda sent=sent: served.discarded == sent, what="the body to be read")

        assert connection.recv(100).startswith(b"HTTP/1.1 405 ")


def test_a_body_without_an_end_is_cut(server):
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(b"POST /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(ConnectionError):
            connection.sendall(b"x" * 64 * 1024 * 1024)


def test_a_connection_is_for_one_request(server):
    told = say(server, b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" * 2)

    assert told.count("HTTP/1.1 ") == 1
    assert "Connection: close\r\n" in told


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET /" + b"a" * LONGEST_LINE, 414),
        (b"GET / HTTP/1.1\r\nCookie: " + b"a" * LARGEST_HEAD, 431),
        (b"GET / HTTP/1.1\r\n" + b"Cookie: a\r\n" * (MOST_HEADERS + 1) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET http://[/ HTTP/1.1\r\n\r\n", 400),
        (b"GET /?" + b"&".join([b"a=b"] * 50) + b" HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\n\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /%00%ff%22%3Cscript%3E HTTP/1.1\r\n\r\n", 404),
        (b"GET /readyz/%77eb HTTP/1.1\r\n\r\n", 200),
        (b"GET /readyz/%E2%80%AE HTTP/1.1\r\n\r\n", 404),
        (b"GET /readyz?verbose HTTP/1.0\n\n", 200),
        (b"GET http://localhost/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ],
)
def test_what_a_request_may_be(server, request_, code):
    assert say(server, request_).startswith(f"HTTP/1.1 {code} ")


def test_a_request_may_come_in_pieces(server):
    told = say(server, *(bytes([each]) for each in b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"))

    assert told.startswith("HTTP/1.1 200 ")


def test_an_error_of_ours_is_told_and_ends_nothing(server, status, caplog):
    status.alive = lambda: 1 / 0
    with caplog.at_level(logging.ERROR):
        assert ask(server, "/healthz")[0] == 500
    assert "internal error: ZeroDivisionError in server/endpoints.py:" in caplog.text, "by the line in which to look"
    assert ask(server, "/readyz")[0] == 200


def test_status_is_json(server):
    code, body = ask(server, "/status")

    assert code == 200
    assert json.loads(body)["pipelines"][0]["name"] == "web"


@pytest.mark.parametrize("path", ["/status", "/"])
@pytest.mark.parametrize(
    ("client", "code"), [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("203.0.113.9", 403), ("2001:db8::1", 403)]
)
def test_details_are_for_this_machine(status, client, code, path):
    endpoints = Endpoints(status, Metrics(status, "1"), "loopback")

    assert endpoints.answer(path, client).status == code
    assert endpoints.answer("/readyz", client).status == 200


@pytest.mark.parametrize("path", ["/status", "/"])
@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("localhost:9533", 200),
        ("web.localhost:9533", 200),
        ("127.0.0.1:9533", 200),
        ("[::1]:9533", 200),
        ("10.1.2.3", 200),
        ("", 200),
        ("evil.example", 403),
        ("evil.example:9533", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("[", 403),
    ],
)
def test_a_name_that_somebody_else_points_here_shows_nothing(status, host, code, path):
    """A page in the operator's browser may let a name of its own mean 127.0.0.1, and would then read what is for the operator."""
    endpoints = Endpoints(status, Metrics(status, "1"), "loopback")

    assert endpoints.answer(path, "127.0.0.1", host).status == code
    assert endpoints.answer("/readyz", "127.0.0.1", host).status == 200
    assert Endpoints(status, Metrics(status, "1"), "all").answer(path, "127.0.0.1", host).status == 200


def test_the_name_in_the_target_counts_too(status):
    endpoints = Endpoints(status, Metrics(status, "1"), "loopback")

    assert endpoints.answer("http://evil.example/status", "127.0.0.1", "localhost").status == 403
    assert endpoints.answer("http://localhost/status", "127.0.0.1", "localhost").status == 200


@pytest.mark.parametrize("target", ["//localhost/status", "///localhost/status", "//127.0.0.1/", "//evil.example/status"])
def test_a_path_names_nobody_however_it_begins(status, target):
    """A page of evil.example has a browser ask for `http://evil.example:9533//localhost/status`: the target is all from the first slash."""
    for details in ("loopback", "all"):
        endpoints = Endpoints(status, Metrics(status, "1"), details)
        assert endpoints.answer(target, "127.0.0.1", "evil.example:9533").status == 404


def test_details_can_be_opened(status):
    assert Endpoints(status, Metrics(status, "1"), "all").answer("/status", "203.0.113.9", "reloader.svc:9533").status == 200


def test_other_sites_can_neither_frame_nor_embed_what_is_for_the_operator(server):
    for path in ("/status", "/"):
        told = say(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()).partition("\r\n\r\n")[0]
        assert "default-src 'none'" in told
        assert "frame-ancestors 'none'" in told
        assert "script-src" not in told
        for header in ("X-Content-Type-Options: nosniff", "Cross-Origin-Resource-Policy: same-origin", "Referrer-Policy: no-referrer"):
            assert header in told
        assert "Cache-Control: no-store" in told
        assert "Access-Control" not in told


def test_both_families_are_served(status):
    server = Server(Plan(listen="[::]:0"), Endpoints(status, Metrics(status, "1"), "loopback"))
    server.start()
    try:
        assert ask(server, "/readyz")[0] == 200
        with socket.create_connection(("::1", server.port), 10) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        server.close()


def test_one_that_was_never_started_can_be_closed(status):
    server = Server(Plan(listen="127.0.0.1:0"), Endpoints(status, Metrics(status, "1"), "loopback"))
    server.close()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), 10)


def test_an_address_that_is_taken_is_refused(server, status):
    with pytest.raises(OSError, match="in use"):
        Server(Plan(listen=f"127.0.0.1:{server.port}"), Endpoints(status, Metrics(status, "1"), "loopback"))


def test_ipv4_alone_is_no_way_out_where_somebody_has_the_port_of_ipv6(status):
    """A probe by IPv6 would ask a stranger."""
    with socket.create_server(("::", 0), family=socket.AF_INET6) as other, pytest.raises(OSError, match="in use"):
        Server(Plan(listen=f"[::]:{other.getsockname()[1]}"), Endpoints(status, Metrics(status, "1"), "loopback"))


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_ipv4_alone_is_served_where_there_is_no_ipv6(status, monkeypatch, number):
    create = socket.create_server

    def without_ipv6(*arguments, family=socket.AF_INET, **more):
        if family == socket.AF_INET6:
            raise OSError(number, os.strerror(number))
        return create(*arguments, family=family, **more)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    server = Server(Plan(listen="[::]:0"), Endpoints(status, Metrics(status, "1"), "loopback"))
    server.start()
    try:
        assert ask(server, "/readyz")[0] == 200
    finally:
        server.close()


class Flood:
    """Clients of one server that are kept open until the end of the test."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.sockets: list[socket.socket] = []

    def come(self, count: int, *, saying: bytes = b"", source: str = "127.0.0.1") -> list[socket.socket]:
        new = [socket.create_connection(("127.0.0.1", self._server.port), 30, source_address=(source, 0)) for _ in range(count)]
        self.sockets += new
        for each in new:
            with contextlib.suppress(OSError):
                each.sendall(saying)
        return new

    def close(self) -> None:
        for each in self.sockets:
            each.close()


@pytest.fixture
def flood(server) -> Iterator[Flood]:
    flood = Flood(server)
    yield flood
    flood.close()


def is_open(connection: socket.socket) -> bool:
    """Return whether the server has not cut it: nothing has come, not even its end."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_silent_clients_hold_up_nobody_and_are_cut_in_time(server, flood):
    """More connections than are served at once, none of which says anything."""
    before = threading.active_count()
    silent = flood.come(CONNECTIONS * 3)

    assert ask(server, "/healthz")[0] == 200
    assert threading.active_count() <= before
    eventually(lambda: not any(map(is_open, silent)), what="every silent client to be cut")


def test_a_flood_cuts_itself_and_not_who_came_before_it(server, flood):
    (waiting,) = flood.come(1, saying=b"GET /readyz HTTP/1.1\r\n", source="127.0.0.2")
    flood.come(CONNECTIONS * 3)
    assert ask(server, "/readyz")[0] == 200

    waiting.sendall(b"\r\n")
    assert waiting.recv(100).startswith(b"HTTP/1.1 200")


def test_answers_that_nobody_takes_are_bounded(flood, server, status):
    """The kernel holds some of an answer, we hold the rest: both end with the connection."""
    for number in range(100):  # some megabyte, of which little is to be made anew for each of them
        status.put(replace(GOOD, name=f"pipeline-{number}", reasons=("because " * 2000,), degraded=True))
    hoarding = []
    for _ in range(UNTAKEN + 8):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        flood.sockets.append(connection)
        hoarding.append(connection)

    assert ask(server, "/healthz")[0] == 200
    assert sum(len(each.left) > 0 for each in server._connections._open) <= UNTAKEN + 1, "one is cut after one more has come"
    assert ask(server, "/status")[0] == 200, "a client that reads gets the whole of it"
    eventually(lambda: not server._connections._open, what="the end of the hoarders")


class Failing:
    """A listening socket that cannot accept for a while, as when the process has no descriptor left."""

    def __init__(self, listening: socket.socket, times: int) -> None:
        self._listening = listening
        self.times = times

    def accept(self) -> tuple[socket.socket, object]:
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._listening.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._listening, name)


def test_a_client_that_the_kernel_does_not_watch_ends_nothing(server, monkeypatch, caplog):
    """It is cut; the next one is served."""
    selector = server._connections._selector
    register, refused = selector.register, []

    def limited(*arguments):
        if not refused:
            refused.append(arguments)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return register(*arguments)

    monkeypatch.setattr(selector, "register", limited)
    with caplog.at_level(logging.ERROR), pytest.raises((http.client.HTTPException, OSError)):
        ask(server, "/healthz")
    assert "cannot accept connections" in caplog.text
    eventually(lambda: ask(server, "/healthz")[0] == 200, what="the next one")


@pytest.mark.parametrize("others", [0, 1])
def test_no_descriptor_for_a_client_is_told_once_and_gone_when_there_is_one(others, caplog):
    """With somebody to cut that is the way; with nobody, the listener is let be for a moment rather than asked over and over."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    connections = Connections(Failing(listening, 0), lambda *_: Answer(HTTPStatus.OK, b"hello"))
    thread = threading.Thread(target=connections.serve)
    thread.start()
    try:
        silent = [socket.create_connection(address, 30) for _ in range(others)]
        eventually(lambda: len(connections._open) == others, what="who is to be cut")
        connections._listening.times = 3
        with caplog.at_level(logging.ERROR), socket.create_connection(address, 30) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        (line,) = [record for record in caplog.records if "cannot accept" in record.message]
        assert line.fields == {"reason": "Too many open files; raise the limit of open files"}
        assert not any(map(is_open, silent))
    finally:
        connections.stop()
        thread.join()
        connections.close()
        for each in silent:
            each.close()
