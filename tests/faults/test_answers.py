"""A server that turns bad in every way, before a whole sidecar: it lives, what is published stays, and what changed arrives later."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reloader.snapshot import FailureKind
from tests.e2e.sidecar import Sidecar
from tests.servers.certificates import Authority
from tests.servers.consul import Consul
from tests.servers.faults import FAULTS, Fault, Meant, Stage
from tests.servers.misbehaving import Behaviour, Misbehaving, hand_on, html, misbehaving
from tests.servers.openbao import OpenBao
from tests.waiting import eventually

pytestmark = pytest.mark.servers

CONFIGURATION = """
vault:  {{address: '{vault}', auth: {{token_file: {folder}/vault-token}}, tls: {{ca_file: {ca_file}}}}}
consul: {{address: '{consul}', token_file: {folder}/consul-token, tls: {{ca_file: {ca_file}}}}}
sources:
  vault:  {{kind: vault, path: secret/app, poll: 500ms}}
  consul: {{kind: consul, key: app/flags}}
volume:
  path: {live}
  files:
    app.conf: {{content: "{{{{ vault.password }}}} {{{{ consul }}}}"}}
target: {{kind: none}}
timing: {{min_interval: 0s}}
failure: {{max_staleness: 10m}}
"""
RIGHTS = 'path "secret/*" { capabilities = ["read"] }'
PATHS = {"vault": ("secret/", "sys/", "the token of vault.auth.token_file"), "consul": "key app/flags"}
SLOW = "slow"


@dataclass(frozen=True)
class Front:
    """Stands before a real server, until it fails."""

    stage: Stage
    good: Behaviour
    certificate: tuple[str, str]

    @property
    def server(self) -> Misbehaving:
        return self.stage.server

    def fail(self, fault: Fault) -> None:
        fault.begin(self.stage)
        self.server.cut_all()

    def mend(self, fault: Fault) -> None:
        self.server.behave = self.good
        if fault is FAULTS["refused"]:
            self.server.listen()
        self.server.present(self.certificate)


class Street:
    """A sidecar with a pipeline for each fault, which reads from a Vault and a Consul of its own; and another host."""

    def __init__(self, folder: Path, faults: Mapping[str, Fault], make: Callable[[str, Stage], Front], other: Misbehaving) -> None:
        self.faults, self.folder, self.other = faults, folder, other
        self.fronts = {(name, backend): self._front(name, backend, make) for name in faults for backend in ("vault", "consul")}
        files = [self._configuration(name) for name in faults]
        self.sidecar = Sidecar(folder / "sidecar", *files)

    def published(self) -> set[str]:
        return {(self._live(name) / "app.conf").read_text() for name in self.faults}

    def told(self) -> dict[tuple[str, str], str]:
        """Return the failure of each source."""
        pipelines = self.sidecar.get("/status").json()["pipelines"]
        return {(each["name"], source["name"]): source["failure"] or "" for each in pipelines for source in each["sources"]}

    def waits(self) -> bool:
        """Return whether every Consul is at a blocking query, which is cut when it fails; one that came later would last a minute."""
        return all("index" in front.server.exchanges[-1].query for (_, backend), front in self.fronts.items() if backend == "consul")

    def tells(self) -> bool:
        """Be sure that each source tells of its failure what it has to: class, address, path and mend."""
        told = self.told()
        wrong = {
            (name, backend): failure
            for (name, backend), front in self.fronts.items()
            if not (failure := told[self.pipeline(name), backend]).startswith(f"{self.meant(name, backend).kind}: {front.server.address}: ")
            or not failure.split(": ")[2].startswith(PATHS[backend])
            or self.meant(name, backend).words not in failure
        }
        assert wrong == {}
        return True

    def meant(self, name: str, backend: str) -> Meant:
        fault = self.faults[name]
        if (name, backend) == ("403", "vault"):  # the token, which was known, may not even be looked up
            return Meant(FailureKind.REFUSED, "put a new one there")
        return fault.vault if backend == "vault" else fault.consul

    def pipeline(self, name: str) -> str:
        return "".join(each if each.isalnum() else "-" for each in name)

    def _live(self, name: str) -> Path:
        return self.folder / "live" / self.pipeline(name)

    def _front(self, name: str, backend: str, make: Callable[[str, Stage], Front]) -> Front:
        return make(backend, self.folder / self.pipeline(name))

    def _configuration(self, name: str) -> Path:
        file = self.folder / f"{self.pipeline(name)}.yaml"
        vault, consul = self.fronts[name, "vault"], self.fronts[name, "consul"]
        text = CONFIGURATION.format(
            vault=vault.server.address,
            consul=consul.server.address,
            folder=self.folder,
            ca_file=vault.stage.authority.ca_file,
            live=self._live(name),
        )
        file.write_text(text)
        return file


@pytest.fixture(params=[*FailureKind, SLOW])
def street(request: pytest.FixtureRequest, tmp_path: Path, openbao: OpenBao, consul_server: Consul) -> Iterator[Street]:
    """Servers that are going to fail in the ways that Vault's client takes alike."""
    faults = {name: fault for name, fault in FAULTS.items() if request.param == (SLOW if fault.slow else fault.vault.kind)}
    authority = Authority(tmp_path / "authority")
    certificate = tuple(map(str, authority.issue("127.0.0.1")))
    good = {"vault": hand_on(openbao.address), "consul": hand_on(consul_server.address)}
    openbao.enable("kv", "secret", version="2")
    (tmp_path / "vault-token").write_text(openbao.policy_token(RIGHTS))
    (tmp_path / "consul-token").write_text("CANARY-token")
    with ExitStack() as stops:
        other = stops.enter_context(misbehaving(html))

        def make(backend: str, folder: Path) -> Front:
            server = stops.enter_context(misbehaving(good[backend], certificate))
            return Front(Stage(server, other.address, authority, folder), good[backend], certificate)

        street = Street(tmp_path, faults, make, other)
        stops.callback(street.sidecar.stop)
        yield street


def test_a_server_that_fails_in_any_way_ends_leaks_and_blanks_nothing(street: Street, openbao: OpenBao, consul_server: Consul) -> None:
    """Each source tells what is wrong, and where, what mends it, and of which class it is; the next change arrives once it is."""

    def say(text: Any) -> None:
        openbao.put_kv2("secret", "app", {"password": f"CANARY-{text}"})
        consul_server.put("app/flags", f"CANARY-{text}")

    say(1)
    sidecar = street.sidecar.start()
    eventually(lambda: street.published() == {"CANARY-1 CANARY-1"}, within=60, what="the first sets")
    eventually(street.waits, what="the blocking queries")
    for (name, _), front in street.fronts.items():
        front.fail(street.faults[name])
    say(2)
    eventually(street.tells, within=60, what="the failures")

    assert street.published() == {"CANARY-1 CANARY-1"}
    assert sidecar.get("/healthz").status_code == 200
    assert sidecar.ready()
    seen = sidecar.get("/status").text + sidecar.get("/metrics").text

    for (name, _), front in street.fronts.items():
        front.mend(street.faults[name])
    eventually(lambda: street.published() == {"CANARY-2 CANARY-2"}, within=60, what="the change")
    eventually(lambda: not any(street.told().values()), what="no failure any more")

    assert sidecar.running
    assert street.other.connections == 0
    for secret in ("CANARY", (street.folder / "vault-token").read_text()):
        assert secret not in seen + sidecar.get("/status").text + sidecar.get("/metrics").text + sidecar.log()
