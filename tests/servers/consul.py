"""A real Consul server with its data on disk, so that it can be killed and brought back."""

import json
from pathlib import Path
from typing import Any

import requests

from tests.servers.daemon import Daemon
from tests.servers.debian import program
from tests.servers.ports import free_port


class Consul:
    """One Consul server with its data below `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._program = program("consul", "consul", suite="bullseye")  # the last release of Debian that has it
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._config = folder / "consul.json"
        self._config.write_text(json.dumps(_config(folder, port)))
        self._daemon = Daemon(folder / "consul.log")
        self._session = requests.Session()
        self._session.trust_env = False

    def start(self) -> None:
        """Start the server on its port, with the data that it has, and return when it leads and knows its own node."""
        command: list[str | Path] = [self._program.path, "agent", f"-config-file={self._config}"]
        self._daemon.start(command, env=self._program.env, ready=self._leads)

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

    def clean(self) -> None:
        """Take away every key and service that a test made."""
        self.delete("", below=True)
        for id in self._ask("GET", "/v1/agent/services").json():  # noqa: A001
            self.deregister(id)

    def _leads(self) -> bool:
        checks = self._ask("GET", "/v1/health/state/passing", params={"consistent": ""}).json()
        return any(check["CheckID"] == "serfHealth" for check in checks)

    def _ask(self, method: str, path: str, **options: Any) -> requests.Response:
        answer = self._session.request(method, self.address + path, timeout=10, **options)
        assert answer.ok, f"Consul: {method} {path}: {answer.status_code} {answer.text}"
        return answer


def _config(folder: Path, port: int) -> dict[str, Any]:
    return {
        "server": True,
        "bootstrap_expect": 1,
        "data_dir": str(folder / "data"),
        "node_name": "tests",
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "ports": {"http": port, "server": free_port(), "serf_lan": free_port(), "serf_wan": -1, "dns": -1, "grpc": -1},
        "performance": {"raft_multiplier": 1},  # an election in 1 to 2 s, the least that a server with its data on disk can be told
        "disable_update_check": True,
        "log_level": "INFO",
        "limits": {"http_max_conns_per_client": 1000},
    }
