"""Login methods of a real OpenBao: who may log in there, with what, and for which token."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.servers.certificates import Authority
from tests.servers.openbao import OpenBao


@dataclass
class Approle:
    """A role of AppRole, which takes the options of `auth/approle/role/NAME`."""

    server: OpenBao
    mount: str = "approle"
    options: dict[str, Any] = field(default_factory=dict)
    namespace: str = ""

    def __post_init__(self) -> None:
        self.client = self.server.client()
        self.client.adapter.namespace = self.namespace
        self.client.write_data(f"sys/auth/{self.mount}", data={"type": "approle"})  # hvac quotes a slash
        self.change(**self.options)

    @property
    def role_id(self) -> str:
        return str(self.client.read(f"auth/{self.mount}/role/web/role-id")["data"]["role_id"])

    def change(self, **options: Any) -> None:
        self.client.write_data(f"auth/{self.mount}/role/web", data=options)

    def delete(self) -> None:
        self.client.delete(f"auth/{self.mount}/role/web")

    def secret_id(self, **options: Any) -> str:
        return str(self.client.write_data(f"auth/{self.mount}/role/web/secret-id", data=options)["data"]["secret_id"])

    def wrapped(self, **options: Any) -> str:
        """Return a token that wraps a secret_id."""
        return str(self.client.write_data(f"auth/{self.mount}/role/web/secret-id", data=options, wrap_ttl="60s")["wrap_info"]["token"])


class Signer:
    """Signs JWTs with a key of its own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.public = (
            self._key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
        )

    def sign(self, **claims: Any) -> str:
        now = int(time.time())
        claims = {"iat": now - 10, "nbf": now - 10, "exp": now + 600, **claims}
        signed = b".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT"}, claims))
        r, s = decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return (signed + b"." + _base64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def jwt(server: OpenBao, **role: Any) -> Signer:
    """Let whoever has a JWT of the returned signer for `vault` log in as `web`."""
    signer = Signer()
    server.client().sys.enable_auth_method("jwt")
    server.write("auth/jwt/config", jwt_validation_pubkeys=[signer.public], bound_issuer="tests")
    server.write("auth/jwt/role/web", role_type="jwt", user_claim="sub", bound_audiences=["vault"], **role)
    return signer


def service_account(signer: Signer, name: str = "web", namespace: str = "apps") -> str:
    """Return a token as the kubelet mounts it."""
    account = {"namespace": namespace, "serviceaccount": {"name": name, "uid": "u-1"}}
    return signer.sign(iss="kubernetes/serviceaccount", sub=f"system:serviceaccount:{namespace}:{name}", **{"kubernetes.io": account})


class ApiServer:
    """A Kubernetes API that reviews tokens: those in `known` are service accounts' by that name."""

    def __init__(self, authority: Authority) -> None:
        self.known: dict[str, str] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                user = api.known.get(review["spec"]["token"])
                status = {"authenticated": user is not None, "user": {"username": user, "uid": "u-1", "groups": []}}
                content = json.dumps({**review, "status": status}).encode()
                self.send_response(201)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_args: Any) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("127.0.0.1"))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"https://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def kubernetes(server: OpenBao, authority: Authority, **role: Any) -> Iterator[ApiServer]:
    """Let the service account `web` of the namespace `apps` log in as `web`, once the API server knows its token."""
    api = ApiServer(authority)
    try:
        server.client().sys.enable_auth_method("kubernetes")
        reviewer = service_account(Signer(), "reviewer")
        server.write(
            "auth/kubernetes/config",
            kubernetes_host=api.address,
            kubernetes_ca_cert=authority.ca_file.read_text(),
            disable_local_ca_jwt=True,
            token_reviewer_jwt=reviewer,
        )
        server.write(
            "auth/kubernetes/role/web", bound_service_account_names="web", bound_service_account_namespaces="apps", audience="", **role
        )
        yield api
    finally:
        api.stop()


def userpass(server: OpenBao, password: str, **user: Any) -> None:
    """Let `ann` log in with a password."""
    server.client().sys.enable_auth_method("userpass")
    server.write("auth/userpass/users/ann", password=password, **user)


def cert(server: OpenBao, ca_file: Path, **role: Any) -> None:
    """Let whoever has a certificate of an authority log in as `web`."""
    server.client().sys.enable_auth_method("cert")
    server.write("auth/cert/certs/web", certificate=ca_file.read_text(), **role)
