"""What each path answers."""

import ipaddress
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

from reloader import __version__
from reloader.server.message import Answer, Refused
from reloader.status import Metrics, Page, Status, document

_FOR_PEOPLE = "text/html; charset=utf-8"


class Endpoints:
    """What each path answers."""

    def __init__(self, status: Status, metrics: Metrics, details: str) -> None:
        self._status = status
        self._metrics = metrics
        self._details = details
        self._page = Page()
        self._open: dict[str, Callable[[], Answer]] = {
            "/startupz": self._startup,
            "/readyz": self._ready,
            "/healthz": self._healthy,
            "/metrics": lambda: Answer(HTTPStatus.OK, metrics.text(), "text/plain; version=0.0.4; charset=utf-8"),
        }
        self._guarded: dict[str, Callable[[Mapping[str, str]], Answer]] = {"/status": self._document, "/": self._for_people}

    def answer(self, target: str, client: str, host: str = "") -> Answer:
        """Return the answer for a request target from that address, which named us `host`."""
        try:
            return self._answer(*_understood(target, host), client)
        except Refused as refused:
            return refused.answer

    def _answer(self, path: str, query: Mapping[str, str], host: str, client: str) -> Answer:
        if path in self._guarded:
            self._guard(client, host)
            return self._guarded[path](query)
        if path.startswith("/readyz/"):
            return self._ready_one(path.removeprefix("/readyz/"))
        if path in self._open:
            return self._open[path]()
        return Answer(HTTPStatus.NOT_FOUND, f"no such path; there are {', '.join([*self._open, *self._guarded])}\n".encode())

    def _guard(self, client: str, host: str) -> None:
        """Let only this machine see details, unless the operator opened them.

        Raises:
            Refused: this client may not see them.

        """
        if self._details != "loopback":
            return
        if not _is_loopback(client):
            raise Refused(HTTPStatus.FORBIDDEN, "only from this machine or through a port-forward; server.details: all opens it")
        if not _is_no_name(host):
            # Any page in a browser here may point a name of its own to 127.0.0.1 (DNS rebinding) and then read what we answer.
            raise Refused(HTTPStatus.FORBIDDEN, "ask for localhost or an IP address, not for another name; server.details: all opens it")

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

    def _document(self, _query: Mapping[str, str]) -> Answer:
        body = json.dumps(document(self._status, __version__), indent=1).encode() + b"\n"
        return Answer(HTTPStatus.OK, body, "application/json", _for_nobody_else("default-src 'none'; frame-ancestors 'none'"))

    def _for_people(self, query: Mapping[str, str]) -> Answer:
        body = self._page.html(document(self._status, __version__), whole=query.get("whole"), still="still" in query)
        return Answer(HTTPStatus.OK, body, _FOR_PEOPLE, _for_nobody_else(self._page.policy))

    def _reasons(self) -> list[str]:
        return [f"{report.name}: {reason}" for report in self._status.reports.values() for reason in report.reasons]


def _understood(target: str, host: str) -> tuple[str, dict[str, str], str]:
    """Return the path, the query, and by which name we are asked.

    What begins with a slash is a path and names nobody, however many slashes follow (RFC 9112, 3.2): a page can make a browser ask for
    `//localhost/status` by any name.
    """
    is_path = target.startswith("/")
    try:
        parts = urlsplit(f"//_{target}" if is_path else target)  # after a host of no meaning, all of it is the path
        query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=10))
        return unquote(parts.path), query, host if is_path else parts.netloc or host
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "this is no address") from None


def _for_nobody_else(policy: str) -> tuple[tuple[str, str], ...]:
    """Return the headers that keep other sites from framing, embedding or learning of what is for the operator."""
    return (("Content-Security-Policy", policy), ("Cross-Origin-Resource-Policy", "same-origin"), ("Referrer-Policy", "no-referrer"))


def _probe(good: bool, reasons: list[str]) -> Answer:
    lines = ["ok" if good else "not ok", *reasons]
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))


def _is_loopback(client: str) -> bool:
    address = ipaddress.ip_address(client.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_no_name(host: str) -> bool:
    """Return whether nobody else can have a say in what this host means: localhost, an IP address, or none, which no browser sends."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if host and name != "localhost" and not name.endswith(".localhost"):
            ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
