"""How a token is had: for each method what is posted where, and from which files, which are read again at each login."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from requests import codes

from reloader.backends.reads import ReadFailed
from reloader.backends.transport import fits_header
from reloader.backends.vault.exchange import Answered, Exchange
from reloader.backends.vault.token import Life
from reloader.plan import Vault, VaultAuth
from reloader.snapshot import FailureKind
from reloader.written import Secret

KUBERNETES_JWT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
"""Where the kubelet mounts the token of the Pod's service account."""

_REFUSALS = (codes.bad_request, codes.unauthorized, codes.forbidden, codes.not_found)


@dataclass(frozen=True)
class Login:
    """One login."""

    path: str
    body: Mapping[str, str] = field(repr=False)
    check: str
    """What to check when it is refused."""


class SecretIds:
    """The secret_id of AppRole, from a file that holds it or a response-wrapping token for it.

    A wrapping token is good for one unwrapping, and what was in it is needed again at each login: it is remembered with its token's hash.
    """

    def __init__(self, plan: Vault, exchange: Exchange) -> None:
        self._auth = plan.auth
        self._exchange = exchange
        self._unwrapped: tuple[str, Secret] | None = None

    def get(self) -> str:
        """Return the secret_id to use now; unwraps at most once for each content of the file.

        Raises:
            ReadFailed: there is none.

        """
        path = self._auth.secret_id_file or ""
        written = read_file("secret_id_file", path, self._exchange)
        if not self._auth.secret_id_wrapped:
            return written
        name = hashlib.sha256(written.encode()).hexdigest()
        if self._unwrapped is None or self._unwrapped[0] != name:
            self._unwrapped = name, Secret(self._unwrap(written, path))
        return self._unwrapped[1].reveal()

    def keep(self) -> dict[str, str] | None:
        """Return what was unwrapped, as plain JSON."""
        return {"from": self._unwrapped[0], "secret_id": self._unwrapped[1].reveal()} if self._unwrapped else None

    def adopt(self, kept: Any) -> None:
        """Take what `keep` returned."""
        match kept:
            case {"from": str(name), "secret_id": str(text)}:
                self._unwrapped = name, Secret(text)

    def _unwrap(self, written: str, path: str) -> str:
        if not fits_header(written):
            raise self._exchange.mistake(f"vault.auth.secret_id_file {path} holds no wrapping token, which is one line")
        self._check_origin(written, path)
        answer = self._ask("sys/wrapping/unwrap", Secret(written), {}, path)
        secret_id = (answer.get("data") or {}).get("secret_id")
        if not isinstance(secret_id, str):
            raise self._exchange.failure(FailureKind.MISCONFIGURED, "sys/wrapping/unwrap", f"what {path} wraps holds no secret_id")
        return secret_id

    def _check_origin(self, written: str, path: str) -> None:
        """Refuse what was not wrapped where secret_ids come from: somebody may have unwrapped the right one and put this in its place."""
        data = self._ask("sys/wrapping/lookup", None, {"token": written}, path).get("data") or {}
        origin = str(data.get("creation_path"))
        if not re.fullmatch(rf"auth/{re.escape(mount_of(self._auth))}/role/[^/]+/(custom-)?secret-id", origin):
            what = f"what {path} wraps comes from {origin}, which gives no secret_id of this mount; find out who put it there"
            raise self._exchange.failure(FailureKind.REFUSED, "sys/wrapping/lookup", what)

    def _ask(self, path: str, token: Secret | None, body: Mapping[str, str], file: str) -> Mapping[str, Any]:
        try:
            return self._exchange.send(token, "post", path, json=body)
        except Answered as failed:
            if not failed.refused(*_REFUSALS):
                raise
            what = f"the wrapping token in {file} is not valid: it is too old, or somebody has unwrapped it already, and if that was not"
            raise self._exchange.failure(
                FailureKind.REFUSED, path, f"{what} this sidecar, the secret_id in it is known to others; put a newly wrapped one there"
            ) from None


def mount_of(auth: VaultAuth) -> str:
    """Return where the login method is mounted, below auth/."""
    return (auth.mount or auth.method).strip("/")


def read_file(key: str, path: str, exchange: Exchange) -> str:
    """Return what the file of a key of `vault.auth` holds, without spaces around it.

    Raises:
        ReadFailed: it cannot be read, or is empty.

    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise exchange.mistake(f"vault.auth.{key} {path}: {error.strerror}; mount the file") from None
    if not text:
        raise exchange.mistake(f"vault.auth.{key} {path} is empty")
    return text


def _kubernetes(auth: VaultAuth, exchange: Exchange, _secret_ids: SecretIds) -> Login:
    file = auth.jwt_file or KUBERNETES_JWT
    body = {"role": auth.role or "", "jwt": read_file("jwt_file", file, exchange)}
    return Login(
        f"auth/{mount_of(auth)}/login", body, f"vault.auth.role {auth.role} and whom it is bound to, and the service account of {file}"
    )


def _jwt(auth: VaultAuth, exchange: Exchange, _secret_ids: SecretIds) -> Login:
    body = {"role": auth.role or "", "jwt": read_file("jwt_file", auth.jwt_file or "", exchange)}
    return Login(
        f"auth/{mount_of(auth)}/login", body, f"vault.auth.role {auth.role}, and the end, issuer and audience of the JWT in {auth.jwt_file}"
    )


def _approle(auth: VaultAuth, _exchange: Exchange, secret_ids: SecretIds) -> Login:
    body = {"role_id": auth.role_id or "", "secret_id": secret_ids.get()}
    spent = "what was wrapped there" if auth.secret_id_wrapped else "the secret_id"
    check = f"vault.auth.role_id, and {auth.secret_id_file}: {spent} may have ended or be spent, so put a new one there"
    return Login(f"auth/{mount_of(auth)}/login", body, check)


def _userpass(auth: VaultAuth, exchange: Exchange, _secret_ids: SecretIds) -> Login:
    body = {"password": read_file("password_file", auth.password_file or "", exchange)}
    return Login(
        f"auth/{mount_of(auth)}/login/{auth.username}",
        body,
        f"vault.auth.username {auth.username}, and the password in {auth.password_file}",
    )


def _cert(auth: VaultAuth, _exchange: Exchange, _secret_ids: SecretIds) -> Login:
    body = {"name": auth.role} if auth.role else {}
    return Login(f"auth/{mount_of(auth)}/login", body, "vault.tls.cert_file, its end, and the certificates that the server's role trusts")


METHODS: Mapping[str, Callable[[VaultAuth, Exchange, SecretIds], Login]] = {
    "kubernetes": _kubernetes,
    "approle": _approle,
    "jwt": _jwt,
    "userpass": _userpass,
    "cert": _cert,
}


class Logins:
    """Logs in by the method of the plan."""

    def __init__(self, plan: Vault, exchange: Exchange) -> None:
        self._plan = plan
        self._exchange = exchange
        self.secret_ids = SecretIds(plan, exchange)

    def log_in(self) -> tuple[Secret, Life]:
        """Return a new token, and what the server tells of it.

        Raises:
            ReadFailed: there is none, which concerns every read.

        """
        try:
            return self._post(METHODS[self._plan.auth.method](self._plan.auth, self._exchange, self.secret_ids))
        except ReadFailed as failed:
            failed.everywhere = True
            raise

    def _post(self, login: Login) -> tuple[Secret, Life]:
        try:
            answer = self._send(login)
        except Answered as failed:
            if not failed.refused(*_REFUSALS):
                raise
            what = f"the login was refused{failed.said}; check {login.check}, and vault.auth.mount and vault.namespace"
            raise self._exchange.failure(FailureKind.REFUSED, login.path, what) from None
        auth = answer.get("auth")
        text = auth.get("client_token") if isinstance(auth, dict) else None
        if not isinstance(auth, dict) or not isinstance(text, str) or not fits_header(text):
            what = "the login brought no token; it must need no second factor"
            raise self._exchange.failure(FailureKind.MISCONFIGURED, login.path, what)
        with self._exchange.understanding(login.path):
            return Secret(text), Life.of_login(auth)

    def _send(self, login: Login) -> Mapping[str, Any]:
        if self._plan.auth.method != "cert":
            return self._exchange.send(None, "post", login.path, json=login.body)
        # A connection shows the certificate that was there when it was opened; the file may hold another one by now.
        exchange = self._exchange.afresh()
        try:
            return exchange.send(None, "post", login.path, json=login.body)
        finally:
            exchange.close()
