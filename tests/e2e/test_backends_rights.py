"""The rights that docs/backends.md asks for are enough, and without one of their lines happens what it says."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reloader.backends.vault import Secret
from reloader.plan import VaultAuth
from reloader.snapshot import Failure, FailureKind, Reading
from tests.e2e.hours import backend_of, hours, lines_of, loaded, reads_of
from tests.e2e.sidecar import reloader
from tests.recorder import Recorder
from tests.servers import running
from tests.servers.consul import AclConsul
from tests.servers.logins import Approle
from tests.servers.openbao import OpenBao
from tests.servers.postgres import Postgres
from tests.unit.test_docs import rows, section, titled
from tests.unit.watching import Watching, watching
from tests.waiting import eventually

PAGE = "docs/backends.md"
VAULT = ("v1", "v2", "user", "static", "tls")
DEFAULT = lines_of(titled(PAGE, "default"))
LOOK_UP, RENEW, REVOKE, CAPABILITIES, LEASES = DEFAULT
FOREIGN = 'path "other/*" { capabilities = ["read"] }'
METADATA = "read secret/metadata/app/db"


def without(lines: dict[str, str], *gone: str) -> str:
    return "\n".join(line for name, line in lines.items() if name not in gone)


@pytest.fixture
def secrets(openbao: OpenBao) -> OpenBao:
    """All that the page reads, but for what needs a database."""
    openbao.enable("kv", "kv", version="1")
    openbao.write("kv/app", password="one")
    openbao.enable("kv", "secret", version="2")
    openbao.put_kv2("secret", "app/db", {"password": "one"})
    openbao.pki("pki", "tests")
    openbao.write("pki/roles/web", allow_any_name=True, key_type="ec", max_ttl="24h")
    return openbao


@pytest.fixture
def everything(secrets: OpenBao, database: Postgres) -> Iterator[OpenBao]:
    database.role(secrets, "app", ttl="1h", max_ttl="24h")
    database.ask('DROP ROLE IF EXISTS "reports"')
    database.static_role(secrets, "reports", period="1h")
    return secrets


@pytest.fixture
def reads(tmp_path: Path) -> dict[str, object]:
    return reads_of(loaded(titled(PAGE, "vault.yaml"), tmp_path))


def given(server: OpenBao, policy: str, **options: object) -> str:
    """Return a token with these rights and no others."""
    server.client().sys.create_or_update_policy("app", policy)
    return str(server.client().auth.token.create(policies=["app"], no_default_policy=True, **options)["auth"]["client_token"])


@pytest.fixture
def login(openbao: OpenBao, tmp_path: Path) -> Callable[..., VaultAuth]:
    """Makes a login with these rights and no others."""

    def make(policy: str, **options: object) -> VaultAuth:
        openbao.client().sys.create_or_update_policy("app", policy)
        role = Approle(openbao, options={"token_policies": "app", "token_no_default_policy": True, **options})
        (tmp_path / "secret-id").write_text(role.secret_id())
        return VaultAuth(method="approle", role_id=role.role_id, secret_id_file=str(tmp_path / "secret-id"))

    return make


@pytest.mark.servers
@pytest.mark.parametrize("source", VAULT)
def test_the_policy_of_a_source_is_enough(everything, reads, source):
    """With it alone, not even the policy `default`."""
    with hours(everything, given(everything, titled(PAGE, source))) as backend:
        (inbox,) = backend.watch(reads[source])
        backend.run(2)
    assert all(isinstance(outcome, Reading) for _, outcome in inbox.got)
    assert inbox.got


@pytest.mark.servers
@pytest.mark.parametrize("source", VAULT)
def test_without_the_line_of_a_source_it_is_refused_and_the_line_is_named(everything, reads, source):
    lines = lines_of(titled(PAGE, source))
    path = next(iter(lines))
    with hours(everything, given(everything, FOREIGN)) as backend:
        (inbox,) = backend.watch(reads[source])
        backend.start()
    refused = inbox.latest
    assert isinstance(refused, Failure)
    assert refused.kind is FailureKind.REFUSED
    assert " ".join(lines[path].split()) in refused.reason


@pytest.mark.servers
@pytest.mark.parametrize("version", [None, 1])
def test_without_the_metadata_of_kv2_every_poll_reads_the_secret(secrets, login, version):
    lines = lines_of(titled(PAGE, "v2"))
    for rights, path in ((titled(PAGE, "v2"), METADATA), (without(lines, "secret/metadata/app/db"), "read secret/data/app/db")):
        with hours(secrets, given(secrets, rights + "\n" + titled(PAGE, "default"))) as backend:
            (inbox,) = backend.watch(Secret("secret/app/db", version=version))
            backend.start()
            assert backend.run(1).keys() == {path}
            secrets.client().sys.create_or_update_policy("app", titled(PAGE, "v2") + titled(PAGE, "default"))
            backend.asked()  # the change itself
            assert backend.run(0.2).keys() == {path}  # until there is another token
        assert not inbox.failures


def test_what_the_page_says_of_the_policy_default_is_tried():
    told = [row[0].strip("`") for row in rows(section(PAGE, "What the policy `default` has"))]
    assert told == list(DEFAULT) == [LOOK_UP, RENEW, REVOKE, CAPABILITIES, LEASES]
    assert (LOOK_UP, LEASES) == ("auth/token/lookup-self", "sys/leases/renew")


@pytest.mark.servers
def test_the_policy_default_has_what_the_page_says(openbao):
    """So that a token which has it needs the lines of its sources only."""
    client = openbao.client(openbao.client().auth.token.create(policies=["default"])["auth"]["client_token"])
    told = client.write_data("sys/capabilities-self", data={"paths": list(DEFAULT)})["data"]
    assert {path for path in DEFAULT if f'"{told[path][0]}"' in DEFAULT[path]} == set(DEFAULT)


@pytest.mark.servers
def test_a_token_that_may_not_look_itself_up_is_not_renewed(secrets):
    for gone, renewals in (((), 3), ((LOOK_UP,), 0)):
        rights = titled(PAGE, "v1") + without(DEFAULT, *gone)
        with hours(secrets, given(secrets, rights, ttl="1h", explicit_max_ttl="10h")) as backend:
            backend.watch(Secret("kv/app"))
            assert backend.run(2)[f"update {RENEW}"] == renewals


@pytest.mark.servers
def test_a_login_that_may_not_renew_its_token_logs_in_again(secrets, login):
    for gone, logins in (((), 1), ((RENEW,), 4)):
        auth = login(titled(PAGE, "v1") + without(DEFAULT, *gone), token_ttl="1h", token_max_ttl="100h")
        with hours(secrets, auth) as backend:
            (inbox,) = backend.watch(Secret("kv/app"))
            assert backend.run(2)["update auth/approle/login"] == logins
        assert not inbox.failures
        secrets.client().sys.disable_auth_method("approle")


@pytest.mark.servers
def test_a_login_that_may_not_revoke_its_token_leaves_it(everything, login, database):
    """What it issued lives too."""
    for gone, left in (((), 0), ((REVOKE,), 1)):
        auth = login(titled(PAGE, "user") + without(DEFAULT, *gone))
        with hours(everything, auth) as backend:
            backend.watch(Secret("database/creds/app"))
            backend.start()
            backend.backend.revoke()
        eventually(lambda left=left: len(database.minted()) == left, what="the end of what hung on the token")  # in its own time
        everything.client().sys.disable_auth_method("approle")


@pytest.mark.servers
def test_a_token_that_may_not_ask_for_its_rights_reads_the_secret_each_time(secrets, tmp_path):
    rights = titled(PAGE, "v2") + titled(PAGE, "tls")
    with hours(secrets, given(secrets, rights + without(DEFAULT, CAPABILITIES))) as backend:
        (inbox,) = backend.watch(Secret("secret/app/db"))
        backend.start()
        assert backend.run(1).keys() == {"read secret/data/app/db"}
    assert not inbox.failures
    for gone, status in (((), 0), ((CAPABILITIES,), 1)):
        assert online(secrets, tmp_path, "tls", given(secrets, rights + without(DEFAULT, *gone)))[0] == status


@pytest.mark.servers
def test_a_lease_that_may_not_be_renewed_is_issued_anew(everything, login):
    for gone, issues in (((), 1), ((LEASES,), 6)):  # at 85 to 95 % of an hour each
        auth = login(titled(PAGE, "user") + without(DEFAULT, *gone), token_ttl="100h")
        with hours(everything, auth) as backend:
            (inbox,) = backend.watch(Secret("database/creds/app"))
            assert backend.run(4.8)["read database/creds/app"] == issues
        assert not inbox.failures
        everything.client().sys.disable_auth_method("approle")


@pytest.mark.servers
def test_a_given_token_revokes_what_it_issued_with_the_line_for_that_only(everything, database):
    rights = titled(PAGE, "user") + titled(PAGE, "default")
    for more, left in ((titled(PAGE, "revoke"), 0), ("", 1)):
        with hours(everything, given(everything, rights + more)) as backend:
            backend.watch(Secret("database/creds/app"))
            backend.start()
            reasons = backend.backend.revoke()
        assert len(reasons) == left
        eventually(lambda left=left: len(database.minted()) == left, what="the end of what was revoked")


@pytest.mark.servers
def test_a_check_online_issues_only_what_it_may_revoke(everything, database, tmp_path):
    rights = titled(PAGE, "user") + titled(PAGE, "default")
    told = online(everything, tmp_path, "user", given(everything, rights + titled(PAGE, "revoke")))
    assert told[0] == 0
    assert "issued for 3600 s" in told[1]
    told = online(everything, tmp_path, "user", given(everything, rights))
    assert told[0] == 0
    assert "the token may read there; nothing was issued" in told[1]
    eventually(lambda: database.minted() == set(), what="the end of what was revoked")


def online(server: OpenBao, folder: Path, source: str, token: str) -> tuple[int, str]:
    """Return the exit status, and what `check --online` tells of one source of the page."""
    text = titled(PAGE, "vault.yaml")
    lines = [line for line in text.splitlines() if "kind: vault" not in line or line.strip().startswith(f"{source}:")]
    file = folder / "online.yaml"
    auth = f"auth: {{token: {token}}}"
    file.write_text(
        "\n".join(lines).replace("https://vault.example:8200", server.address).replace("auth: {method: kubernetes, role: app}", auth)
    )
    done = reloader("check", "--online", file)
    return done.returncode, done.stdout


@pytest.mark.servers
def test_a_mount_that_is_not_there_and_one_of_which_nothing_is_allowed_are_both_denied(secrets):
    for path in ("kv/app", "none/app"):
        with hours(secrets, given(secrets, 'path "secret/data/x" { capabilities = ["read"] }')) as backend:
            (inbox,) = backend.watch(Secret(path))
            backend.start()
        assert "permission denied; nothing is mounted there, or" in inbox.latest.reason


CONSUL = ("flag", "routes", "web", "names", "nodes")
EMPTY = {"routes": {}, "web": [], "names": [], "nodes": []}
VALUES = {"flag": "on", "routes": {"a": "1", "b/c": "2"}, "names": ["consul", "web"], "nodes": ["tests"]}


@pytest.fixture(scope="module")
def acl_consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AclConsul]:
    with running(lambda: AclConsul(tmp_path_factory.mktemp("consul"))) as server:
        filled(server)
        yield server


def filled(server: AclConsul) -> None:
    server.put_all({"app/flag": "on", "nginx/routes/a": "1", "nginx/routes/b/c": "2"})
    server.register("web", port=8001)


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, object]:
    pipeline = loaded(titled(PAGE, "consul.yaml"), tmp_path)
    assert backend_of(pipeline).token_file == "/run/secrets/app/consul-token"
    return reads_of(pipeline)


def first_of(server: AclConsul, folder: Path, rules: str, read: object, **plan: int) -> object:
    """Return what comes first with a token that has these rules."""
    (folder / "token").write_text(server.token(rules))
    with watching(server.address, token_file=str(folder / "token"), **plan) as watched:
        inbox = watched.watch(read)
        eventually(lambda: inbox.got)
        return inbox.latest


@pytest.mark.servers
@pytest.mark.parametrize("source", CONSUL)
def test_the_rules_of_a_source_are_enough(acl_consul, wanted, tmp_path, source):
    came = first_of(acl_consul, tmp_path, titled(PAGE, source), wanted[source])
    if source == "web":
        assert [instance["port"] for instance in came] == [8001]
    else:
        assert came == VALUES[source]


@pytest.mark.servers
@pytest.mark.parametrize(("source", "gone"), [(source, line) for source in CONSUL for line in titled(PAGE, source).splitlines()])
def test_without_a_rule_a_key_is_refused_and_everything_else_looks_empty(acl_consul, wanted, tmp_path, source, gone):
    rules = titled(PAGE, source).replace(gone, "")
    came = first_of(acl_consul, tmp_path, rules, wanted[source])
    if source == "flag":
        assert came.kind is FailureKind.REFUSED
        assert gone in came.reason
    else:
        assert came == EMPTY[source]


@pytest.mark.servers
def test_a_folder_that_is_allowed_in_part_is_shorter(acl_consul, wanted, tmp_path):
    rules = titled(PAGE, "routes") + 'key "nginx/routes/a" { policy = "deny" }'
    assert first_of(acl_consul, tmp_path, rules, wanted["routes"]) == {"b/c": "2"}


def folded(server: AclConsul, folder: Path, rules: str) -> tuple[Watching, dict[str, Recorder]]:
    """Watch eight keys over two connections."""
    server.put_all({f"app/key-{number}": "1" for number in range(8)})
    (folder / "token").write_text(server.token(rules))
    watched = Watching(server.address, token_file=str(folder / "token"), max_connections=2)
    read = reads_of(loaded("consul: {address: x}\nsources: {x: {kind: consul, key: app/key-0}}\ntarget: {kind: none}\n", folder))["x"]
    return watched, {f"key-{number}": watched.watch(type(read)(f"app/key-{number}")) for number in range(8)}


def served(watched: Watching) -> int:
    """Return how many reads another one serves."""
    return sum(each.served for each in tuple(watched.backend._watched.values()))


@pytest.mark.servers
def test_keys_are_folded_with_the_rights_of_single_keys(acl_consul, tmp_path):
    rules = "\n".join(f'key "app/key-{number}" {{ policy = "read" }}' for number in range(8))
    watched, inboxes = folded(acl_consul, tmp_path, rules)
    eventually(lambda: served(watched) == 8)
    watched.close()
    assert not any(inbox.failures for inbox in inboxes.values())


@pytest.mark.servers
def test_where_lists_need_a_right_a_folder_is_refused_without_it(tmp_path, wanted):
    with running(lambda: AclConsul(tmp_path / "consul", enable_key_list_policy=True)) as server:
        filled(server)
        assert first_of(server, tmp_path, titled(PAGE, "list"), wanted["routes"]) == VALUES["routes"]
        refused = first_of(server, tmp_path, titled(PAGE, "routes"), wanted["routes"])
        assert refused.kind is FailureKind.REFUSED
        watched, inboxes = folded(server, tmp_path, 'key_prefix "app/" { policy = "list" }')
        eventually(lambda: served(watched) == 8)
        watched.close()
        watched, inboxes = folded(server, tmp_path, 'key_prefix "app/" { policy = "read" }')
        eventually(lambda: all(inbox.got for inbox in inboxes.values()), within=30)
        eventually(lambda: "app/" in watched.backend._folding._left_alone, within=30, what="the folder given up")
        assert served(watched) == 0
        watched.close()
        assert not any(inbox.failures for inbox in inboxes.values())


@pytest.mark.servers
def test_a_missing_key_below_a_denied_folder_is_told_as_denied(acl_consul, wanted, tmp_path):
    read = type(wanted["flag"])("app/none")
    assert first_of(acl_consul, tmp_path, 'key "app/flag" { policy = "read" }', read).kind is FailureKind.REFUSED
    assert first_of(acl_consul, tmp_path, 'key_prefix "app/" { policy = "read" }', read) is None


def test_each_way_to_read_consul_has_a_row():
    said = [row[0] for row in rows(section(PAGE, "What a token of Consul needs"))]
    assert said == ["`key`", "`prefix`", "`service`", "`services`", "`nodes`"]
