"""The HTTP endpoints: small answers, bounded connections, nothing that a slow client could hold up."""

import ipaddress
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from reloader import __version__
from reloader.plan import Server as Plan
from reloader.status import Metrics, Status, document

log = logging.getLogger("reloader")

CONNECTION_LIMIT = 5.0
"""How many seconds one connection may last: a request is one line, and the answer is small."""
CONNECTIONS = 64
"""How many connections are served at once; for one more, the oldest is cut."""


@dataclass(frozen=True)
class Answer:
    """What an endpoint says."""

    status: HTTPStatus
    body: bytes
    type: str = "text/plain; charset=utf-8"


class Endpoints:
    """What each path answers."""

    def __init__(self, status: Status, metrics: Metrics, details: str) -> None:
        self._status = status
        self._metrics = metrics
        self._details = details
        self._paths: dict[str, Callable[[], Answer]] = {
            "/startupz": self._startup,
            "/readyz": self._ready,
            "/healthz": self._healthy,
            "/metrics": lambda: Answer(HTTPStatus.OK, metrics.text(), "text/plain; version=0.0.4; charset=utf-8"),
        }

    def answer(self, target: str, client: str) -> Answer:
        """Return the answer for a request target from that address."""
        path = unquote(urlsplit(target).path)
        if path == "/status":
            return self._details_for(client)
        if path.startswith("/readyz/"):
            return self._ready_one(path.removeprefix("/readyz/"))
        found = self._paths.get(path)
        return found() if found else Answer(HTTPStatus.NOT_FOUND, f"no such path; there are {', '.join(self._paths)}, /status\n".encode())

    def _startup(self) -> Answer:
        return _probe(self._status.started, self._reasons())

    def _ready(self) -> Answer:
        return _probe(self._status.ready, self._reasons())

    def _ready_one(self, name: str) -> Answer:
        report = self._status.reports.get(name)
        if report is None:
            return Answer(HTTPStatus.NOT_FOUND, b"no pipeline of that name\n")
        return _probe(report.ready, list(report.reasons))

    def _healthy(self) -> Answer:
        stuck = self._status.alive()
        return _probe(not stuck, [f"thread {thread} is stuck" for thread in stuck])

    def _details_for(self, client: str) -> Answer:
        if self._details == "loopback" and not _is_loopback(client):
            return Answer(HTTPStatus.FORBIDDEN, b"only from this machine or through a port-forward; server.details: all opens it\n")
        body = json.dumps(document(self._status, __version__), indent=1).encode() + b"\n"
        return Answer(HTTPStatus.OK, body, "application/json")

    def _reasons(self) -> list[str]:
        return [f"{report.name}: {reason}" for report in self._status.reports.values() for reason in report.reasons]


def _probe(good: bool, reasons: list[str]) -> Answer:
    lines = ["ok" if good else "not ok", *reasons]
    return Answer(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, ("\n".join(lines) + "\n").encode())


def _is_loopback(client: str) -> bool:
    address = ipaddress.ip_address(client.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class Server:
    """Serves the endpoints in threads of its own until it is closed."""

    def __init__(self, plan: Plan, endpoints: Endpoints) -> None:
        host, port = _address(plan.listen)
        self._http = _bound(host, port, endpoints)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.5}, name="http", daemon=True)

    @property
    def port(self) -> int:
        """Return the port it listens on."""
        return int(self._http.server_address[1])

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and cut what is open."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One request on one connection."""

    server: "_Http"
    server_version = "reloader"
    sys_version = ""
    timeout = CONNECTION_LIMIT

    def do_GET(self) -> None:
        """Answer with a body."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without one."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        answer = self.server.endpoints.answer(self.path, str(self.client_address[0]))
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing: probes come every few seconds."""


class _Http(ThreadingHTTPServer):
    """A server that cuts connections that last too long, so that silent clients cost nothing for long."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int], endpoints: Endpoints) -> None:
        self.address_family = family
        self.endpoints = endpoints
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind for both families where the address is IPv6's."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread; over the bound, cut the oldest first."""
        with self._lock:
            if len(self._since) >= CONNECTIONS:
                self._cut(next(iter(self._since)))
            self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that is done."""
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut what lasts too long; called at every turn of the loop."""
        limit = time.monotonic() - CONNECTION_LIMIT
        with self._lock:
            for request in [request for request, since in self._since.items() if since < limit]:
                self._cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's
        """Say nothing of a client that was cut or left: that is its own affair."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error("request failed: %s", type(error).__name__)

    def _cut(self, request: socket.socket) -> None:
        del self._since[request]
        try:
            request.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is gone already


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    return host.strip("[]") or "::", int(port)


def _bound(host: str, port: int, endpoints: Endpoints) -> _Http:
    """Return a listening server; the address for all of IPv6 means IPv4 alone where there is no IPv6."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return _Http(family, (host, port), endpoints)
    except OSError:
        if host != "::":
            raise
        return _Http(socket.AF_INET, ("0.0.0.0", port), endpoints)  # noqa: S104 - what the operator asked for: all addresses
