"""Stands between a sidecar and a real Consul or OpenBao: hands on what is asked and answered, notes it, and spoils what a test wants."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import requests

from tests.servers.ports import free_port

EARLY = 0.01
"""Seconds by which the relay may see a request early: it notes an answer after the first byte of it was sent."""
LONGEST = 120
"""Seconds that a real server may hold a request; longer than any blocking query."""


@dataclass
class Asked:
    """One request; times in seconds of the monotonic clock."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    at: float = field(default_factory=time.monotonic)
    answered: float | None = None
    """When its answer was sent."""

    status: int | None = None

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> Mapping[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items()}

    @property
    def index(self) -> int | None:
        """The index that a blocking query waits on."""
        return int(self.query["index"]) if "index" in self.query else None


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})

    def but(self, **headers: str) -> "Answer":
        """Return it with other headers; `_` in a name is `-`."""
        return replace(self, headers={**self.headers, **{name.replace("_", "-").title(): value for name, value in headers.items()}})


class Relay:
    """Answers as `behave` says, then `spoil`s the answer, each of which may be replaced at any time; `forward` asks the real server."""

    def __init__(self, address: str) -> None:
        self._real = address
        self.stopping = threading.Event()
        self.asked: list[Asked] = []
        self.hung: list[Asked] = []
        """The requests that `hang` keeps waiting."""
        self.behave: Callable[[Asked], Answer] = self.forward
        self.spoil: Callable[[Asked, Answer], Answer] = lambda _asked, answer: answer
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def forward(self, asked: Asked) -> Answer:
        """Return what the real server answers."""
        headers = {name: value for name, value in asked.headers.items() if name.lower() not in _HOP}
        with requests.Session() as session:
            session.trust_env = False
            got = session.request(
                asked.method, self._real + asked.target, headers=headers, data=asked.body or None, timeout=LONGEST, allow_redirects=False
            )
        return Answer(
            got.status_code, got.content, {name.title(): value for name, value in got.headers.items() if name.lower() not in _HOP}
        )

    def hang(self, asked: Asked) -> Answer:
        """Never answer."""
        self.hung.append(asked)
        self.stopping.wait()
        return Answer()

    def failing(self, *statuses: int, path: str = "") -> None:
        """Answer the next requests for a path (by its end) with these, and hand on what comes after them."""
        left = list(statuses)

        def behave(asked: Asked) -> Answer:
            if left and asked.path.endswith(path):
                return Answer(left.pop(0), b'{"errors": ["spoilt"]}')
            return self.forward(asked)

        self.behave = behave

    def of(self, path: str) -> list[Asked]:
        """Return the requests so far for a path, by its end."""
        return [asked for asked in self.asked if asked.path.endswith(path)]

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def pauses(asked: Sequence[Asked]) -> list[float]:
    """Return the seconds between each answer and the next request."""
    return [later.at - (earlier.answered or later.at) for earlier, later in itertools.pairwise(asked)]


_HOP = {"connection", "content-encoding", "content-length", "host", "keep-alive", "transfer-encoding", "accept-encoding", "date", "server"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_args: object) -> None:
        """Say nothing: clients that go away are part of what is tested."""


def _handler(relay: Relay) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, dict(self.headers), body)
            relay.asked.append(asked)
            answer = relay.behave(asked)
            answer = relay.spoil(asked, answer)  # as it is to be spoilt now, however long the answer took
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            asked.answered, asked.status = time.monotonic(), answer.status
            self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_DELETE = do_LIST = _relay  # noqa: N815 - their names in the standard library

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    return Handler


@contextlib.contextmanager
def relayed(address: str) -> Iterator[Relay]:
    """Stand before a server for a while."""
    relay = Relay(address)
    try:
        yield relay
    finally:
        relay.stop()
