"""Servers that are made to fail in every way that they have, each behind a forwarder that counts what they are asked."""

import contextlib
import random
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import requests
from hvac.exceptions import VaultError

from tests.servers.consul import AclConsul, Cluster
from tests.servers.counting import Counting
from tests.servers.logins import Approle
from tests.servers.openbao import OpenBao
from tests.servers.postgres import Postgres
from tests.waiting import eventually

TERM, MOST = 6, 20
"""For how many seconds a database user is made, and for how many its lease can be renewed."""
LIFETIME = 8
"""Seconds that a certificate is valid for."""
HISTORY = 500
"""How far the indexes of a Consul are ahead of one that begins anew."""
PACE = 1.5
"""Seconds between two changes of a value."""

POLICY = """
path "secret/*" { capabilities = ["read"] }
path "database/creds/app" { capabilities = ["read"] }
path "pki/issue/any" { capabilities = ["update"] }
"""
NARROW = 'path "pki/issue/any" { capabilities = ["update"] }'
RULES = """
key_prefix "app/" { policy = "read" }
service "web" { policy = "read" }
node_prefix "" { policy = "read" }
"""


class Trouble(ABC):
    """Servers of one kind, what can happen to them, and how they are made well again."""

    def __init__(self, upstream: str) -> None:
        self.counting = Counting(upstream)
        self.number = 0
        self.faults: Mapping[str, Callable[[random.Random], None]] = {}
        """By name, those first that need a server that runs."""
        self.happened: list[tuple[float, str]] = []

    @abstractmethod
    def change(self, number: int) -> None:
        """Let every value be this number."""

    @abstractmethod
    def heal(self) -> None:
        """Make everything well, whatever happened."""

    @abstractmethod
    def stop(self) -> None:
        """End the servers."""

    def advance(self) -> None:
        """Change every value, if that is possible now."""
        self.number += 1
        with contextlib.suppress(AssertionError, OSError, ValueError, VaultError):
            self.change(self.number)

    def let_be(self, seconds: float, over: threading.Event) -> None:
        """Do nothing but change values for a while."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not over.wait(min(PACE, left)):
            if left > PACE:
                self.advance()

    def storm(self, rng: random.Random, until: float, over: threading.Event) -> None:
        """Let one to three things happen at a time, each once before any does again, with times of rest in between."""
        left: list[str] = []
        while time.monotonic() < until and not over.is_set():
            left = left or rng.sample(list(self.faults), len(self.faults))
            chosen = {left.pop() for _ in range(min(len(left), rng.choice([1, 2, 3])))}
            for name in (name for name in self.faults if name in chosen):
                self.happened.append((time.monotonic(), name))
                self.faults[name](rng)
            self.let_be(rng.uniform(2, 4), over)
            self.heal()
            self.let_be(rng.uniform(2, 5), over)

    def lose(self, rng: random.Random) -> None:
        """Have connections refused, or cut by something that stands before the servers."""
        if rng.random() < 0.5:
            self.counting.refuse()


class Vault(Trouble):
    """An OpenBao with a secret, an engine that makes users of a database, and one that issues certificates."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        self._folder, self._postgres = folder, postgres
        self.server = OpenBao(folder / "openbao")
        super().__init__(self.server.address)
        self.audit = folder / "openbao" / "audit.log"
        self.faults = {
            "policy narrowed": lambda _: self._allow(NARROW),
            "token revoked": lambda _: self._revoke("auth/approle"),
            "leases revoked": lambda _: self._revoke("database/creds"),
            "leases run out": self._run_out,
            "sealed": lambda _: self.server.seal(),
            "killed": self._kill,
        }

    def start(self) -> None:
        """Start it, with all that it has."""
        self.server.start()
        self.server.enable("kv", "secret", version="2")
        self.server.pki("pki", "tests root")
        self._postgres.connect(self.server)
        self._postgres.role(self.server, "app", ttl=f"{TERM}s", max_ttl=f"{MOST}s")
        self._allow(POLICY)
        role = Approle(self.server, options={"token_policies": "app", "token_ttl": "20s"})
        self._secret_id = self._folder / "secret-id"
        self._secret_id.write_text(role.secret_id())
        self.connection = (
            f"vault: {{address: '{self.counting.address}', auth: {{method: approle, role_id: {role.role_id}, "
            f"secret_id_file: {self._secret_id}}}}}\n"
        )
        self.advance()

    def change(self, number: int) -> None:
        self.server.put_kv2("secret", "app", {"one": f"v{number}", "two": f"v{number}"})

    def heal(self) -> None:
        if not self.server._daemon.running:
            self.server.start()
        self.server.unseal()
        self.counting.listen()
        self._allow(POLICY)

    def stop(self) -> None:
        self.counting.refuse()
        self.server.stop(kill=True)

    def _allow(self, policy: str) -> None:
        self.server.client().sys.create_or_update_policy("app", policy)

    def _revoke(self, prefix: str) -> None:
        self.server.client().write_data(f"sys/leases/revoke-prefix/{prefix}", data={})

    def _run_out(self, rng: random.Random) -> None:
        """Be away for so long that every lease ends meanwhile."""
        self.lose(rng)
        self.server.seal()
        time.sleep(TERM)

    def _kill(self, rng: random.Random) -> None:
        self.lose(rng)
        self.server.stop(kill=True)


class Consul(Trouble):
    """A Consul with ACLs; what it holds can be put there again at any time."""

    def __init__(self, folder: Path) -> None:
        self.server = AclConsul(folder / "consul")
        super().__init__(self.server.address)
        self._token, self._token_file = "", folder / "consul-token"
        self.connection = f"consul: {{address: '{self.counting.address}', token_file: {self._token_file}}}\n"
        self.faults = {
            "restored": self._restore,
            "token replaced": lambda _: self._give_token(),
            "token revoked": lambda _: self._revoke(),
            "emptied": lambda _: self._empty(),
            "killed": self._kill,
        }

    def start(self) -> None:
        self.server.start()
        self._give_token()
        self.advance()
        self._snapshot = self.server.snapshot()
        for number in range(HISTORY):
            self.server.put("other", str(number))
        self.advance()

    def change(self, number: int) -> None:
        self.server.put_all({"app/key": f"c{number}", **{f"app/tree/{name}": f"c{number}" for name in "abc"}})
        # Not by the agent, which brings it to the catalog only after a quarter of a minute where that failed once.
        service = {"ID": "web", "Service": "web", "Port": 80, "Meta": {"number": f"c{number}"}}
        self.server._ask("PUT", "/v1/catalog/register", json={"Node": "outside", "Address": "127.0.0.1", "Service": service})

    def heal(self) -> None:
        if not self.server.running:
            self.server.start()
        self.counting.listen()
        if not self._is_known():
            self._give_token()
        self.advance()

    def stop(self) -> None:
        self.counting.refuse()
        self.server.stop(kill=True)

    def _is_known(self) -> bool:
        headers = {"X-Consul-Token": self._token}
        return requests.get(f"{self.server.address}/v1/acl/token/self", headers=headers, timeout=10).ok

    def _give_token(self) -> None:
        """Put another token into the file, and take the one before away."""
        before, self._token = self._token, self.server.token(RULES)
        new = self._token_file.with_suffix(".new")
        new.write_text(self._token)
        new.rename(self._token_file)
        if before and requests.get(f"{self.server.address}/v1/acl/token/self", headers={"X-Consul-Token": before}, timeout=10).ok:
            self.server.revoke(before)

    def _revoke(self) -> None:
        if self._is_known():
            self.server.revoke(self._token)

    def _restore(self, rng: random.Random) -> None:
        """Have what there was at the start, in the same server or with lower indexes in an empty one."""
        if anew := rng.random() < 0.5:
            self._empty()
        self.server.restore(self._snapshot)
        if anew and not self._is_known():
            self._admit()

    def _empty(self) -> None:
        """Lose everything but the token, so that the answers are empty ones rather than refusals."""
        self.server.stop(kill=True)
        self.server.empty()
        self._admit()

    def _admit(self) -> None:
        """Let the token that is in the file hold again."""
        name = f"again-{uuid.uuid4()}"
        self.server._ask("PUT", "/v1/acl/policy", json={"Name": name, "Rules": RULES})
        self.server._ask("PUT", "/v1/acl/token", json={"SecretID": self._token, "Policies": [{"Name": name}]})

    def _kill(self, rng: random.Random) -> None:
        self.lose(rng)
        self.server.stop(kill=True)


class Trio(Trouble):
    """A cluster of three Consul servers, of which the sidecar asks one."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder)
        super().__init__(self.cluster.servers[0].address)
        self.connection = f"consul: {{address: '{self.counting.address}'}}\n"
        self.faults = {"leader lost": lambda _: self._lose_leader(), "majority lost": lambda _: self._lose_majority()}

    def start(self) -> None:
        self.cluster.start()
        self.advance()

    def change(self, number: int) -> None:
        running = [server for server in self.cluster.servers if server.running]
        assert running, "all of them are lost"
        running[0].put_all({"app/key": f"t{number}", **{f"app/tree/{name}": f"t{number}" for name in "abc"}})

    def heal(self) -> None:
        for server in self.cluster.servers:
            if not server.running:
                server.start()
        self.counting.listen()
        eventually(self.cluster.leader, within=60, what="a leader that all know")

    def stop(self) -> None:
        self.counting.refuse()
        self.cluster.stop(kill=True)

    def _lose_leader(self) -> None:
        leader = self.cluster.leader()
        if leader is not None:
            leader.stop(kill=True)

    def _lose_majority(self) -> None:
        for server in self.cluster.servers[1:]:
            server.stop(kill=True)
