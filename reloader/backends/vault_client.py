"""One Vault or OpenBao server as the backend sees it: who we are there, and what an answer that is no answer means.

hvac is known here alone. Its adapter is used rather than `hvac.Client`, which would fill what is not given from `VAULT_*` variables and
`~/.vault-token`; a token, a CA or an address that the plan does not name must not get in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hvac.adapters import RawAdapter
from requests import RequestException, Response, codes

from reloader.backends.reads import ReadFailed
from reloader.backends.transport import explain
from reloader.plan import Vault, VaultAuth
from reloader.snapshot import FailureKind
from reloader.world import World

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


class Identity:
    """Who we are at the server: owns the token, and is the one place that knows what to do when it is refused."""

    def __init__(self, auth: VaultAuth, address: str) -> None:
        self._auth = auth
        self._address = address

    def token(self) -> str:
        """Return the token to use now; a token file is read each time, so that a rotated one is taken at once.

        Raises:
            ReadFailed: there is none.

        """
        if self._auth.token is not None:
            return self._checked(self._auth.token.reveal(), "vault.auth.token (or VAULT_TOKEN)")
        if self._auth.token_file is not None:
            return self._checked(self._read(self._auth.token_file), f"vault.auth.token_file {self._auth.token_file}")
        raise self._mistake("no token; set vault.auth.token_file, or VAULT_TOKEN in the environment")

    def instead_of(self, refused: str) -> str | None:
        """Return another token than the one that the server refused, None when there is no other."""
        token = self.token()
        return None if token == refused else token

    def _read(self, path: str) -> str:
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            raise self._mistake(f"vault.auth.token_file {path}: {error.strerror}; mount the file that holds the token") from None

    def _checked(self, token: str, where: str) -> str:
        # requests quotes a header that it cannot send in its error, so such a token must not get that far.
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise self._mistake(f"{where} holds no token: one line of printable characters was expected")
        return token

    def _mistake(self, what: str) -> ReadFailed:
        return ReadFailed(FailureKind.MISCONFIGURED, f"{self._address}: {what}")


class Client:
    """Requests with the right token, each within `DEADLINE`; used by several threads at once."""

    def __init__(self, plan: Vault, world: World) -> None:
        self._address = plan.address
        self._identity = Identity(plan.auth, plan.address)
        self._session = world.session(plan.tls, timeout=DEADLINE, connections=plan.max_connections)
        self._adapter = RawAdapter(
            base_uri=plan.address,
            token="",  # the identity's, request by request
            cert=self._session.cert,
            verify=self._session.verify,
            timeout=DEADLINE,
            allow_redirects=False,
            session=self._session,
            namespace=plan.namespace,
            ignore_exceptions=True,  # they lose the status and Retry-After
        )

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the body of the answer to a read.

        Raises:
            ReadFailed: there is none; `Answered` when the server said so itself.

        """
        return self._ask("get", path, params=parameters)

    def post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the body of the answer to a write; raises as `get`."""
        return self._ask("post", path, json=body)

    def failure(self, kind: FailureKind, path: str, what: str) -> ReadFailed:
        """Return a failure that says where it was."""
        return ReadFailed(kind, f"{self._address}: {path}: {what}")

    def close(self) -> None:
        """Free the connections."""
        self._session.close()

    def _ask(self, method: str, path: str, **arguments: Any) -> Mapping[str, Any]:
        """Ask; a token that is refused may just have been replaced, so another one is tried once before it counts."""
        token = self._identity.token()
        try:
            return self._send(token, method, path, **arguments)
        except Answered as failed:
            other = self._identity.instead_of(token) if failed.status == codes.forbidden else None
            if other is None:
                raise
        return self._send(other, method, path, **arguments)

    def _send(self, token: str, method: str, path: str, **arguments: Any) -> Mapping[str, Any]:
        try:
            response = self._adapter.request(method, f"/v1/{quote(path)}", headers={"X-Vault-Token": token}, **arguments)
        except RequestException as error:
            kind, what = explain(error, "vault")
            raise self.failure(kind, path, what) from None
        body = _json(response)
        if response.status_code == codes.ok and "data" in body:
            return body
        raise self._said_no(method, path, response, body, arguments.get("json") or {})

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
