"""A forwarder between a client and a server that counts what comes by, also while there is no server; it keeps no value."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.servers.ports import free_port

LONGEST = 120.0
"""How many seconds an answer may take: longer than a blocking query lasts."""

_FAILS_AS_A_WHOLE = {472, 473, 501, 502, 503}
_PER_HOP = {"connection", "content-length", "date", "server", "transfer-encoding"}


@dataclass(frozen=True)
class Seen:
    """A request that came by, or was refused a connection (then only its path is known); times are monotonic."""

    began: float
    ended: float
    path: str
    """Without what is asked of it."""
    method: str = ""
    token: int = 0
    """Tells the token from others; 0 for none."""
    body: int = 0
    """Tells what was sent from what else was."""
    status: int | None = None
    """None where no answer came."""
    whole_server: bool = False
    """Whether any other request would fail like this: refused, sealed, without a leader."""

    @property
    def failed(self) -> bool:
        """Whether it brought no answer; what Consul does not have, it says so."""
        return (
            self.whole_server
            or self.status is None
            or (self.status >= 400 and not (self.status == 404 and self.path.startswith("/v1/kv/")))
        )


class Counting:
    """Listens on a port of its own for the server at `upstream`, an http:// address."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._port = free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self.seen: list[Seen] = []
        self._lock = threading.Lock()
        self._marks: dict[bytes, int] = {}
        self._clients: set[socket.socket] = set()
        self._refused: list[tuple[float, float]] = []
        self._server: ThreadingHTTPServer | None = None
        self.listen()

    def listen(self) -> None:
        """Take connections, again."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self._port), type("Handler", (_Handler,), {"counting": self}))
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
            self._refused = [(since, min(until, time.monotonic())) for since, until in self._refused]

    def refuse(self) -> None:
        """Refuse connections and cut those there are, as when the server's machine lost its process."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            self._refused.append((time.monotonic(), inf))
        with self._lock:
            clients = [*self._clients]
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def requests(self, connects: Path | None = None) -> list[Seen]:
        """Return what came by and has ended, in the order of beginning, with those that were refused by the notes of `connects.py`."""
        notes = connects.read_text().split("\n")[:-1] if connects else []
        tried = [(float(at), path) for at, port, path in map(str.split, notes) if int(port) == self._port]
        refused = [Seen(at, at, path, whole_server=True) for at, path in tried if any(since < at < until for since, until in self._refused)]
        with self._lock:
            return sorted([*self.seen, *refused], key=lambda seen: seen.began)

    def mark(self, value: bytes) -> int:
        """Return a number that tells a value from others and nothing of it."""
        with self._lock:
            return self._marks.setdefault(value, len(self._marks) + 1) if value else 0

    def note(self, seen: Seen) -> None:
        """Take what has ended."""
        with self._lock:
            self.seen.append(seen)

    def ask(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[HTTPResponse, bytes] | None:
        """Return the server's answer with its body, None where it gives none."""
        connection = HTTPConnection(self._upstream, timeout=LONGEST)
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            connection.request(method, target, body or None, headers)
            answer = connection.getresponse()
            return answer, answer.read()
        return None

    @contextlib.contextmanager
    def client(self, connection: socket.socket) -> Iterator[None]:
        """Know of a connection while it is open, so that it can be cut."""
        with self._lock:
            self._clients.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._clients.discard(connection)


class _Server(ThreadingHTTPServer):
    block_on_close = False

    def handle_error(self, *_args: Any) -> None:
        """Say nothing: clients that are cut are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    counting: Counting

    def handle(self) -> None:
        with self.counting.client(self.connection), contextlib.suppress(OSError):
            super().handle()

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""

    def _forward(self) -> None:
        counting, began = self.counting, time.monotonic()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("X-Vault-Token") or self.headers.get("X-Consul-Token") or self.headers.get("Authorization") or ""
        marks = {"token": counting.mark(token.encode()), "body": counting.mark(body)}
        answered = counting.ask(self.command, self.path, dict(self.headers), body)
        what = {"path": urlsplit(self.path).path, "method": self.command, **marks}
        if answered is None:
            counting.note(Seen(began, time.monotonic(), **what))
            self.close_connection = True
            return
        answer, content = answered
        counting.note(Seen(began, time.monotonic(), **what, status=answer.status, whole_server=_fails_as_a_whole(answer, content)))
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _PER_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _forward  # noqa: N815 - the names that http.server looks for


def _fails_as_a_whole(answer: HTTPResponse, content: bytes) -> bool:
    if answer.status in {200, 404}:
        return answer.headers.get("X-Consul-KnownLeader") == "false"
    return answer.status in _FAILS_AS_A_WHOLE or (answer.status == 500 and b"leader" in content)
