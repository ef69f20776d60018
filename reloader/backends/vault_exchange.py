"""One request to a Vault or OpenBao server, and what an answer that is no answer means.

hvac is known here alone. Its adapter is used rather than `hvac.Client`, which would fill what is not given from `VAULT_*` variables and
`~/.vault-token`; a token, a CA or an address that the plan does not name must not get in.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from hvac.adapters import RawAdapter
from requests import RequestException, Response, codes

from reloader.backends.reads import ReadFailed
from reloader.backends.transport import explain
from reloader.plan import Vault
from reloader.snapshot import FailureKind
from reloader.world import World
from reloader.written import Secret

DEADLINE = 10.0
"""How many seconds one request may take in all."""
LONGEST_RETRY_AFTER = 300.0
"""How many seconds the server may ask us to wait: a slip of a proxy must not silence a source for a day."""

_LONGEST_QUOTE = 200
_SHORTEST_MASKED = 4

# https://developer.hashicorp.com/vault/api-docs#http-status-codes; 405 is what OpenBao 2.7 says.
_MEANINGS: Mapping[int, tuple[FailureKind, str]] = {
    codes.bad_request: (FailureKind.REFUSED, "the server refused the request; check the path and what is sent with it"),
    codes.unauthorized: (FailureKind.REFUSED, "the server does not know the token; check vault.auth"),
    codes.forbidden: (
        FailureKind.REFUSED,
        'permission denied; the token must be valid, and its policy must hold: path "{path}" {{ capabilities = ["{capability}"] }}',
    ),
    codes.not_found: (FailureKind.REFUSED, "no such path; check it, and vault.namespace"),
    codes.method_not_allowed: (
        FailureKind.MISCONFIGURED,
        "the path does not take a {method}; a path that issues needs `write`, a path that is read none",
    ),
    codes.precondition_failed: (FailureKind.UNREACHABLE, "the server has not caught up with the active node yet"),
    codes.too_many_requests: (FailureKind.UNREACHABLE, "the server asked for fewer requests; raise `poll`, or the server's quota"),
    472: (FailureKind.UNREACHABLE, "the server is a standby for disaster recovery; point vault.address to the active cluster"),
    473: (FailureKind.UNREACHABLE, "the server is a performance standby that cannot answer; point vault.address to the active node"),
    codes.not_implemented: (FailureKind.REFUSED, "the server is not initialised; initialise and unseal it"),
}
_SEALED = (FailureKind.REFUSED, "the server is sealed; unseal it")
_EMPTY = (FailureKind.MISCONFIGURED, "the server answered with nothing; `write` is for paths that issue something")
_STRANGER = (FailureKind.MISCONFIGURED, "the server answered {status} as no Vault does; check vault.address, and what stands in between")
_FAILED = (FailureKind.UNREACHABLE, "the server failed with status {status}; see the server's log")


class Answered(ReadFailed):
    """The server answered no."""

    def __init__(self, kind: FailureKind, message: str, *, status: int, body: Mapping[str, Any], retry_after: float | None) -> None:
        super().__init__(kind, message, retry_after=retry_after)
        self.status = status
        self.body = body
        """What it said, as it said it: it may quote what it was sent."""


class Exchange:
    """Requests to one server, each within `DEADLINE`; used by several threads at once."""

    def __init__(self, plan: Vault, world: World) -> None:
        self._address = plan.address
        self._session = world.session(plan.tls, timeout=DEADLINE, connections=plan.max_connections)
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

    def send(self, token: Secret | None, method: str, path: str, **arguments: Any) -> Mapping[str, Any]:
        """Return the body of the answer; `arguments` are `params` of a read or `json` of a write.

        Raises:
            ReadFailed: there is none; `Answered` when the server said so itself.

        """
        headers = {"X-Vault-Token": token.reveal()} if token else {}
        try:
            response = self._adapter.request(method, f"/v1/{quote(path)}", headers=headers, **arguments)
        except RequestException as error:
            kind, what = explain(error, "vault")
            raise self.failure(kind, path, what) from None
        body = _json(response)
        if response.status_code == codes.ok and "data" in body:
            return body
        raise self._said_no(method, path, response, body, arguments.get("json") or {})

    def failure(self, kind: FailureKind, path: str, what: str) -> ReadFailed:
        """Return a failure that says where it was."""
        return ReadFailed(kind, f"{self._address}: {path}: {what}")

    def mistake(self, what: str) -> ReadFailed:
        """Return a failure of the settings for this server, before anything was asked."""
        return ReadFailed(FailureKind.MISCONFIGURED, f"{self._address}: {what}")

    def close(self) -> None:
        """Free the connections."""
        self._session.close()

    def _said_no(self, method: str, path: str, response: Response, body: Mapping[str, Any], sent: Mapping[str, Any]) -> Answered:
        kind, meaning = _meaning(response.status_code, body)
        capability = "read" if method == "get" else "update"
        text = meaning.format(status=response.status_code, path=path, capability=capability, method=method.upper())
        return Answered(
            kind,
            f"{self._address}: {path}: {text}{_quoted(body, sent)}",
            status=response.status_code,
            body=body,
            retry_after=_retry_after(response),
        )


def _json(response: Response) -> Mapping[str, Any]:
    """Return the body, empty when it is no JSON object."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _meaning(status: int, body: Mapping[str, Any]) -> tuple[FailureKind, str]:
    if status == codes.no_content:
        return _EMPTY
    if status == codes.service_unavailable and "sealed" in _errors(body):
        return _SEALED
    kind, meaning = _MEANINGS.get(status, _FAILED if status >= codes.internal_server_error else _STRANGER)
    # A proxy may well speak for a Vault that is down or busy, but a Vault says no by itself.
    if kind is not FailureKind.UNREACHABLE and not body.keys() & {"errors", "data"}:
        return _STRANGER
    return kind, meaning


def _errors(body: Mapping[str, Any]) -> str:
    errors = body.get("errors")
    return " ".join(" ".join(map(str, errors)).split()) if isinstance(errors, list) else ""


def _quoted(body: Mapping[str, Any], sent: Mapping[str, Any]) -> str:
    """Return what the server said in parentheses, short, and without what it was sent: that may be a password."""
    text = _errors(body)
    for value in sent.values():
        if isinstance(value, str) and len(value) >= _SHORTEST_MASKED:
            text = text.replace(value, "***")
    return f" ({text[:_LONGEST_QUOTE]})" if text else ""


def _retry_after(response: Response) -> float | None:
    """Return the seconds of a Retry-After; its other form, a date, would need the server's clock."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdecimal() else None
