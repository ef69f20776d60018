"""A small HTTP server that does what no server should, so that clients can be tried on it; or that hands on to a real one."""

import contextlib
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

_TLS_HANDSHAKE = b"\x16"
_KNOWN = {each.value for each in HTTPStatus}
LONGEST = 120
"""Seconds that a real server may hold a request; longer than any blocking query."""
_HOP = {"connection", "content-encoding", "content-length", "host", "keep-alive", "transfer-encoding", "accept-encoding"}


@dataclass
class Exchange:
    """One request, and what is written in answer to it."""

    target: str
    headers: Mapping[str, str]
    connection: socket.socket = field(repr=False)
    stopping: threading.Event = field(repr=False)
    method: str = "GET"
    body: bytes = field(default=b"", repr=False)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {key: values[-1] for key, values in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items()}

    def write(self, data: bytes) -> None:
        self.connection.sendall(data)

    def answer(self, body: Any = "", *, status: int = 200, **headers: str) -> None:
        """Write a whole answer; what is not text or bytes goes out as JSON, and `_` in a header's name is `-`."""
        data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        phrase = HTTPStatus(status).phrase if status in _KNOWN else "Unheard Of"
        lines = [f"HTTP/1.1 {status} {phrase}", f"Content-Length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.write("\r\n".join([*lines, "", ""]).encode() + data)

    def drip(self, data: bytes, *, every: float) -> None:
        """Write one byte every so many seconds until all is written, the client is gone or the server stops."""
        for byte in data:
            self.write(bytes([byte]))
            if self.stopping.wait(every):
                return


Behaviour = Callable[[Exchange], None]


def hang(exchange: Exchange) -> None:
    exchange.stopping.wait()


def drip_headers(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\n")
    exchange.drip(b"X-Endless: " + b"x" * 10_000, every=0.05)


def drip_body(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    exchange.drip(b"x" * 10_000, every=0.05)


def drip_chunks(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    exchange.drip(b"1\r\nx\r\n" * 10_000, every=0.05)


def truncate(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[1, 2")
    cut(exchange)


def cut(exchange: Exchange) -> None:
    exchange.connection.shutdown(socket.SHUT_RDWR)


def endless(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not exchange.stopping.is_set():
        exchange.write(b"x" * 65536)


def html(exchange: Exchange) -> None:
    exchange.answer("<html><body>Please log in, CANARY</body></html>", Content_Type="text/html")


def redirect_to(location: str, status: int = 307) -> Behaviour:
    return lambda exchange: exchange.answer("elsewhere", status=status, Location=location)


def hand_on(address: str) -> Behaviour:
    """Return the behaviour of the real server at `address`."""

    def behave(exchange: Exchange) -> None:
        headers = {name: value for name, value in exchange.headers.items() if name not in _HOP}
        with requests.Session() as session:
            session.trust_env = False
            url = address + exchange.target
            got = session.request(exchange.method, url, headers=headers, data=exchange.body or None, timeout=LONGEST, allow_redirects=False)
        exchange.answer(
            got.content, status=got.status_code, **{name: text for name, text in got.headers.items() if name.lower() not in _HOP}
        )

    return behave


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_args: Any) -> None:
        """Say nothing: clients that go away are what is tested."""


class Misbehaving:
    """Answers each request as `behave` does, which may be replaced at any time; what was asked is in `exchanges`."""

    def __init__(self, behave: Behaviour, tls: tuple[str, str] | None = None) -> None:
        self.behave = behave
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._context = _context(tls)
        self._open: set[socket.socket] = set()
        self.port = 0
        self.listen()
        self.address = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._open)

    def stop(self) -> None:
        self.stopping.set()
        self._end()

    def refuse(self) -> None:
        """Cut every connection and take none until `listen`."""
        self._end()
        self.cut_all()

    def listen(self) -> None:
        """Take connections, at the port as before."""
        self._server = _Server(("127.0.0.1", self.port), self._handle)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.port = self._server.server_address[1]

    def present(self, tls: tuple[str, str] | None) -> None:
        """Show another certificate from now on, or speak no TLS."""
        self._context = _context(tls)
        self.cut_all()

    def cut_all(self) -> None:
        """Cut every connection there is, whatever is under way on it."""
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _end(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handle(self, connection: socket.socket, _address: Any, _server: Any) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, requests.RequestException):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            elif connection.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return
            self._open.add(connection)
            try:
                self._serve(connection)
            finally:
                self._open.discard(connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            while exchange := self._request(connection, file):
                self.exchanges.append(exchange)
                self.behave(exchange)

    def _request(self, connection: socket.socket, file: Any) -> Exchange | None:
        first = file.readline().split()
        if not first:
            return None
        headers: dict[str, str] = {}
        while line := file.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = file.read(int(headers.get("content-length", 0)))
        return Exchange(first[1].decode(), headers, connection, self.stopping, first[0].decode(), body)


def _context(tls: tuple[str, str] | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls)
    return context


@contextlib.contextmanager
def misbehaving(behave: Behaviour, tls: tuple[str, str] | None = None) -> Iterator[Misbehaving]:
    """Run the server for a while."""
    server = Misbehaving(behave, tls)
    try:
        yield server
    finally:
        server.stop()
