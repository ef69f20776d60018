"""The endpoints over real sockets."""

import http.client
import json
import socket
import threading
from dataclasses import replace

import pytest

from reloader.plan import Server as Plan
from reloader.server import CONNECTIONS, Endpoints, Server
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


def test_only_get_and_head_are_answered(server):
    assert ask(server, "/readyz", "HEAD") == (200, "")
    assert ask(server, "/readyz", "POST")[0] == 501


def test_status_is_json(server):
    code, body = ask(server, "/status")

    assert code == 200
    assert json.loads(body)["pipelines"][0]["name"] == "web"


@pytest.mark.parametrize(
    ("client", "code"), [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("203.0.113.9", 403), ("2001:db8::1", 403)]
)
def test_details_are_for_this_machine(status, client, code):
    endpoints = Endpoints(status, Metrics(status, "1"), "loopback")

    assert endpoints.answer("/status", client).status == code
    assert endpoints.answer("/readyz", client).status == 200


def test_details_can_be_opened(status):
    assert Endpoints(status, Metrics(status, "1"), "all").answer("/status", "203.0.113.9").status == 200


def test_both_families_are_served(status):
    server = Server(Plan(listen="[::]:0"), Endpoints(status, Metrics(status, "1"), "loopback"))
    server.start()
    try:
        assert ask(server, "/readyz")[0] == 200
        with socket.create_connection(("::1", server.port), 10) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.0 200")
    finally:
        server.close()


def test_silent_clients_hold_up_nobody_and_leave_no_thread(server):
    """More connections than are served at once, none of which says anything."""
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(CONNECTIONS * 3)]
    try:
        assert ask(server, "/healthz")[0] == 200
        eventually(lambda: threading.active_count() <= before, within=20, what="the threads of silent clients to end")
    finally:
        for connection in silent:
            connection.close()
