"""The life of a token at a real OpenBao: renewed, replaced before its end, and what happens when it is refused."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import pytest

from reloader.backends.reads import ReadFailed
from reloader.backends.turns import Turns
from reloader.backends.vault.client import Client, Token
from reloader.plan import Vault, VaultAuth
from reloader.snapshot import FailureKind
from reloader.world import World
from reloader.written import Secret
from tests.servers.logins import Approle
from tests.servers.openbao import OpenBao
from tests.waiting import eventually

pytestmark = pytest.mark.servers

READS = 'path "kv/*" { capabilities = ["read"] }'
LOGIN, LOOK_UP, RENEW, REVOKE = "auth/approle/login", "auth/token/lookup-self", "auth/token/renew-self", "auth/token/revoke-self"


class Site:
    """A server with a secret and a role that may read it, and a client that logs in there."""

    def __init__(self, server: OpenBao, folder: Path) -> None:
        self.server = server
        server.enable("kv", "kv", version="1")
        server.write("kv/app", password="one")
        server.client().sys.create_or_update_policy("reads", READS)
        self.role = Approle(server, options={"token_policies": "reads"})
        self.secret_id_file = folder / "secret_id"
        self.secret_id_file.write_text(self.role.secret_id())
        self.auth = VaultAuth(method="approle", role_id=self.role.role_id, secret_id_file=str(self.secret_id_file))
        self._since = len(server.audit())

    def asked(self, path: str) -> int:
        """Return how often a path was asked for since then."""
        return sum(each.path == path for each in self.server.audit()[self._since :])

    @contextmanager
    def client(self, auth: VaultAuth | None = None) -> Iterator[Client]:
        world = World()
        plan = Vault(address=self.server.address, auth=auth or self.auth)
        client = Client(plan, Turns(plan.address, plan.max_connections, world), world)
        try:
            yield client
        finally:
            client.close()

    def knows(self, token: Token) -> bool:
        """Return whether the server knows a token."""
        return bool(self.server.client(token.text.reveal()).is_authenticated())


@pytest.fixture
def site(openbao: OpenBao, tmp_path: Path) -> Site:
    return Site(openbao, tmp_path)


@pytest.fixture
def own_site(own_openbao: OpenBao, tmp_path: Path) -> Site:
    return Site(own_openbao, tmp_path)


def reads(client: Client) -> bool:
    return bool(client.get("kv/app").body["data"] == {"password": "one"})


def changes_of(client: Client, look: Callable[[Token, Token | None], Any] = lambda old, new: (old, new)) -> list[Any]:
    """Return a list that grows with what is seen when there is a new token."""
    seen: list[Any] = []
    client.identity.on_new_token(lambda old, new: seen.append(look(old, new)))
    return seen


def test_a_token_is_renewed_before_its_time_and_stays_the_same(site):
    site.role.change(token_ttl="8s")  # renewed after two thirds: what is left is for a busy machine
    with site.client() as client:
        token = client.identity.token()
        eventually(lambda: site.asked(RENEW) >= 2, within=60)
        assert client.identity.token().serial == token.serial
        assert client.identity.token().ends > token.ends
        assert client.identity.lives(token)
        assert reads(client)
    assert (site.asked(LOGIN), site.asked(LOOK_UP)) == (1, 0)


def test_a_token_near_its_longest_life_is_replaced_while_both_live(site):
    site.role.change(token_ttl="4s", token_max_ttl="6s")
    with site.client() as client:
        changes = changes_of(client, lambda old, new: (old, new, site.knows(old), site.knows(new), client.identity.lives(old)))
        first = client.identity.token()
        old, new, *both_live = eventually(lambda: changes and changes[0], within=30)
        assert (old.serial, both_live) == (first.serial, [True, True, True])
        assert client.identity.token().serial == new.serial
        eventually(lambda: not client.identity.lives(first))
        eventually(lambda: not site.knows(first))  # which the server sees to in its own time
        assert client.identity.lives(client.identity.token())


@pytest.mark.parametrize("token_type", ["batch", "service"])
def test_a_token_that_cannot_be_renewed_is_replaced_while_both_live(site, token_type):
    """One whose first life is its longest is found to be such by one renewal."""
    site.role.change(token_ttl="4s", token_max_ttl="4s", token_type=token_type)
    with site.client() as client:
        changes = changes_of(client, lambda old, new: client.identity.lives(old) and site.knows(old) and site.knows(new))
        client.identity.token()
        eventually(lambda: len(changes) >= 2, within=30)
    assert changes[:2] == [True, True]
    assert site.asked(RENEW) <= (0 if token_type == "batch" else site.asked(LOGIN))


def test_a_periodic_token_is_renewed_for_ever(site):
    """Beyond the longest life that a token without a period would have."""
    site.role.change(token_period="10s", token_max_ttl="11s")
    with site.client() as client:
        token = client.identity.token()
        eventually(lambda: site.asked(RENEW) >= 2, within=60)
        assert client.identity.token().serial == token.serial
    assert site.asked(LOGIN) == 1


def test_no_use_of_a_limited_token_is_spent_on_anything_but_reads(site):
    site.role.change(token_num_uses=2, token_ttl="1h")
    with site.client() as client:
        assert all(reads(client) for _ in range(5))
    assert (site.asked(LOGIN), site.asked(LOOK_UP), site.asked(RENEW)) == (3, 0, 0)


def test_a_revoked_token_is_looked_up_once_and_replaced_at_once(site):
    with site.client() as client:
        changes = changes_of(client, lambda old, new: (old.serial, client.identity.lives(old)))
        assert reads(client)
        token = client.identity.token()
        for round_ in (1, 2):
            site.server.client().auth.token.revoke(client.identity.token().text.reveal())
            assert reads(client)
            assert (site.asked(LOOK_UP), site.asked(LOGIN)) == (round_, 1 + round_)
    assert changes[0] == (token.serial, False)


def test_what_is_denied_is_tried_once_with_another_token_which_is_revoked_and_not_again_for_a_while(site):
    with site.client() as client:
        token = client.identity.token()
        for _ in range(3):
            with pytest.raises(ReadFailed, match=r'its policy must hold: path "other/app" { capabilities = \["read"\] }') as caught:
                client.get("other/app")
            assert (caught.value.kind, caught.value.everywhere) == (FailureKind.REFUSED, False)
        assert (site.asked(LOOK_UP), site.asked(LOGIN), site.asked(REVOKE)) == (3, 2, 1)
        assert client.identity.token() == token
        assert reads(client)
        client.identity.wake()
        with pytest.raises(ReadFailed):
            client.get("other/app")
        assert site.asked(LOGIN) == 3
        site.server.client().auth.token.revoke(token.text.reveal())
        assert reads(client)


def test_rights_that_the_role_was_given_come_with_another_token(site):
    site.server.client().sys.create_or_update_policy("other", 'path "kv2/*" { capabilities = ["read"] }')
    site.server.enable("kv", "kv2", version="1")
    site.server.write("kv2/app", a="b")
    with site.client() as client:
        changes = changes_of(client, lambda old, new: (old, new, client.identity.lives(old)))
        token = client.identity.token()
        site.role.change(token_policies="reads,other")
        assert client.get("kv2/app").body["data"] == {"a": "b"}
        assert [(old.serial, lives) for old, _, lives in changes] == [(token.serial, True)]
        assert client.identity.token().serial == changes[0][1].serial != token.serial
    assert (site.asked(LOOK_UP), site.asked(LOGIN), site.asked(REVOKE)) == (1, 2, 0)


def test_without_the_default_policy_a_denied_path_is_no_loop_of_logins(site):
    """No look-up tells then whether a token lives."""
    site.role.change(token_no_default_policy=True)
    with site.client() as client:
        for _ in range(3):
            with pytest.raises(ReadFailed, match='path "other/app"'):
                client.get("other/app")
        assert site.asked(LOGIN) == 2
        assert reads(client)


def test_a_deleted_role_is_told_when_the_token_has_ended_and_not_before(site, caplog):
    site.role.change(token_ttl="2s", token_max_ttl="2s")
    with site.client() as client:
        assert reads(client)
        site.role.delete()
        # The last token may be renewed once more; reads go on until it ends.
        told = eventually(lambda: failure_of(client), within=15)
        assert (told.kind, told.everywhere) == (FailureKind.REFUSED, True)
        assert "auth/approle/login: the login was refused (invalid role or secret ID)" in str(told)
        warned = eventually(lambda: [each.message for each in caplog.records if "no new vault token" in each.message])
        assert len(warned) <= 1 + site.asked(LOGIN)
        asked = site.asked(LOGIN)
        for _ in range(20):  # whoever asks in between is told the same
            assert str(failure_of(client)) == str(told)
        assert site.asked(LOGIN) - asked <= 5


def failure_of(client: Client) -> ReadFailed | None:
    try:
        client.get("kv/app")
    except ReadFailed as failed:
        return failed
    return None


def test_a_server_that_is_sealed_while_a_token_is_renewed_costs_no_login(own_site, caplog):
    own_site.role.change(token_ttl="6s")
    with own_site.client() as client:
        token = client.identity.token()
        own_site.server.seal()
        eventually(lambda: "vault token not renewed, tried again while it lives" in caplog.text and "sealed" in caplog.text)
        own_site.server.unseal()
        eventually(lambda: own_site.asked(RENEW) >= 1)
        assert client.identity.token().serial == token.serial
    assert own_site.asked(LOGIN) == 1


def test_a_token_that_ended_while_the_server_was_sealed_is_replaced_by_whoever_asks(own_site):
    own_site.role.change(token_ttl="1s")
    with own_site.client() as client:
        token = client.identity.token()
        own_site.server.seal()
        eventually(lambda: not client.identity.lives(token))
        told = failure_of(client)
        assert "sealed" in str(told)
        assert told.everywhere
        own_site.server.unseal()
        eventually(lambda: reads(client))


def test_that_a_token_ended_without_a_successor_is_told(own_site):
    """What hangs on it is dead, however late it would be looked at."""
    own_site.role.change(token_ttl="2s")
    with own_site.client() as client:
        changes = changes_of(client)
        client.identity.token()
        own_site.server.seal()
        last = client.identity.token()
        assert eventually(lambda: [old.serial for old, new in changes if new is None]) == [last.serial]
        own_site.server.unseal()


def test_many_who_ask_at_once_cost_one_login(site):
    with site.client() as client:
        threads = [threading.Thread(target=client.identity.token) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert site.asked(LOGIN) == 1


def test_the_next_run_goes_on_with_the_same_token_and_renews_it(site):
    site.role.change(token_ttl="4s")
    with site.client() as client:
        token = client.identity.token()
        kept = json.loads(json.dumps(client.identity.keep()))
    with site.client() as client:
        client.identity.adopt(kept)
        assert client.identity.token().serial == token.serial
        assert client.identity.token().ends == pytest.approx(token.ends, abs=0.5)
        eventually(lambda: site.asked(RENEW) >= 1)
        assert reads(client)
    assert site.asked(LOGIN) == 1


def test_a_token_whose_renewal_is_overdue_is_renewed_at_once(site):
    site.role.change(token_ttl="1h")
    with site.client() as client:
        client.identity.token()
        kept = client.identity.keep()
    kept["token"]["term"] = 4 * 3600.0
    with site.client() as client:
        client.identity.adopt(kept)
        eventually(lambda: site.asked(RENEW) == 1)


def test_what_was_kept_and_has_ended_is_not_taken(site):
    with site.client() as client:
        client.identity.token()
        kept = client.identity.keep()
    for damage in ({"ends": 1.0}, {"text": "a\nb"}, {"text": 1}):
        with site.client() as client:
            client.identity.adopt({"token": kept["token"] | damage})
            assert reads(client)
    assert site.asked(LOGIN) == 4


def test_a_limited_token_is_not_kept(site):
    site.role.change(token_num_uses=9)
    with site.client() as client:
        client.identity.token()
        assert client.identity.keep() is None


@pytest.mark.parametrize("token_type", ["service", "batch"])
def test_a_token_of_ours_is_revoked_where_that_is_possible(site, token_type):
    site.role.change(token_ttl="1h", token_type=token_type)
    with site.client() as client:
        token = client.identity.token()
        client.identity.revoke()
        assert not client.identity.lives(token)
    assert site.knows(token) is (token_type == "batch")


def given(token: str) -> VaultAuth:
    return VaultAuth(token=Secret(token))


def test_a_given_token_is_looked_up_once_and_renewed_for_ever_if_it_is_periodic(site):
    token = site.server.policy_token(READS, period="4s")
    with site.client(given(token)) as client:
        assert client.identity.token().ends < inf
        eventually(lambda: site.asked(RENEW) >= 3, within=30)
        assert reads(client)
        assert client.identity.keep() is None
        client.identity.revoke()
        assert reads(client)
    assert site.asked(LOOK_UP) == 1


@pytest.mark.parametrize("options", [{"ttl": "1h", "renewable": False}, {"ttl": "2s", "explicit_max_ttl": "2s"}])
def test_the_end_of_a_given_token_that_cannot_be_renewed_is_told(site, caplog, options):
    caplog.set_level(logging.WARNING)
    with site.client(given(site.server.policy_token(READS, **options))) as client:
        assert reads(client)
        eventually(lambda: "the token of vault.auth.token (or VAULT_TOKEN) ends at 2" in caplog.text)
    assert "cannot be renewed; put a new one there before" in caplog.text
    assert site.asked(RENEW) <= 1


def test_a_given_token_that_was_revoked_is_told_as_such_to_all(site):
    token = site.server.policy_token(READS, ttl="1h")
    with site.client(given(token)) as client:
        assert reads(client)
        site.server.client().auth.token.revoke(token)
        told = failure_of(client)
    assert (told.kind, told.everywhere) == (FailureKind.REFUSED, True)
    assert "the token of vault.auth.token (or VAULT_TOKEN) ended or was revoked; put a new one there" in str(told)
    assert token not in str(told)


def test_a_given_token_that_lacks_a_right_is_told_the_policy_after_one_look_up(site):
    with site.client(given(site.server.policy_token(READS))) as client:
        with pytest.raises(ReadFailed, match='path "other/app"') as caught:
            client.get("other/app")
        assert not caught.value.everywhere
    assert site.asked(LOOK_UP) == 2  # what it is, and whether it lives


def test_a_given_token_of_limited_use_is_looked_up_once_and_said_to_be_used_up(site):
    with site.client(given(site.server.policy_token(READS, num_uses=3))) as client:
        assert reads(client)
        assert reads(client)
        assert "was good for 2 requests and is used up; put a new one there" in str(failure_of(client))
    assert site.asked(LOOK_UP) == 1


def test_a_given_token_that_may_not_be_looked_up_is_used_as_it_is(site):
    client = site.server.client()
    token = client.auth.token.create(policies=["reads"], no_default_policy=True)["auth"]["client_token"]
    with site.client(given(token)) as client:
        assert reads(client)
        assert client.identity.token().ends == inf
        with pytest.raises(ReadFailed, match='path "other/app"'):
            client.get("other/app")


def test_another_token_in_the_file_is_taken_at_once_and_told(site, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(site.server.policy_token(READS, ttl="1h"))
    with site.client(VaultAuth(token_file=str(token_file))) as client:
        changes = changes_of(client, lambda old, new: (old.serial, new.serial, client.identity.lives(old)))
        assert reads(client)
        first = client.identity.token()
        site.server.client().auth.token.revoke(first.text.reveal())
        told = failure_of(client)
        assert f"the token of vault.auth.token_file {token_file} ended or was revoked" in str(told)
        token_file.write_text(site.server.policy_token(READS, ttl="1h"))
        assert reads(client)
        assert changes == [(first.serial, client.identity.token().serial, False)]


def test_another_token_in_the_file_is_taken_though_nobody_asks_for_one(site, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(site.server.policy_token(READS, ttl="1h"))
    with site.client(VaultAuth(token_file=str(token_file))) as client:
        changes = changes_of(client, lambda old, new: (old.serial, new.serial, client.identity.lives(old)))
        first = client.identity.token()
        token_file.write_text("")
        token_file.write_text(site.server.policy_token(READS, ttl="1h"))
        eventually(lambda: changes)
        assert changes == [(first.serial, client.identity.token().serial, True)]


def test_the_end_of_a_given_token_is_told_unless_somebody_else_put_it_off(site):
    renewable_by_others = READS + f'path "{RENEW}" {{ capabilities = ["deny"] }}'
    for ttl, told in (("2s", True), ("3s", False)):
        token = site.server.policy_token(renewable_by_others if not told else READS, ttl=ttl, renewable=not told)
        with site.client(given(token)) as client:
            changes = changes_of(client, lambda old, new: (old.serial, new))
            first = client.identity.token()
            if told:
                eventually(lambda changes=changes: changes)
                assert changes == [(first.serial, None)]
                continue
            site.server.client().auth.token.renew(token, increment="1h")
            eventually(lambda client=client, first=first: client.identity.token().ends > first.ends + 1000)
            assert not changes


def test_nothing_of_a_token_shows_its_text(site):
    with site.client() as client:
        text = client.identity.token().text.reveal()
        answer = client.get("kv/app")
        for each in (answer, answer.token, client.identity, client.identity._held, client.identity._logins.secret_ids):
            assert text not in repr(each)
            assert site.secret_id_file.read_text() not in repr(each)
