"""A Vault that exists only in virtual time: it says what the real one says, as many times a second as it can, and may be down."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from math import inf
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError

from benchmarks.fleet.together import Together
from reloader.backends.vault.client import DEADLINE
from tests.virtual import VirtualClock

ADDRESS = "https://vault.example:8200"
HOUR = 3600.0
NOBODY = "nobody there"
"""The kind of a request that comes while the server is down."""
LATENCY = 0.005
"""Seconds from a request to its answer where nobody else asks."""

_CONNECTION = HTTPConnection("vault.example", 8200)
Body = dict[str, Any]


class Server:
    """Answers requests first come, first served; one that was given up costs as much as any other.

    It is the session of every sidecar too: `request` is all that the product's HTTP layer asks of one.
    """

    cert = None
    verify = True
    proxies = None

    def __init__(self, clock: VirtualClock, together: Together, *, capacity: float = inf, lifetime: float = HOUR) -> None:
        self._clock = clock
        self._together = together
        self.capacity = capacity
        """Requests a second."""
        self.lifetime = lifetime
        """Seconds that tokens, leases and certificates are good for."""
        self.down = False
        self.version = 1
        """Of every secret."""
        self.asked: dict[str, list[float]] = defaultdict(list)
        """When each kind of request came; `NOBODY` while it is down."""
        self.longest_wait = 0.0
        """Seconds that an answer took at most."""
        self.given_up = 0
        """How many requests had no answer when their deadline was over."""
        self._free = -inf
        self._serial = 0

    def request(self, *, method: str, url: str, json: Mapping[str, Any] | None = None, **_: Any) -> requests.Response:
        """Answer a request of a sidecar when there was time for it, or raise as `requests` does."""
        path = urlsplit(url).path.removeprefix("/v1/")
        kind, answer = _route(method, path)
        self.asked[NOBODY if self.down else kind].append(self._clock.now())
        self._await_turn()
        return _response(answer(self, path, json or {}))

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def serial(self) -> int:
        """Return a number that nobody had yet."""
        self._serial += 1
        return self._serial

    def wall(self) -> float:
        """Return the time of day."""
        return self._clock.wall()

    def _await_turn(self) -> None:
        if self.down:
            self._together.wait(LATENCY)
            raise requests.ConnectionError from NewConnectionError(_CONNECTION, "nobody listens")
        self._free = max(self._free, self._clock.now()) + 1 / self.capacity
        took = self._free - self._clock.now() + LATENCY
        self._together.wait(min(took, DEADLINE))
        self.longest_wait = max(self.longest_wait, took)
        if took > DEADLINE:
            self.given_up += 1
            raise requests.Timeout


def _response(body: Body) -> requests.Response:
    response = requests.Response()
    response.status_code = 200
    response._content = json.dumps({"data": None} | body).encode()  # noqa: SLF001 - as tests of requests do
    return response


def _token(server: Server, _path: str, _sent: Mapping[str, Any]) -> Body:
    serial = str(server.serial())
    return {"auth": {"client_token": serial, "accessor": serial, "lease_duration": server.lifetime, "renewable": True}}


def _mount(_server: Server, path: str, _sent: Mapping[str, Any]) -> Body:
    name = path.split("/")[4]
    return {
        "data": {"path": f"{name}/", "type": "kv", "options": {"version": "2"}} if name == "secret" else {"path": f"{name}/", "type": name}
    }


def _capabilities(_server: Server, _path: str, sent: Mapping[str, Any]) -> Body:
    return {"data": {path: ["read"] for path in sent["paths"]}}


def _stamp() -> Body:
    return {"created_time": "", "deletion_time": "", "destroyed": False}


def _metadata(server: Server, _path: str, _sent: Mapping[str, Any]) -> Body:
    return {"data": {"current_version": server.version, "versions": {str(server.version): _stamp()}}}


def _secret(server: Server, _path: str, _sent: Mapping[str, Any]) -> Body:
    return {"data": {"data": {"version": server.version}, "metadata": {"version": server.version, **_stamp()}}}


def _certificate(server: Server, _path: str, _sent: Mapping[str, Any]) -> Body:
    return {"data": {"serial": server.serial(), "expiration": server.wall() + server.lifetime}}


def _user(server: Server, path: str, _sent: Mapping[str, Any]) -> Body:
    return {"lease_id": f"{path}/{server.serial()}", "lease_duration": server.lifetime, "renewable": True, "data": {"username": "app"}}


def _lease(server: Server, _path: str, sent: Mapping[str, Any]) -> Body:
    return {"lease_id": sent["lease_id"], "lease_duration": server.lifetime, "renewable": True}


Handler = Callable[[Server, str, Mapping[str, Any]], Body]
_ROUTES: Mapping[str, tuple[str, Handler]] = {
    "post auth/cert/login": ("login", _token),
    "post auth/token/renew-self": ("token renewed", _token),
    "get sys/internal/ui/mounts/": ("mount", _mount),
    "post sys/capabilities-self": ("rights", _capabilities),
    "get secret/metadata/": ("version", _metadata),
    "get secret/data/": ("secret", _secret),
    "post pki/issue/": ("certificate issued", _certificate),
    "get database/creds/": ("user issued", _user),
    "post sys/leases/renew": ("lease renewed", _lease),
}


def _route(method: str, path: str) -> tuple[str, Handler]:
    return next(route for begin, route in _ROUTES.items() if f"{method} {path}".startswith(begin))
