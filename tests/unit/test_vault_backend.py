"""The Vault backend against a real OpenBao."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import pytest

from reloader.backends.turns import Turns
from reloader.backends.vault import Backend, Secret, Write, parameters_of
from reloader.plan import Tls, Vault, VaultAuth
from reloader.snapshot import Failure, FailureKind
from reloader.world import World
from reloader.written import Secret as Hidden
from tests.recorder import Recorder
from tests.servers.openbao import OpenBao
from tests.waiting import eventually

pytestmark = pytest.mark.servers

FAST = 0.1


class Inbox(Recorder):
    """Keeps what came of reading secrets."""

    def failure(self, kind: FailureKind) -> str:
        """Return the reason of the latest outcome once it is a failure of that kind."""
        latest = eventually(
            lambda: isinstance(failure := self.got[-1][1], Failure) and failure.kind is kind and failure, within=20, what=kind
        )
        assert "s.canary" not in latest.reason
        return latest.reason


def plan(server: OpenBao, token: str | None = None, **other: Any) -> Vault:
    auth = VaultAuth(token=Hidden(server.root_token if token is None else token))
    return Vault(**{"address": server.address, "auth": auth, **other})


@contextmanager
def watched(settings: Vault, read: Secret | Write, inbox: Inbox | None = None) -> Iterator[Inbox]:
    world = World()
    backend = Backend(settings, Turns(settings.address, settings.max_connections, world), world)
    inbox = inbox or Inbox()
    backend.watch(read, inbox, "name")
    try:
        yield inbox
    finally:
        backend.close()


@pytest.fixture
def kv2(openbao: OpenBao) -> OpenBao:
    openbao.enable("kv", "secret", version="2")
    openbao.put_kv2("secret", "app/db", {"user": "app", "password": "s.canary-1"})
    return openbao


def read_policy(path: str) -> str:
    return f'path "{path}" {{ capabilities = ["read"] }}'


@pytest.mark.parametrize("path", ["secret/app/db", "secret/data/app/db"])
def test_a_kv2_secret_is_read_as_for_the_command_line_and_a_new_version_arrives(kv2, path):
    with watched(plan(kv2), Secret(path, poll=FAST)) as inbox:
        first = inbox.reading()
        assert first.value == {"user": "app", "password": "s.canary-1"}
        assert (first.detail, first.whole, first.expires) == ("version 1", True, None)
        assert "canary" not in repr(first)
        kv2.put_kv2("secret", "app/db", {"password": "s.canary-2"})
        second = inbox.reading(lambda reading: reading.detail == "version 2")
    assert second.value == {"password": "s.canary-2"}
    assert not inbox.failures


def test_a_kv1_secret_is_polled_although_it_names_a_duration(openbao):
    openbao.enable("kv", "kv1", version="1")
    openbao.write("kv1/app/db", password="one", ttl="1h")
    with watched(plan(openbao), Secret("kv1/app/db", poll=FAST)) as inbox:
        assert inbox.reading().value == {"password": "one", "ttl": "1h"}
        openbao.write("kv1/app/db", password="two")
        assert inbox.reading(lambda reading: reading.value == {"password": "two"}).expires is None


def test_a_pinned_version_stays(kv2):
    kv2.put_kv2("secret", "app/db", {"password": "s.canary-2"})
    with watched(plan(kv2), Secret("secret/app/db", version=1, poll=FAST)) as inbox:
        assert inbox.reading().value["password"] == "s.canary-1"
        assert inbox.reading().detail == "version 1"


def test_a_version_of_an_engine_without_versions_is_a_mistake(openbao):
    openbao.enable("kv", "kv1", version="1")
    openbao.write("kv1/app", password="one")
    with watched(plan(openbao), Secret("kv1/app", version=2)) as inbox:
        assert "kv1/ keeps no versions; remove `version`" in inbox.failure(FailureKind.MISCONFIGURED)


def test_any_other_path_that_is_read_gives_its_data(openbao):
    pki = openbao.pki("pki", "tests")
    with watched(plan(openbao), Secret("pki/cert/ca", poll=FAST)) as inbox:
        assert inbox.reading().value["certificate"].strip() == pki.ca.strip()


@pytest.mark.parametrize("read", [Secret("secret/app/none"), Secret("secret/app/db", version=9)])
def test_what_is_not_there_is_a_refusal_that_names_it(kv2, read):
    with watched(plan(kv2), read) as inbox:
        reason = inbox.failure(FailureKind.REFUSED)
    assert reason.startswith(f"{kv2.address}: {read.path.replace('secret/', 'secret/data/')}: no such path")


def test_deleted_and_destroyed_are_told_from_missing(kv2):
    client = kv2.client()
    with watched(plan(kv2), Secret("secret/app/db", poll=FAST)) as inbox:
        inbox.reading()
        client.secrets.kv.v2.delete_latest_version_of_secret("app/db", mount_point="secret")
        assert "version 1 was deleted at 2" in inbox.failure(FailureKind.REFUSED)
        client.secrets.kv.v2.destroy_secret_versions("app/db", [1], mount_point="secret")
        eventually(lambda: "version 1 was destroyed" in inbox.failure(FailureKind.REFUSED))
        kv2.put_kv2("secret", "app/db", {"password": "s.canary-2"})
        assert inbox.reading().detail == "version 2"


def test_a_denied_path_names_the_policy_that_mends_it_and_heals_by_it(kv2):
    token = kv2.policy_token(read_policy("secret/data/app/other"))
    with watched(plan(kv2, token), Secret("secret/app/db")) as inbox:
        reason = inbox.failure(FailureKind.REFUSED)
        mend = read_policy("secret/data/app/db")
        assert mend in reason
        assert token not in reason
        name = kv2.client(token).auth.token.lookup_self()["data"]["policies"][-1]
        kv2.client().sys.create_or_update_policy(name, mend)
        inbox.reading()


def test_a_mount_that_the_token_may_not_see_names_the_policies_that_mend_it(kv2):
    token = kv2.policy_token(read_policy("sys/nothing"))
    with watched(plan(kv2, token), Secret("secret/app/db")) as inbox:
        reason = inbox.failure(FailureKind.REFUSED)
        assert read_policy("secret/data/app/db") in reason
        assert "sys/internal" not in reason
        name = kv2.client(token).auth.token.lookup_self()["data"]["policies"][-1]
        kv2.client().sys.create_or_update_policy(name, read_policy("secret/data/app/db"))
        inbox.reading()


def test_a_mount_remade_with_another_version_is_found_out(kv2):
    with watched(plan(kv2), Secret("secret/app/db", poll=FAST)) as inbox:
        assert inbox.reading().detail == "version 1"
        kv2.client().sys.disable_secrets_engine("secret")
        kv2.enable("kv", "secret", version="1")
        kv2.write("secret/app/db", password="of version one")
        assert inbox.reading(lambda reading: not reading.detail).value == {"password": "of version one"}


def test_two_who_wait_for_equal_reads_share_one(kv2):
    settings, world = plan(kv2), World()
    backend = Backend(settings, Turns(settings.address, 4, world), world)
    one, other = Inbox(), Inbox()
    backend.watch(Write("sys/tools/random/8", parameters_of({"format": "hex"})), one, "one")
    backend.watch(Write("sys/tools/random/8", parameters_of({"format": "hex"})), other, "other")
    assert one.reading().value == other.reading().value
    backend.close()


def test_sealed_is_a_refusal_and_heals(own_openbao):
    own_openbao.enable("kv", "secret", version="2")
    own_openbao.put_kv2("secret", "app", {"password": "s.canary"})
    with watched(plan(own_openbao), Secret("secret/app", poll=FAST)) as inbox:
        inbox.reading()
        own_openbao.seal()
        assert "is sealed; unseal it (Vault is sealed)" in inbox.failure(FailureKind.REFUSED)
        own_openbao.unseal()
        inbox.reading()


def test_a_killed_server_is_unreachable_and_its_return_is_noticed(own_openbao):
    own_openbao.enable("kv", "secret", version="2")
    own_openbao.put_kv2("secret", "app", {"password": "s.canary"})
    with watched(plan(own_openbao), Secret("secret/app", poll=FAST)) as inbox:
        last = inbox.reading()
        own_openbao.stop(kill=True)
        reason = inbox.failure(FailureKind.UNREACHABLE)
        assert re.match(f"{own_openbao.address}: (secret/(meta)?data/app|sys/capabilities-self): ", reason)
        assert inbox.failures[0].current_until <= inbox.failures[0].at
        own_openbao.start()
        assert inbox.reading().at > last.at


def test_a_certificate_is_issued_again_before_its_end_and_not_more_often_than_needed(openbao):
    pki = openbao.pki("pki", "tests")
    read = Write(pki.issue, parameters_of({"common_name": "web.test", "ttl": "8s"}))
    with watched(plan(openbao), read) as inbox:
        eventually(lambda: len(inbox.readings) >= 3, within=60)
    assert not inbox.failures
    issued = openbao.client().list("pki/certs")["data"]["keys"]
    assert len(issued) == len(inbox.readings) + 1  # and the authority's own
    for earlier, later in zip(inbox.readings, inbox.readings[1:], strict=False):
        lifetime = earlier.expires - earlier.at
        assert earlier.at + 0.8 * lifetime < later.at < earlier.expires
        assert earlier.value["serial_number"] != later.value["serial_number"]
        assert earlier.current_until < earlier.expires
    assert {"certificate", "private_key", "issuing_ca", "serial_number"} <= inbox.readings[0].value.keys()


def test_a_certificate_with_a_lease_ends_with_it(openbao):
    pki = openbao.pki("pki", "tests")
    openbao.write("pki/roles/leased", allow_any_name=True, key_type="ec", generate_lease=True)
    read = Write(pki.issue.replace("any", "leased"), parameters_of({"common_name": "web.test", "ttl": "600s"}))
    with watched(plan(openbao), read) as inbox:
        reading = inbox.reading()
    assert reading.expires - reading.at == pytest.approx(600, abs=5)
    assert 0.85 * 600 - 5 < reading.current_until - reading.at < 0.95 * 600
    assert reading.detail.startswith("issued for ")


def test_what_has_no_end_is_issued_once_whoever_asks_for_a_look(openbao):
    settings, world, inbox = plan(openbao), World(), Inbox()
    backend = Backend(settings, Turns(settings.address, 1, world), world)
    backend.watch(Write("sys/tools/random/8", parameters_of({"format": "hex"})), inbox, "name")
    backend.look()
    assert inbox.reading().current_until == inf
    backend.look()
    backend.watch(Write("sys/tools/random/4", parameters_of({"format": "hex"})), inbox, "other")  # takes its turn after a repeated one
    eventually(lambda: len(inbox.got) == 2)
    backend.close()
    assert [len(reading.value["random_bytes"]) for reading in inbox.readings] == [16, 8]


def test_what_has_no_end_is_issued_again_where_poll_says_so(openbao):
    with watched(plan(openbao), Write("sys/tools/random/8", "{}", poll=FAST)) as inbox:
        eventually(lambda: len({reading.value["random_bytes"] for reading in inbox.readings}) >= 3)


def test_a_write_that_brings_nothing_is_a_mistake(openbao):
    openbao.enable("kv", "kv1", version="1")
    with watched(plan(openbao), Write("kv1/app", parameters_of({"password": "s.canary"}))) as inbox:
        assert "`write` is for paths that issue something" in inbox.failure(FailureKind.MISCONFIGURED)


def test_a_path_that_issues_is_not_read(openbao):
    pki = openbao.pki("pki", "tests")
    with watched(plan(openbao), Secret(pki.issue)) as inbox:
        assert "does not take a GET; a path that issues needs `write`" in inbox.failure(FailureKind.MISCONFIGURED)


def test_what_a_role_does_not_allow_is_a_refusal_in_the_servers_words_without_what_was_sent(openbao):
    openbao.pki("pki", "tests")
    openbao.write("pki/roles/narrow", allowed_domains="ok.test", allow_bare_domains=True, key_type="ec")
    with watched(plan(openbao), Write("pki/issue/narrow", parameters_of({"common_name": "s.canary"}))) as inbox:
        assert "(common name *** not allowed by this role)" in inbox.failure(FailureKind.REFUSED)


def test_a_rotated_token_file_is_taken_without_a_failure(kv2, tmp_path):
    tokens = [kv2.policy_token(read_policy("secret/data/app/db")) for _ in range(2)]
    token_file = tmp_path / "token"
    token_file.write_text(f"{tokens[0]}\n")
    with watched(plan(kv2, auth=VaultAuth(token_file=str(token_file))), Secret("secret/app/db", poll=FAST)) as inbox:
        inbox.reading()
        replace(token_file, tokens[1])
        kv2.client(tokens[0]).auth.token.revoke_self()
        kv2.put_kv2("secret", "app/db", {"password": "s.canary-2"})
        inbox.reading(lambda reading: reading.detail == "version 2")
    assert not inbox.failures


def test_a_revoked_token_is_a_refusal_until_the_file_holds_another(kv2, tmp_path):
    tokens = [kv2.policy_token(read_policy("secret/data/app/db")) for _ in range(2)]
    token_file = tmp_path / "token"
    token_file.write_text(tokens[0])
    with watched(plan(kv2, auth=VaultAuth(token_file=str(token_file))), Secret("secret/app/db", poll=FAST)) as inbox:
        inbox.reading()
        kv2.client(tokens[0]).auth.token.revoke_self()
        assert "ended or was revoked; put a new one there" in inbox.failure(FailureKind.REFUSED)
        replace(token_file, tokens[1])
        inbox.reading()


def replace(path: Path, text: str) -> None:
    """Put a new file in the place of the old one, as the kubelet does."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


def test_no_token_of_the_environment_or_the_home_gets_in(kv2, tmp_path, monkeypatch):
    monkeypatch.setenv("VAULT_TOKEN", kv2.root_token)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".vault-token").write_text(kv2.root_token)
    with watched(plan(kv2, auth=VaultAuth()), Secret("secret/app/db")) as inbox:
        reason = inbox.failure(FailureKind.MISCONFIGURED)
    assert "set vault.auth.token_file, or VAULT_TOKEN" in reason
    assert not inbox.readings


def test_a_namespace_holds_for_the_mount_and_the_secret(openbao):
    root = openbao.client()
    root.write_data("sys/namespaces/team", data={})
    team = openbao.client()
    team.adapter.namespace = "team"
    team.sys.enable_secrets_engine("kv", path="secret", options={"version": "1"})
    team.write_data("secret/app", data={"password": "of the team"})
    try:
        with watched(plan(openbao, namespace="team"), Secret("secret/app")) as inbox:
            assert inbox.reading().value == {"password": "of the team"}
        with watched(plan(openbao, namespace="nobody"), Secret("secret/app")) as inbox:
            assert "check it, and vault.namespace (namespace not found)" in inbox.failure(FailureKind.REFUSED)
    finally:
        root.delete("sys/namespaces/team")


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls_is_verified_against_the_ca_that_is_named(openbao_tls):
    openbao_tls.enable("kv", "kv1", version="1")
    openbao_tls.write("kv1/app", password="s.canary")
    with watched(plan(openbao_tls, tls=Tls(ca_file=str(openbao_tls.ca_file))), Secret("kv1/app")) as inbox:
        inbox.reading()
    with watched(plan(openbao_tls), Secret("kv1/app")) as inbox:
        assert "unable to get local issuer certificate; check vault.tls" in inbox.failure(FailureKind.MISCONFIGURED)
    with watched(plan(openbao_tls, tls=Tls(ca_file="/nowhere/ca.pem")), Secret("kv1/app")) as inbox:
        assert "/nowhere/ca.pem" in inbox.failure(FailureKind.MISCONFIGURED)
    with watched(plan(openbao_tls, tls=Tls(verify=False)), Secret("kv1/app")) as inbox:
        inbox.reading()
