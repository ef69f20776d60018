"""A real Consul server with its data on disk, so that it can be killed, emptied and restored; with ACLs, with TLS, or with two others."""

import base64
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import requests

from tests.servers.certificates import Authority
from tests.servers.daemon import Daemon
from tests.servers.debian import program
from tests.servers.ports import free_port
from tests.waiting import eventually


class Consul:
    """One Consul server with its data below `folder`."""

    def __init__(self, folder: Path, authority: Authority | None = None, **config: Any) -> None:
        """Make one; with an authority it serves HTTPS, to those who have a certificate from there. `config` is laid over ours."""
        folder.mkdir(parents=True, exist_ok=True)
        self._program = program("consul", "consul", suite="bullseye")  # the last release of Debian that has it
        scheme = "https" if authority else "http"
        ports = {"http": -1, scheme: free_port(), "server": free_port(), "serf_lan": free_port(), "serf_wan": -1, "dns": -1, "grpc": -1}
        self.address = f"{scheme}://127.0.0.1:{ports[scheme]}"
        self.ports = ports
        self.folder = folder
        self.config = {**_config(folder), "ports": ports, **_tls(authority), **config}
        self._daemon = Daemon(folder / "consul.log")
        self._session = requests.Session()
        self._session.trust_env = False
        if authority is not None:
            self.client_files = tuple(map(str, authority.issue("client")))
            self._session.verify, self._session.cert = str(authority.ca_file), self.client_files

    def start(self) -> None:
        """Start the server on its port, with the data that it has, and return when it leads and knows its own node."""
        file = self.folder / "consul.json"
        file.write_text(json.dumps(self.config))
        command: list[str | Path] = [self._program.path, "agent", f"-config-file={file}"]
        self._daemon.start(command, env=self._program.env, ready=self._ready)

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._daemon.running

    def stop(self, *, kill: bool = False) -> None:
        """End the server, with SIGKILL if `kill`; what it stored stays."""
        self._daemon.stop(kill=kill)

    def put(self, key: str, value: str | bytes) -> None:
        """Set a key."""
        self._ask("PUT", f"/v1/kv/{key}", data=value.encode() if isinstance(value, str) else value)

    def delete(self, key: str, *, below: bool = False) -> None:
        """Delete a key, or with `below` every key that begins so."""
        self._ask("DELETE", f"/v1/kv/{key}", params={"recurse": ""} if below else None)

    def register(
        self,
        name: str,
        id: str | None = None,  # noqa: A002 (Consul's word)
        *,
        port: int,
        address: str = "127.0.0.1",
        passing: bool = True,
        tags: tuple[str, ...] = (),
        meta: dict[str, str] | None = None,
    ) -> str:
        """Register an instance of the service `name`, passing or critical until told otherwise, and return its id."""
        id = id or f"{name}-{port}"  # noqa: A001
        check = {"CheckID": f"service:{id}", "TTL": "24h", "Status": "passing" if passing else "critical"}
        body = {"ID": id, "Name": name, "Address": address, "Port": port, "Tags": list(tags), "Meta": meta or {}, "Check": check}
        self._ask("PUT", "/v1/agent/service/register", json=body)
        # Said once more: a status that was only registered comes back as critical when the agent restarts, a reported one stays.
        (self.recover if passing else self.fail)(id)
        return id

    def fail(self, id: str) -> None:  # noqa: A002
        """Make the instance's check critical."""
        self._ask("PUT", f"/v1/agent/check/fail/service:{id}")

    def recover(self, id: str) -> None:  # noqa: A002
        """Make the instance's check passing again."""
        self._ask("PUT", f"/v1/agent/check/pass/service:{id}")

    def deregister(self, id: str) -> None:  # noqa: A002
        """Take the instance out."""
        self._ask("PUT", f"/v1/agent/service/deregister/{id}")

    def empty(self) -> None:
        """Start the server, which was stopped, without anything of what it stored."""
        shutil.rmtree(self.folder / "data")
        self.start()

    def put_all(self, values: dict[str, str]) -> None:
        """Set many keys, 64 at a time."""
        names = list(values)
        for start in range(0, len(names), 64):
            batch = [{"KV": {"Verb": "set", "Key": name, "Value": _base64(values[name])}} for name in names[start : start + 64]]
            self._ask("PUT", "/v1/txn", json=batch)

    def snapshot(self) -> bytes:
        """Return all that is stored."""
        return self._ask("GET", "/v1/snapshot").content

    def restore(self, snapshot: bytes) -> None:
        """Put what was stored back in the place of what is."""
        self._ask("PUT", "/v1/snapshot", data=snapshot)

    def index(self, key: str) -> int:
        """Return the index of a key."""
        return int(self._ask("GET", f"/v1/kv/{key}").headers["X-Consul-Index"])

    def clean(self) -> None:
        """Take away every key and service that a test made."""
        self.delete("", below=True)
        for id in self._ask("GET", "/v1/agent/services").json():  # noqa: A001
            self.deregister(id)

    def _ready(self) -> bool:
        checks = self._ask("GET", "/v1/health/state/passing", params={"consistent": ""}).json()
        return any(check["CheckID"] == "serfHealth" for check in checks)

    def _ask(self, method: str, path: str, **options: Any) -> requests.Response:
        answer = self._session.request(method, self.address + path, timeout=10, **options)
        assert answer.ok, f"Consul: {method} {path}: {answer.status_code} {answer.text}"
        return answer


class AclConsul(Consul):
    """A Consul that denies whatever a token's policy does not allow."""

    def __init__(self, folder: Path, **acl: Any) -> None:
        """Make one; `acl` is what its ACL configuration has beside that."""
        self.root_token = str(uuid.uuid4())
        tokens = {"master": self.root_token, "agent": self.root_token}
        super().__init__(folder, acl={"enabled": True, "default_policy": "deny", "down_policy": "deny", "tokens": tokens, **acl})
        self._session.headers["X-Consul-Token"] = self.root_token

    def token(self, rules: str) -> str:
        """Return a token for which a policy of its own with these rules holds."""
        name = f"tests-{uuid.uuid4()}"
        self._ask("PUT", "/v1/acl/policy", json={"Name": name, "Rules": rules})
        return str(self._ask("PUT", "/v1/acl/token", json={"Policies": [{"Name": name}]}).json()["SecretID"])

    def change_rules(self, token: str, rules: str) -> None:
        """Let another policy hold for a token."""
        link = self._ask("GET", "/v1/acl/token/self", headers={"X-Consul-Token": token}).json()["Policies"][0]
        self._ask("PUT", f"/v1/acl/policy/{link['ID']}", json={"ID": link["ID"], "Name": link["Name"], "Rules": rules})

    def revoke(self, token: str) -> None:
        """Take a token away."""
        accessor = self._ask("GET", "/v1/acl/token/self", headers={"X-Consul-Token": token}).json()["AccessorID"]
        self._ask("DELETE", f"/v1/acl/token/{accessor}")


class _Member(Consul):
    def knows(self) -> str:
        """Return the address of the leader that it knows; empty if it knows none."""
        return str(self._ask("GET", "/v1/status/leader").json())

    def _ready(self) -> bool:
        return bool(self._ask("GET", "/v1/agent/self"))


class Cluster:
    """Three servers, of which one leads."""

    def __init__(self, folder: Path) -> None:
        self.servers = [_Member(folder / f"server-{number}", bootstrap_expect=3, node_name=f"tests-{number}") for number in range(3)]
        for server in self.servers:
            server.config["retry_join"] = [f"127.0.0.1:{other.ports['serf_lan']}" for other in self.servers if other is not server]
            server.config["retry_interval"] = "1s"

    def start(self) -> None:
        """Start all of them, and return when one leads."""
        for server in self.servers:
            server.start()
        eventually(self.leader, within=60, what="a leader that all know")
        eventually(lambda: self.servers[0].put("started", "yes") or True, within=30, what="a write")

    def leader(self) -> Consul | None:
        """Return who leads, if those who run agree on it."""
        known = {server.knows() for server in self.servers if server.running}
        return next((server for server in self.servers if known == {f"127.0.0.1:{server.ports['server']}"}), None)

    def stop(self, *, kill: bool = False) -> None:
        """End all of them."""
        for server in self.servers:
            server.stop(kill=kill)


def _config(folder: Path) -> dict[str, Any]:
    return {
        "server": True,
        "bootstrap_expect": 1,
        "data_dir": str(folder / "data"),
        "node_name": "tests",
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "performance": {"raft_multiplier": 1},  # an election in 1 to 2 s, the least that a server with its data on disk can be told
        "disable_update_check": True,
        "log_level": "INFO",
        "limits": {"http_max_conns_per_client": 1000},
    }


def _tls(authority: Authority | None) -> dict[str, Any]:
    if authority is None:
        return {}
    cert_file, key_file = authority.issue("consul.test", "127.0.0.1")
    return {"ca_file": str(authority.ca_file), "cert_file": str(cert_file), "key_file": str(key_file), "verify_incoming_https": True}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
