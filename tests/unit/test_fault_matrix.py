"""Every fault of a server at every point at which each client meets it: a failure with its class, address, path and mend, in time."""

import base64
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reloader.backends.consul import Backend as Consul, Since, client as consul_client
from reloader.backends.consul.reads import Fold, Key, Nodes, Prefix, Read, Service, Services
from reloader.backends.reads import ReadFailed
from reloader.backends.turns import Turns
from reloader.backends.vault import Backend as Vault, Secret, Write, exchange as vault_exchange
from reloader.plan import Consul as ConsulPlan, Tls, Vault as VaultPlan, VaultAuth
from reloader.schedule import Backoff
from reloader.world import World, session
from reloader.world.clock import Clock
from reloader.written import Secret as Hidden
from tests.scale import rounds
from tests.servers.certificates import Authority
from tests.servers.faults import FAULTS, Fault, Stage
from tests.servers.misbehaving import Behaviour, Exchange, Misbehaving, misbehaving

TOKEN = "s.CANARY-token"
PASSWORD = "CANARY-password"
SECRET, WRITE = Secret("kv/app"), Write("pki/issue/web", '{"common_name": "CANARY-name"}')


class Stepped(Clock):
    """The machine's clock, some seconds later."""

    later = 0.0

    def now(self) -> float:
        return super().now() + self.later


def says(status: int = 200, **body: Any) -> Behaviour:
    return lambda exchange: exchange.answer(body, status=status)


_AUTH = {"client_token": TOKEN, "accessor": "a1", "lease_duration": 1000, "renewable": True}
_LEASE = {"lease_id": "pki/issue/web/1", "lease_duration": 1000, "renewable": True}
VAULT: Mapping[str, Behaviour] = {
    "auth/userpass/login/ann": says(auth=_AUTH, data=None),
    "auth/approle/login": says(auth=_AUTH, data=None),
    "auth/token/lookup-self": says(403, errors=["permission denied"]),
    "auth/token/renew-self": says(auth=_AUTH, data=None),
    "sys/internal/ui/mounts/kv/app": says(data={"path": "kv/", "type": "kv", "options": {"version": "2"}}),
    "sys/capabilities-self": says(data={"kv/metadata/app": ["read"], "pki/issue/web": ["update"]}),
    "kv/data/app": says(data={"data": {"password": "CANARY"}, "metadata": {"version": 3, "created_time": "then"}}),
    "kv/metadata/app": says(data={"current_version": 3, "versions": {"3": {"created_time": "then"}}}),
    "pki/issue/web": says(**_LEASE, data={"private_key": "CANARY"}),
    "sys/leases/renew": says(**_LEASE, data=None),
    "sys/wrapping/lookup": says(data={"creation_path": "auth/approle/role/web/secret-id"}),
    "sys/wrapping/unwrap": says(data={"secret_id": "CANARY-secret-id"}),
}


def vault(exchange: Exchange) -> None:
    VAULT[exchange.path.removeprefix("/v1/")](exchange)


def consul(exchange: Exchange) -> None:
    """Answer as a Consul that has nothing new, and has had no contact to its leader for a while."""
    kinds = {"/v1/health/service/web": [], "/v1/catalog/services": {}, "/v1/catalog/nodes": []}
    keys = [{"Key": exchange.path.removeprefix("/v1/kv/"), "Value": base64.b64encode(b"CANARY").decode()}]
    exchange.answer(kinds.get(exchange.path, keys), X_Consul_Index="7", X_Consul_LastContact="5000")


class House:
    """A server that serves TLS and is good so far, and another host; and backends that use the first."""

    def __init__(self, server: Misbehaving, other: Misbehaving, authority: Authority, folder: Path) -> None:
        self.server, self.other, self.folder = server, other, folder
        self.stage = Stage(server, other.address, authority, folder)
        self.tls = Tls(ca_file=str(authority.ca_file))
        self.clock = Stepped()
        self.world = World(clock=self.clock)
        self._backends: list[Vault | Consul] = []

    def vault(self, **auth: Any) -> Vault:
        plan = VaultPlan(address=self.server.address, auth=VaultAuth(**auth or {"token": Hidden(TOKEN)}), tls=self.tls)
        self.server.behave = vault
        self._backends.append(Vault(plan, Turns(plan.address, plan.max_connections, self.world), self.world))
        return self._backends[-1]

    def consul(self) -> Consul:
        plan = ConsulPlan(address=self.server.address, token=Hidden(TOKEN), tls=self.tls)
        self.server.behave = consul
        backend = Consul(plan, Turns(plan.address, plan.max_connections, self.world), self.world)
        backend.is_wanted = lambda read: True
        self._backends.append(backend)
        return backend

    def password(self) -> dict[str, str]:
        (self.folder / "password").write_text(PASSWORD)
        return {"method": "userpass", "username": "ann", "password_file": str(self.folder / "password")}

    def wrapped(self) -> dict[str, Any]:
        (self.folder / "secret_id").write_text(TOKEN)
        return {"method": "approle", "role_id": "r", "secret_id_file": str(self.folder / "secret_id"), "secret_id_wrapped": True}

    def fails(self, fault: Fault, path: str = "") -> None:
        """Let the server fail from now on, or from the first request for a path (by its end)."""
        good = self.server.behave

        def behave(exchange: Exchange) -> None:
            if exchange.path.endswith(path):
                fault.begin(self.stage)
                self.server.behave(exchange)
            else:
                good(exchange)

        if path:
            self.server.behave = behave
        else:
            fault.begin(self.stage)

    def close(self) -> None:
        for backend in self._backends:
            backend.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[str, str]:
    certificate, key = authority.issue("127.0.0.1")
    return str(certificate), str(key)


@pytest.fixture
def house(authority: Authority, certificate: tuple[str, str], tmp_path: Path) -> Iterator[House]:
    with misbehaving(vault, certificate) as server, misbehaving(vault) as other:
        house = House(server, other, authority, tmp_path)
        yield house
        house.close()


SORTS = (
    "refused",
    "untrusted certificate",
    "hang",
    "truncated",
    "oversize",
    "redirect 307",
    "html",
    "html 403",
    "html 404",
    "deep",
    "400",
    "403",
    "404",
    "412",
    "429 with Retry-After",
    "500",
    "sealed",
)
"""One fault of each sort: all that is tried in a quick run where a request is one among others."""
SOME = FAULTS if rounds(0, 1) else SORTS
some_faults = pytest.mark.parametrize("fault", SOME, indirect=True)


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Fault:
    """A fault that shows soon: where only the deadline ends it, that is short."""
    fault = FAULTS[request.param]
    for module in (consul_client, vault_exchange):
        monkeypatch.setattr(module, "DEADLINE", 0.2 if fault.slow else 30.0)
    monkeypatch.setattr(session, "BODY_LIMIT", 2**20)
    return fault


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def failure(house: House, act: Callable[[], object]) -> ReadFailed:
    with pytest.raises(ReadFailed) as caught:
        act()
    assert str(caught.value).startswith(f"{house.server.address}: ")
    return caught.value


def quiet(house: House, log: pytest.LogCaptureFixture, *texts: object) -> None:
    """Nothing secret was told, and nothing was asked elsewhere."""
    assert "CANARY" not in "".join(map(repr, texts)) + "".join(map(str, texts)) + log.text
    assert house.other.connections == 0


ROWS = {
    "connection refused": {"refused", "cut", "reset"},
    "nothing in time": {name for name, fault in FAULTS.items() if fault.slow},
    "an answer that is cut short": {"truncated", "no http", "endless header", "too many headers", "bad chunks", "garbled"},
    "TLS": {"no tls", "untrusted certificate", "another's certificate", "ended certificate"},
    "a redirect": {name for name in FAULTS if name.startswith("redirect")},
    "HTML": {"html", "html 403", "html 404", "nothing", "deep", "not utf-8", "strange status", "truncated headers"},
    "more than 64 MiB": {"oversize", "bomb"},
    **{f"{status} |": {f"{status}"} for status in (400, 401, 403, 404, 412)},
    "429": {"429", "429 with Retry-After"},
    "472, 473": {"472", "473"},
    "500, 502, 503": {"500", "502", "503", "html 502"},
    "501": {"uninitialised"},
    "503: sealed": {"sealed"},
    "no leader": {"no leader"},
}


def test_the_table_for_operators_has_every_fault_with_its_classes():
    """Row by row, what docs/backends.md says."""
    lines = (Path(__file__).parents[2] / "docs/backends.md").read_text(encoding="utf-8").splitlines()
    assert set().union(*ROWS.values()) == FAULTS.keys()
    for begin, names in ROWS.items():
        (row,) = [line for line in lines if line.startswith(f"| {begin}")]
        vault, consul = re.findall(r"\| `(\w+)`", row)
        assert {(FAULTS[name].vault.kind, FAULTS[name].consul.kind) for name in names} == {(vault, consul)}, row


# Vault

Act = Callable[[], object]


def _mount(house: House) -> Act:
    backend = house.vault()
    backend._client.identity.token()
    return lambda: backend.fetch(SECRET, None, 0)


def _secret(house: House) -> Act:
    backend = house.vault()
    backend.fetch(SECRET, None, 0)
    return lambda: backend.fetch(SECRET, None, 0)


def _metadata(house: House) -> Act:
    backend = house.vault()
    state = backend.fetch(SECRET, None, 0).state
    backend.fetch(SECRET, state, 0)
    return lambda: backend.fetch(SECRET, state, 0)


def _capabilities(house: House) -> Act:
    backend = house.vault()
    state = backend.fetch(SECRET, None, 0).state
    return lambda: backend.fetch(SECRET, state, 0)


def _issue(house: House) -> Act:
    backend = house.vault()
    backend._client.identity.token()
    return lambda: backend.fetch(WRITE, None, 0)


def _login(house: House) -> Act:
    backend = house.vault(**house.password())
    return lambda: backend.fetch(SECRET, None, 0)


def _look_up(house: House) -> Act:
    backend = house.vault()
    return lambda: backend.fetch(SECRET, None, 0)


def _wrapping(house: House) -> Act:
    backend = house.vault(**house.wrapped())
    return lambda: backend.fetch(SECRET, None, 0)


def _rehearsal(house: House) -> Act:
    backend = house.vault()
    backend._client.identity.token()
    return lambda: backend.rehearse(WRITE)


@dataclass(frozen=True)
class Point:
    """Where a client meets a fault first, by the paths that its failure may name."""

    prepare: Callable[[House], Act]
    paths: tuple[str, ...]
    refused: str = ""
    """What is said instead where the server refuses."""
    everywhere: bool = False
    """Whether whatever fails there concerns every read."""
    faults: Collection[str] = tuple(SOME)


_LOGIN_REFUSED = "the login was refused; check vault.auth.username ann"
VAULT_POINTS = {
    "mount": Point(_mount, ("sys/internal/ui/mounts/kv/app", "kv/app")),
    "secret": Point(_secret, ("kv/data/app",), faults=tuple(FAULTS)),
    "metadata": Point(_metadata, ("kv/metadata/app", "kv/data/app")),
    "capabilities": Point(_capabilities, ("sys/capabilities-self", "kv/data/app", "kv/metadata/app")),
    "issue": Point(_issue, ("pki/issue/web",)),
    "login": Point(_login, ("auth/userpass/login/ann",), _LOGIN_REFUSED, everywhere=True, faults=tuple(FAULTS)),
    "look-up": Point(_look_up, ("auth/token/lookup-self", "kv/app", "sys/internal/ui/mounts/kv/app")),
    "wrapping token": Point(_wrapping, ("sys/wrapping/lookup",), "put a newly wrapped one there", everywhere=True),
    "rehearsal": Point(_rehearsal, ("sys/capabilities-self",)),
}
REFUSALS = ("400", "401", "403", "404")


@pytest.mark.parametrize(
    ("point", "fault"),
    [pytest.param(point, name, id=f"{where}-{name}") for where, point in VAULT_POINTS.items() for name in point.faults],
    indirect=["fault"],
)
def test_a_fault_of_vault_has_a_class_and_a_reason_that_names_address_path_and_mend(house, fault, point, log):
    act = point.prepare(house)
    house.fails(fault)
    told = failure(house, act)

    meant = fault.vault
    refused = meant in [FAULTS[name].vault for name in REFUSALS]
    words = point.refused if refused and point.refused else meant.words
    if meant is FAULTS["403"].vault and point.prepare in {_mount, _look_up}:
        words = "its policy lacks"
    assert told.kind is meant.kind
    assert words in str(told)
    assert str(told).split(": ")[1] in point.paths
    assert told.everywhere == (meant.everywhere or point.everywhere)
    assert told.retry_after == (1.0 if fault is FAULTS["429 with Retry-After"] else None)
    quiet(house, log, told)


@some_faults
def test_a_fault_at_the_unwrapping_is_told_and_what_was_wrapped_is_not(house, fault, log):
    backend = house.vault(**house.wrapped())
    house.fails(fault, "sys/wrapping/unwrap")
    told = failure(house, lambda: backend.fetch(SECRET, None, 0))

    refused = fault.vault in [FAULTS[name].vault for name in REFUSALS]
    if fault.connects:  # else it is cut off by what begins
        assert told.kind is fault.vault.kind
        assert ("put a newly wrapped one there" if refused else fault.vault.words) in str(told)
    assert "sys/wrapping/unwrap" in str(told)
    assert told.everywhere
    quiet(house, log, told)


@some_faults
def test_a_fault_at_the_renewal_of_a_token_leaves_it_in_use_and_is_tried_again(house, fault, log):
    backend = house.vault(**house.password())
    identity = backend._client.identity
    token = identity.token()
    backend._turns.remove(identity._job)  # what its thread would do is done here
    house.clock.later += identity._held.due - house.clock.now()
    asked = len(house.server.exchanges)
    house.fails(fault)
    due = identity._tend(0.0)

    assert identity.token() == token
    assert house.clock.now() + 0.9 * Backoff().floor(1) <= due < token.ends
    assert log.text.count("tried again while") == 1
    # Where the server says no, a login is tried, too.
    refused = fault.vault in [FAULTS[name].vault for name in ("400", "403", "404")]
    assert len(house.server.exchanges) - asked <= 1 + refused
    quiet(house, log)


def _leased(house: House) -> Vault:
    """Return a backend whose lease is due to be renewed."""
    backend = house.vault()
    due = backend.fetch(WRITE, None, 0).due
    house.clock.later += due - house.clock.now()
    return backend


@some_faults
def test_a_fault_at_the_renewal_of_a_lease_leaves_it_in_use(house, fault, log):
    backend = _leased(house)
    issued = backend.known(WRITE)
    asked = len(house.server.exchanges)
    house.fails(fault)
    if fault is FAULTS["403"]:  # the server says that it will not be renewed, and no more
        assert backend.fetch(WRITE, None, 0).reading.value == issued.value
        told = None
    else:
        told = failure(house, lambda: backend.fetch(WRITE, None, 0))
        assert told.kind is fault.vault.kind
        assert fault.vault.words in str(told)
        assert told.current_until <= house.clock.now()
    if fault is FAULTS["404"]:  # the server does not know the lease, and issues no other one now
        assert "pki/issue/web" in str(told)
    else:
        assert backend.known(WRITE).value == issued.value
        assert all(exchange.path != "/v1/pki/issue/web" for exchange in house.server.exchanges[asked:])
    quiet(house, log, told)


@some_faults
def test_a_fault_at_an_issue_anew_leaves_what_was_issued_in_use(house, fault, log):
    backend = _leased(house)
    issued = backend.known(WRITE)
    house.clock.later += issued.expires - house.clock.now() - 1
    house.fails(fault)
    told = failure(house, lambda: backend.fetch(WRITE, None, 0))

    assert told.kind is fault.vault.kind
    assert fault.vault.words in str(told)
    assert "pki/issue/web" in str(told)
    assert backend.known(WRITE).value == issued.value
    quiet(house, log, told)


@some_faults
def test_a_fault_at_the_end_is_told_for_what_could_not_be_revoked(house, fault, log):
    backend = _leased(house)
    house.fails(fault)
    (told,) = backend.revoke()

    assert told.startswith(f"{house.server.address}: sys/leases/revoke: ")
    assert fault.vault.words in told
    quiet(house, log, told)


# Consul


NEWS = Since(7, token=1)


@dataclass(frozen=True)
class Query:
    """What is asked of Consul when the fault comes."""

    read: Read
    since: Since | None = None
    faults: Collection[str] = tuple(SOME)


QUERIES = {
    "key": Query(Key("app/flags")),
    "prefix": Query(Prefix("app/")),
    "service": Query(Service("web")),
    "services": Query(Services()),
    "nodes": Query(Nodes()),
    "blocking key": Query(Key("app/flags"), NEWS, tuple(FAULTS)),
    "blocking fold": Query(Fold("app/"), NEWS, tuple(FAULTS)),
}


@pytest.mark.parametrize(
    ("query", "fault"),
    [pytest.param(query, name, id=f"{what}-{name}") for what, query in QUERIES.items() for name in query.faults],
    indirect=["fault"],
)
def test_a_fault_of_consul_has_a_class_and_a_reason_that_names_address_path_and_mend(house, fault, query, log):
    backend = house.consul()
    backend.fetch(query.read, None, 0)
    asked = len(house.server.exchanges)
    house.fails(fault)
    before = house.clock.now()
    told = failure(house, lambda: backend.fetch(query.read, query.since, 0.05))

    assert told.kind is fault.consul.kind
    assert fault.consul.words in str(told)
    assert str(told).startswith(f"{house.server.address}: {query.read}: ")
    assert told.everywhere == fault.consul.everywhere
    assert told.retry_after == (1.0 if fault is FAULTS["429 with Retry-After"] else None)
    assert len(house.server.exchanges) - asked == fault.connects
    if fault.slow:
        assert before <= told.current_until <= house.clock.now() - 0.2
    quiet(house, log, told)


@some_faults
def test_a_fault_of_the_leader_is_told_where_another_server_is_not_believed(house, fault, log):
    """Any server answers the blocking query, and lags; who leads fails."""
    backend = house.consul()

    def behave(exchange: Exchange) -> None:
        if "stale" not in exchange.query:
            fault.begin(house.stage)
            house.server.behave(exchange)
        else:
            consul(exchange)

    house.server.behave = behave
    told = failure(house, lambda: backend.fetch(Key("app/flags"), NEWS, 0.05))

    if fault.connects:
        assert told.kind is fault.consul.kind
        assert fault.consul.words in str(told)
    quiet(house, log, told)
