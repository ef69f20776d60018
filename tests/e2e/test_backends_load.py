"""What docs/backends.md says one sidecar asks for in an hour: its formulas, its examples, and what is counted at real servers."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from reloader.backends.consul.reads import Key, Prefix, Service, Services
from reloader.backends.vault import Secret, Write, parameters_of
from reloader.plan import VaultAuth
from tests.conformance.relay import Answer, Asked, relayed
from tests.e2e.hours import HOUR, hours
from tests.scale import rounds
from tests.servers import running
from tests.servers.consul import AclConsul, Consul
from tests.servers.logins import Approle
from tests.servers.openbao import OpenBao
from tests.servers.postgres import Postgres
from tests.unit.test_docs import rows, section
from tests.unit.watching import watching
from tests.waiting import eventually

PAGE = "docs/backends.md"
NUMBER = r"[\d.]+"
HOURS = rounds(1, 10)
NONE = "\N{EN DASH}"


def numbers(cell: str) -> dict[str, float]:
    """Return the terms of an example by their letters."""
    return {name: float(value) for name, value in re.findall(rf"([A-Z]) = ({NUMBER})", cell)}


def value(formula: str, terms: dict[str, float]) -> float:
    """Return what a formula of the page comes to: its products are written as in 3600·S/0.9P."""
    python = re.sub(r"⌈(.*?)⌉", r"ceil(\1)", formula).replace("·", "*").replace("\N{MINUS SIGN}", "-")
    python = re.sub(rf"/({NUMBER}[A-Z])", lambda match: f"/({match[1]})", python)
    python = re.sub(rf"({NUMBER})([A-Z])", r"\1*\2", python)
    return float(eval(python, {"ceil": ceil}, terms))


VAULT = {row[0]: row for row in rows(section(PAGE, "Load on Vault"))}
CONSUL = {row[0]: row for row in rows(section(PAGE, "Load on Consul"))}
FAILING = {row[0]: row for row in rows(section(PAGE, "When it fails"))}


def is_about(told: str, exact: float) -> bool:
    """Return whether a number of the page is an exact one, rounded to the digits that it has."""
    digits = len(told.partition(".")[2])
    return abs(float(told) - exact) <= 0.5 * 10**-digits + 1e-9


@pytest.mark.parametrize("row", VAULT.values(), ids=lambda row: row[0])
def test_the_examples_of_vault_are_what_the_formulas_come_to(row):
    usual, most = row[1].split(", ")
    terms = numbers(row[2])
    assert is_about(row[3], value(usual, terms))
    assert is_about(row[4], value(most, terms))


@pytest.mark.parametrize("row", CONSUL.values(), ids=lambda row: row[0])
def test_the_examples_of_consul_are_what_the_formulas_come_to(row):
    for formula, told in zip(row[1].split(", "), row[3:], strict=True):
        assert formula == told == NONE or is_about(told, value(formula, numbers(row[2])))


@pytest.mark.parametrize("row", FAILING.values(), ids=lambda row: row[0])
def test_the_numbers_of_failures_are_what_the_formulas_come_to(row):
    usual, most = row[1].split(", ")
    assert is_about(row[3], value(usual, numbers(row[2])))
    assert is_about(row[4], value(most, numbers(row[2])))


def agree(row: list[str], counted: float, hours_counted: float) -> None:
    """Check what was counted over some hours against a row: near its usual, and never above its most, but for one on the border."""
    usual, most = (float(cell) * hours_counted for cell in row[-2:])
    assert counted <= most * 1.01 + 1
    assert counted == pytest.approx(usual, rel=0.1, abs=1.5)


def given(server: OpenBao, policy: str) -> str:
    return server.policy_token(policy, ttl="700h")


def may(*paths: str, capability: str = "read") -> str:
    return "\n".join(f'path "{path}" {{ capabilities = ["{capability}"] }}' for path in paths)


@pytest.fixture
def kv(openbao: OpenBao) -> OpenBao:
    """Twenty secrets of KV v2 and one of KV v1."""
    openbao.enable("kv", "kv", version="1")
    openbao.write("kv/app", password="one")
    openbao.enable("kv", "secret", version="2")
    for number in range(20):
        openbao.put_kv2("secret", f"app/{number}", {"password": "one"})
    return openbao


@pytest.mark.servers
class TestPolls:
    """Of secrets."""

    def test_kv1(self, kv):
        with hours(kv, given(kv, may("kv/app"))) as backend:
            backend.watch(Secret("kv/app", poll=30))
            backend.start()
            asked = backend.run(HOURS)
        assert asked.keys() == {"read kv/app"}
        agree(VAULT["KV v1: the secret"], asked.total(), HOURS)

    def test_kv2_reads_metadata_and_what_changed(self, kv):
        with hours(kv, given(kv, may("secret/data/app/*", "secret/metadata/app/*"))) as backend:
            backend.watch(*(Secret(f"secret/app/{number}", poll=60) for number in range(20)))
            backend.run(0.1)
            asked: Counter[str] = Counter()
            for _change in range(6 * HOURS):
                kv.put_kv2("secret", "app/0", {"password": "other"})
                backend.asked()  # the change itself
                asked += backend.run(1 / 6)
        metadata = sum(count for what, count in asked.items() if what.startswith("read secret/metadata/"))
        agree(VAULT["KV v2: the metadata"], metadata, HOURS)
        agree(VAULT["KV v2: the secret"], asked.total() - metadata, HOURS)

    def test_kv2_without_the_right_to_metadata(self, kv):
        with hours(kv, given(kv, may("secret/data/app/*"))) as backend:
            backend.watch(Secret("secret/app/0", poll=30))
            backend.start()
            asked = backend.run(HOURS)
        assert asked.keys() == {"read secret/data/app/0"}
        agree(VAULT["KV v2 without the right to metadata: the secret"], asked.total(), HOURS)

    def test_equal_reads_count_once(self, kv):
        with hours(kv, given(kv, may("kv/app"))) as backend:
            backend.watch(*[Secret("kv/app", poll=30)] * 5)
            backend.start()
            agree(VAULT["KV v1: the secret"], backend.run(1).total(), 1)


@pytest.mark.servers
class TestWhatEnds:
    """Leases, certificates and tokens."""

    def test_a_lease_is_renewed_to_its_longest_life_and_issued_anew(self, openbao, database: Postgres):
        """Over four days; the server's clock does not jump with ours, so what it would grant near the end is put in its mouth."""
        path = database.role(openbao, "app", ttl="1h", max_ttl="24h")
        with relayed(openbao.address) as relay, hours(openbao, given(openbao, may(path)), address=relay.address) as backend:
            issued: list[float] = []

            def grant(asked: Asked, answer: Answer) -> Answer:
                now = backend.clock.now()
                if asked.path.endswith(path):
                    issued.append(now)
                if not asked.path.endswith("sys/leases/renew"):
                    return answer
                left = max(1, min(3600, round(issued[-1] + 24 * HOUR - now)))
                return replace(answer, body=re.sub(rb'"lease_duration":\d+', f'"lease_duration":{left}'.encode(), answer.body))

            relay.spoil = grant
            backend.watch(Secret(path))
            asked = backend.run(96)
        agree(VAULT["a lease: renewals"], asked["update sys/leases/renew"], 96)
        agree(VAULT["a lease that reaches M: issues"], asked[f"read {path}"], 96)

    def test_a_certificate(self, openbao):
        openbao.pki("pki", "tests")
        with hours(openbao, given(openbao, may("pki/issue/any", capability="update"))) as backend:
            backend.watch(Write("pki/issue/any", parameters_of({"common_name": "web", "ttl": "24h"})))
            asked = backend.run(24 * 20)
        agree(VAULT["a lease that is not renewable, a certificate: issues"], asked["update pki/issue/any"], 24 * 20)

    def test_a_static_role(self, openbao, database: Postgres):
        database.ask('DROP ROLE IF EXISTS "load"')
        path = database.static_role(openbao, "load", period="1h")
        with hours(openbao, given(openbao, may(path))) as backend:
            backend.watch(Secret(path))
            asked = backend.run(20)
        agree(VAULT["a static role: reads"], asked[f"read {path}"], 20)

    def test_a_token_that_is_renewed(self, kv, login):
        with hours(kv, login(token_ttl="1h", token_max_ttl="700h")) as backend:
            backend.watch(Secret("kv/app", poll=HOUR))
            asked = backend.run(40)
        assert asked["update auth/approle/login"] == 1
        agree(VAULT["a token: renewals"], asked["update auth/token/renew-self"], 40)

    def test_each_new_token_has_leases_issued_anew_and_rights_asked_for(self, kv, database: Postgres, login):
        """Of tokens that are not renewable, as those of a batch."""
        path = database.role(kv, "app", ttl="24h", max_ttl="48h")
        auth = login("kv/app", path, "secret/data/app/*", "secret/metadata/app/*", token_ttl="1h", token_type="batch")
        with hours(kv, auth) as backend:
            backend.watch(*(Secret(f"secret/app/{number}", poll=600) for number in range(3)), Secret(path))
            asked = backend.run(20)
        logins = asked["update auth/approle/login"]
        agree(VAULT["a token that is not renewable: logins"], logins, 20)
        assert asked["update sys/capabilities-self"] == pytest.approx(3 * logins, abs=3)
        assert asked[f"read {path}"] == pytest.approx(logins, abs=1)

    def test_the_example_of_a_whole_sidecar(self, kv, database: Postgres, login):
        """Three secrets, a user and a certificate."""
        path = database.role(kv, "app", ttl="1h", max_ttl="700h")
        kv.pki("pki", "tests")
        auth = login(path, "secret/data/app/*", "secret/metadata/app/*", token_ttl="1h", token_max_ttl="700h", writes="pki/issue/any")
        certificate = Write("pki/issue/any", parameters_of({"common_name": "web", "ttl": "24h"}))
        with hours(kv, auth) as backend:
            backend.watch(*(Secret(f"secret/app/{number}") for number in range(3)), Secret(path), certificate)
            backend.start()
            asked = backend.run(3).total() / 3
        told = re.search(r"3·120 \+ 1\.54 \+ 1\.54 \+ 0\.05 = (\d+) things an hour, and a thousand of them for (\d+) a second", TEXT)
        assert asked == pytest.approx(float(told[1]), rel=0.03)
        assert is_about(told[2], float(told[1]) * 1000 / HOUR)


TEXT = " ".join(section(PAGE, "Load on Vault").split())


@pytest.fixture
def login(openbao: OpenBao, tmp_path: Path) -> Callable[..., VaultAuth]:
    """Makes a login that may read what the page's example does."""

    def make(*paths: str, writes: str = "", **options: object) -> VaultAuth:
        rights = may(*(paths or ("kv/app",))) + (may(writes, capability="update") if writes else "")
        openbao.client().sys.create_or_update_policy("app", rights)
        role = Approle(openbao, options={"token_policies": "app", **options})
        (tmp_path / "secret-id").write_text(role.secret_id())
        return VaultAuth(method="approle", role_id=role.role_id, secret_id_file=str(tmp_path / "secret-id"))

    return make


@pytest.mark.servers
class TestStarts:
    """What the first minute costs."""

    def test_of_a_login(self, kv, login):
        auth = login("kv/app", "secret/data/app/*", "secret/metadata/app/*")
        with hours(kv, auth) as backend:
            backend.watch(Secret("kv/app", poll=600), *(Secret(f"secret/app/{number}", poll=600) for number in range(3)))
            backend.turns.run(backend.clock.now() + 1)
            asked = backend.asked()
        mounts = sum(count for what, count in asked.items() if "sys/internal/ui/mounts/" in what)
        reads = sum(count for what, count in asked.items() if what.startswith(("read kv/", "read secret/")))
        assert (asked.pop("update auth/approle/login"), mounts, reads) == (1, 2, 4)
        assert asked.total() == 6

    def test_of_a_given_token(self, kv):
        with hours(kv, given(kv, may("kv/app"))) as backend:
            backend.watch(Secret("kv/app", poll=600))
            backend.turns.run(backend.clock.now() + 1)
            asked = backend.asked()
        assert asked == {"read auth/token/lookup-self": 1, "read sys/internal/ui/mounts/kv/app": 1, "read kv/app": 1}


@pytest.mark.servers
class TestFailures:
    """Hours of failing."""

    @pytest.mark.parametrize("reads", [1, 50])
    def test_a_server_that_fails_as_a_whole_is_asked_by_one(self, kv, reads):
        with relayed(kv.address) as relay, hours(kv, given(kv, may("kv/*")), address=relay.address) as backend:
            relay.behave = lambda _asked: Answer(503, b'{"errors": ["Vault is sealed"]}')
            backend.watch(*(Secret(f"kv/{number}", poll=30) for number in range(reads)))
            backend.turns.run(backend.clock.now() + 600)
            relay.asked.clear()
            backend.turns.run(backend.clock.now() + HOURS * HOUR)
            agree(FAILING["the server fails as a whole"], len(relay.asked), HOURS)

    def test_a_login_that_does_not_work(self, kv, login):
        auth = replace(login(), role_id="nobody")
        with hours(kv, auth) as backend:
            backend.watch(*(Secret(f"kv/{number}", poll=30) for number in range(20)))
            backend.run(0.2)
            asked = backend.run(HOURS)
        assert asked.keys() == {"update auth/approle/login"}
        agree(FAILING["the server fails as a whole"], asked.total(), HOURS)

    def test_a_denied_path(self, kv):
        with hours(kv, given(kv, may("kv/other"))) as backend:
            backend.watch(Secret("kv/app", poll=30))
            backend.run(0.2)
            agree(FAILING["a path of Vault is denied"], backend.run(HOURS).total(), HOURS)

    def test_a_missing_path(self, kv):
        with hours(kv, given(kv, may("kv/*"))) as backend:
            backend.watch(Secret("kv/none", poll=30))
            backend.run(0.2)
            agree(FAILING["a path of Vault is missing"], backend.run(HOURS).total(), HOURS)

    def test_a_denied_path_is_tried_with_new_tokens_ever_more_rarely(self, kv, login):
        """After 1, 2, 4, ... 60 minutes."""
        with hours(kv, login("kv/other", token_ttl="100h")) as backend:
            backend.watch(Secret("kv/app", poll=30))
            first, later = backend.run(1), backend.run(2)
        assert first["update auth/approle/login"] <= 1 + 1 + 6
        assert later["update auth/approle/login"] <= 2


@pytest.fixture(scope="module")
def acl_consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AclConsul]:
    with running(lambda: AclConsul(tmp_path_factory.mktemp("consul"))) as server:
        yield server


def most(row: str, seconds: float) -> float:
    """Return how many requests a row lets come in some seconds at most; each connection may just have begun one."""
    return float(CONSUL[row][4]) / HOUR * seconds


@pytest.mark.servers
class TestConsul:
    """Queries that a real Consul answers, with waits of a second in the place of a minute."""

    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch):
        monkeypatch.setattr("reloader.schedule.BLOCKING_WAIT", 1.0)
        monkeypatch.setattr("reloader.schedule.TURN_CYCLE", 1.0)

    def test_a_quiet_read_is_one_query_for_each_wait(self, consul_server: Consul):
        """The server holds it for the wait at least, and the next one comes 0.1 s later; a change adds one."""
        consul_server.put("app/a", "0")
        with relayed(consul_server.address) as relay, watching(relay.address) as watched:
            inbox = watched.watch(Key("app/a"))
            eventually(lambda: len(relay.asked) == 6, within=30)
            asked = relay.asked[1:]
            for earlier, later in pairwise(asked):
                assert later.at - earlier.at > 1.0 + 0.09
            assert {query.query["wait"] for query in asked} == {"1000ms"}
            for number in range(1, 4):
                consul_server.put("app/a", str(number))
                eventually(lambda number=number: inbox.latest == str(number))
            took = relay.asked[-1].at - asked[0].at
            assert len(relay.asked) - 1 <= 1 + took / 1.1 + 3

    def test_a_read_that_changes_all_the_time_asks_ten_times_a_second(self, consul_server: Consul):
        consul_server.put("app/a", "0")
        with relayed(consul_server.address) as relay, watching(relay.address) as watched:
            inbox = watched.watch(Key("app/a"))
            eventually(watched.holds)
            number = 0
            while len(relay.asked) < 20:
                number += 1
                consul_server.put("app/a", str(number))
            eventually(lambda: inbox.latest == str(number))
            took = relay.asked[-1].at - relay.asked[0].at
            assert len(relay.asked) <= 2 + most("one read that changes all the time: queries", took)

    def test_turns_cost_what_the_formula_says(self, consul_server: Consul):
        """Seven reads on two connections, in a cycle of a second: two connections, each with four turns of a quarter."""
        keys = [f"{number}/key" for number in range(7)]  # that share no folder
        consul_server.put_all(dict.fromkeys(keys, "1"))
        with relayed(consul_server.address) as relay, watching(relay.address, max_connections=2) as watched:
            inboxes = [watched.watch(Key(key)) for key in keys]
            eventually(lambda: all(len(inbox.got) >= 4 for inbox in inboxes), within=30)
            turns = [query for query in relay.asked if query.index is not None]
            assert {query.query["wait"] for query in turns[7:]} == {"250ms"}
            took = turns[-1].at - turns[0].at
            in_an_hour = value(CONSUL["C < R ≤ 100·C: queries"][1].partition(", ")[2], {"R": 7.0, "C": 2.0}) * 10  # cycles of 1 s, not 10
            assert len(turns) <= 2 + in_an_hour / HOUR * took

    def test_a_denied_key_is_tried_with_backoff(self, acl_consul: AclConsul, tmp_path):
        """Each time by one request, not sooner than a tenth of what the page lets it wait."""
        (tmp_path / "token").write_text(acl_consul.token('key "other" { policy = "read" }'))
        with relayed(acl_consul.address) as relay, watching(relay.address, token_file=str(tmp_path / "token")) as watched:
            inbox = watched.watch(Key("app/a"))
            eventually(lambda: len(inbox.got) == 5, within=30)
            assert len(relay.asked) <= 5 + 1
            for number, (earlier, later) in enumerate(pairwise(relay.asked)):
                assert later.at - earlier.at >= 0.5 * 2**number / 10

    @pytest.fixture
    def wait(self, woken, monkeypatch):
        """Long enough for an answer before its end, where one is expected."""
        wait = 20.0 if woken else 1.0
        monkeypatch.setattr("reloader.schedule.BLOCKING_WAIT", wait)
        return wait

    @pytest.mark.parametrize(("read", "woken"), [(Prefix("none/"), True), (Prefix("app/"), False), (Key("app/a"), False)])
    def test_of_foreign_keys_an_empty_folder_alone_is_woken(self, consul_server: Consul, wait, read, woken):
        consul_server.put("app/a", "1")
        assert is_woken(consul_server, read, lambda: consul_server.put("foreign", "1"), wait) is woken

    @pytest.mark.parametrize(("read", "woken"), [(Services(), True), (Service("web"), False), (Service("none"), False)])
    def test_of_foreign_services_the_list_alone_is_woken(self, consul_server: Consul, wait, read, woken):
        consul_server.register("web", port=1)
        assert is_woken(consul_server, read, lambda: consul_server.register("foreign", port=2), wait) is woken


def is_woken(server: Consul, read: Any, change: Callable[[], object], wait: float) -> bool:
    """Return whether a change brought an answer before the wait of the open query was over."""
    with relayed(server.address) as relay, watching(relay.address) as watched:
        watched.watch(read)
        blocking = eventually(lambda: next(query for query in relay.asked if query.index is not None))
        eventually(watched.holds)
        change()
        return eventually(lambda: blocking.answered, within=30) - blocking.at < wait
