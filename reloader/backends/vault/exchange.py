"""One request to a Vault or OpenBao server, and what an answer that is no answer means.

hvac is known here alone. Its adapter is used rather than `hvac.Client`, which would fill what is not given from `VAULT_*` variables and
`~/.vault-token`; a token, a CA or an address that the plan does not name must not get in.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isinf
from typing import Any
from urllib.parse import quote

from hvac.adapters import RawAdapter
from requests import RequestException, Response, codes

from reloader.backends.reads import ReadFailed
from reloader.backends.transport import concerns_all, explain, retry_after
from reloader.plan import Vault
from reloader.snapshot import FailureKind
from reloader.world import World
from reloader.world.connections import Connections
from reloader.written import Secret

DEADLINE = 10.0
"""How many seconds one request may take in all."""

_LONGEST_QUOTE = 200
_SHORTEST_MASKED = 4


@dataclass(frozen=True)
class _Meaning:
    """What a status means; `everywhere` where any other request would bring it too."""

    kind: FailureKind
    text: str
    everywhere: bool = False


_REFUSED, _UNREACHABLE, _MISCONFIGURED = FailureKind.REFUSED, FailureKind.UNREACHABLE, FailureKind.MISCONFIGURED
# https://developer.hashicorp.com/vault/api-docs#http-status-codes; 405 is what OpenBao 2.7 says.
_MEANINGS: Mapping[int, _Meaning] = {
    codes.bad_request: _Meaning(_REFUSED, "the server refused the request; check the path and what is sent with it"),
    codes.unauthorized: _Meaning(_REFUSED, "the server does not know the token; check vault.auth"),
    codes.forbidden: _Meaning(
        _REFUSED,
        'permission denied; the token must be valid, and its policy must hold: path "{path}" {{ capabilities = ["{capability}"] }}',
    ),
    codes.not_found: _Meaning(_REFUSED, "no such path; check it, and vault.namespace"),
    codes.method_not_allowed: _Meaning(
        _MISCONFIGURED, "the path does not take a {method}; a path that issues needs `write`, a path that is read none"
    ),
    codes.precondition_failed: _Meaning(_UNREACHABLE, "the server has not caught up with the active node yet"),
    codes.too_many_requests: _Meaning(_UNREACHABLE, "the server asked for fewer requests; raise `poll`, or the server's quota"),
    472: _Meaning(
        _UNREACHABLE, "the server is a standby for disaster recovery; point vault.address to the active cluster", everywhere=True
    ),
    473: _Meaning(
        _UNREACHABLE, "the server is a performance standby that cannot answer; point vault.address to the active node", everywhere=True
    ),
    codes.not_implemented: _Meaning(_REFUSED, "the server is not initialised; initialise and unseal it", everywhere=True),
    codes.bad_gateway: _Meaning(_UNREACHABLE, "the server failed with status 502; see the server's log", everywhere=True),
    codes.service_unavailable: _Meaning(_UNREACHABLE, "the server failed with status 503; see the server's log", everywhere=True),
}
_SEALED = _Meaning(_REFUSED, "the server is sealed; unseal it", everywhere=True)
_EMPTY = _Meaning(_MISCONFIGURED, "the server answered with nothing; `write` is for paths that issue something")
_STRANGER = _Meaning(_MISCONFIGURED, "the server answered {status} as no Vault does; check vault.address, and what stands in between")
_FAILED = _Meaning(_UNREACHABLE, "the server failed with status {status}; see the server's log")


class Answered(ReadFailed):
    """The server answered no."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: int,
        body: Mapping[str, Any],
        said: str,
        retry_after: float | None,
        everywhere: bool,
    ) -> None:
        super().__init__(kind, message + said, retry_after=retry_after, everywhere=everywhere)
        self.status = status
        self.body = body
        """What it said, as it said it: it may quote what it was sent."""
        self.said = said
        """The same in parentheses for a person, or nothing."""

    def refused(self, *statuses: int) -> bool:
        """Return whether it is the server's own no, with one of these; a page of a proxy tells nothing of a token or a lease."""
        return self.kind is _REFUSED and self.status in statuses


class Exchange:
    """Requests to one server, each within `DEADLINE`; used by several threads at once."""

    def __init__(self, plan: Vault, among: Connections, world: World) -> None:
        self._plan, self._among, self._world = plan, among, world
        self._address = plan.address
        self._session = world.session(plan.tls, timeout=DEADLINE, connections=plan.max_connections, among=among)
        self._adapter = RawAdapter(
            base_uri=plan.address,
            token="",  # request by request
            cert=self._session.cert,
            verify=self._session.verify,
            timeout=DEADLINE,
            allow_redirects=False,
            session=self._session,
            namespace=plan.namespace,
            ignore_exceptions=True,  # they lose the status and Retry-After
        )

    def send(self, token: Secret | None, method: str, path: str, *, may_be_empty: bool = False, **arguments: Any) -> Mapping[str, Any]:
        """Return the body of the answer, empty where it may be; `arguments` are `params` of a read or `json` of a write.

        Raises:
            ReadFailed: there is none; `Answered` when the server said so itself.

        """
        headers = {"X-Vault-Token": token.reveal()} if token else {}
        try:
            response = self._adapter.request(method, f"/v1/{quote(path)}", headers=headers, **arguments)
        except RequestException as error:
            kind, what = explain(error, "vault")
            raise self.failure(kind, path, what, everywhere=concerns_all(error)) from None
        body = _json(response)
        if (response.status_code == codes.ok and "data" in body) or (response.status_code == codes.no_content and may_be_empty):
            return body
        raise self._said_no(method, path, response, body, arguments.get("json") or {})

    def failure(self, kind: FailureKind, path: str, what: str, *, everywhere: bool = False) -> ReadFailed:
        """Return a failure that says where it was."""
        return ReadFailed(kind, f"{self._address}: {path}: {what}", everywhere=everywhere)

    @contextmanager
    def understanding(self, path: str) -> Iterator[None]:
        """Take an answer to a request for `path` whose fields are of another kind than Vault's for that of something else."""
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            what = "the server answered something that Vault does not say; check vault.address, and what stands in between"
            raise self.failure(FailureKind.MISCONFIGURED, path, what) from None

    def mistake(self, what: str) -> ReadFailed:
        """Return a failure of the settings for this server, before anything was asked."""
        return ReadFailed(FailureKind.MISCONFIGURED, f"{self._address}: {what}", everywhere=True)

    def afresh(self) -> "Exchange":
        """Return another one, whose connections show the certificate that its file holds now."""
        return Exchange(self._plan, self._among, self._world)

    def close(self) -> None:
        """Free the connections."""
        self._session.close()

    def _said_no(self, method: str, path: str, response: Response, body: Mapping[str, Any], sent: Mapping[str, Any]) -> Answered:
        meaning, wait = _meaning(response.status_code, body), retry_after(response.headers)
        capability = "read" if method == "get" else "update"
        text = meaning.text.format(status=response.status_code, path=path, capability=capability, method=method.upper())
        return Answered(
            meaning.kind,
            f"{self._address}: {path}: {text}",
            status=response.status_code,
            body=body,
            said=_quoted(body, sent),
            retry_after=wait,
            # Who asks for fewer requests and says for how long means all of them.
            everywhere=meaning.everywhere or (response.status_code == codes.too_many_requests and wait is not None),
        )


def _json(response: Response) -> Mapping[str, Any]:
    """Return the body, empty when it is no JSON object."""
    try:
        body = response.json(parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _finite(text: str) -> float:
    """Return a number that is one: JSON has neither NaN nor infinity, and no time here is either."""
    if text == "NaN" or isinf(number := float(text)):
        raise ValueError("no number")
    return number


def _meaning(status: int, body: Mapping[str, Any]) -> _Meaning:
    if status == codes.no_content:
        return _EMPTY
    if status == codes.service_unavailable and "sealed" in _errors(body):
        return _SEALED
    meaning = _MEANINGS.get(status, _FAILED if status >= codes.internal_server_error else _STRANGER)
    # A proxy may well speak for a Vault that is down or busy, but a Vault says no by itself.
    if meaning.kind is not _UNREACHABLE and not body.keys() & {"errors", "data"}:
        return _STRANGER
    return meaning


def _errors(body: Mapping[str, Any]) -> str:
    errors = body.get("errors")
    return " ".join(" ".join(map(str, errors)).split()) if isinstance(errors, list) else ""


def _quoted(body: Mapping[str, Any], sent: Mapping[str, Any]) -> str:
    """Return what the server said in parentheses, short, and without what it was sent: that may be a password."""
    text = _errors(body)
    texts = [value for value in sent.values() if isinstance(value, str)]
    # Each line too, since the server may have written their ends in another way.
    parts = {" ".join(part.split()) for value in texts for part in (value, *value.splitlines())}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= _SHORTEST_MASKED:
            text = text.replace(part, "***")
    return f" ({text[:_LONGEST_QUOTE]})" if text else ""
