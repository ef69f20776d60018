"""Leases of a real OpenBao: database users that a real PostgreSQL knows, counted there and in the server's audit log."""

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reloader.backends.turns import Turns
from reloader.backends.vault import Backend, Secret, Write, parameters_of
from reloader.plan import Vault, VaultAuth
from reloader.schedule import Backoff
from reloader.world import World
from reloader.written import Secret as Hidden
from tests.conformance.relay import EARLY, Answer, Asked, Relay, pauses
from tests.faults.faulty import Soonest
from tests.recorder import Recorder
from tests.servers.counting import Counting
from tests.servers.openbao import OpenBao
from tests.servers.postgres import Postgres
from tests.waiting import eventually

pytestmark = pytest.mark.servers

CREDS, RENEW = "database/creds/", "sys/leases/renew"
ISSUE = f"/v1/{CREDS}app"
MAY_ISSUE = 'path "database/creds/*" { capabilities = ["read"] }'


class Inbox(Recorder):
    """Keeps what came of reading credentials."""

    @property
    def users(self) -> list[str]:
        """The users that came, each once."""
        return list(dict.fromkeys(each.value["username"] for each in self.readings))


class Bench:
    """A backend as a sidecar has it; `again` is its next run, whatever became of the first."""

    def __init__(self, auth: VaultAuth, address: str, state: Path | None, rng: random.Random) -> None:
        self._plan, self._state, self._rng = Vault(address=address, auth=auth), state, rng
        self.again()

    def again(self) -> "Bench":
        world = World(random=self._rng)
        self.backend = Backend(self._plan, Turns(self._plan.address, 4, world), world)
        if self._state is not None:
            self.backend.keep_in(self._state)
        return self

    def watch(self, read: Secret | Write, name: str = "name") -> Inbox:
        inbox = Inbox()
        self.backend.watch(read, inbox, name)
        return inbox

    def close(self) -> None:
        self.backend.close()


@contextmanager
def bench(
    server: OpenBao,
    token: str | None = None,
    *,
    state: Path | None = None,
    auth: VaultAuth | None = None,
    address: str = "",
    rng: random.Random | None = None,
) -> Iterator[Bench]:
    token = server.root_token if token is None else token
    made = Bench(auth or VaultAuth(token=Hidden(token)), address or server.address, state, rng or random.Random())
    try:
        yield made
    finally:
        made.close()


def asked(server: OpenBao, since: int, *paths: str) -> int:
    """Return how many requests to these paths were answered well after the first `since` of all."""
    return sum(not each.refused for each in server.audit(since=since) if each.path.startswith(paths))


@pytest.fixture
def relay(openbao: OpenBao) -> Iterator[Relay]:
    """Between a backend and the server."""
    made = Relay(openbao.address)
    yield made
    made.stop()


@pytest.fixture
def since(openbao: OpenBao, database: Postgres) -> int:
    return len(openbao.audit())


@pytest.fixture
def short(openbao: OpenBao, database: Postgres) -> Secret:
    """Users for three seconds, nine at most."""
    return Secret(database.role(openbao, "short", ttl="3s", max_ttl="9s"))


@pytest.fixture
def long(openbao: OpenBao, database: Postgres) -> Secret:
    """Users for three seconds, for as long as they are renewed."""
    return Secret(database.role(openbao, "long", ttl="3s", max_ttl="1h"))


def unknown_life(server: OpenBao) -> str:
    """Return a token that may not look itself up, so that nobody knows when it ends."""
    rights = MAY_ISSUE + f'path "{RENEW}" {{ capabilities = ["update"] }}'
    server.client().sys.create_or_update_policy("issue", rights)
    made = server.client().auth.token.create(policies=["issue"], no_default_policy=True, ttl="1h")
    return str(made["auth"]["client_token"])


def logins(server: OpenBao, folder: Path, **life: str) -> VaultAuth:
    """Return how to log in for tokens that live so long."""
    server.client().sys.create_or_update_policy("app", MAY_ISSUE)
    server.client().sys.enable_auth_method("approle")
    server.write("auth/approle/role/app", token_policies="app", **life)
    (folder / "secret-id").write_text(server.write("auth/approle/role/app/secret-id")["data"]["secret_id"])
    role_id = server.client().read("auth/approle/role/app/role-id")["data"]["role_id"]
    return VaultAuth(method="approle", role_id=role_id, secret_id_file=str(folder / "secret-id"))


def revoke_all(server: OpenBao) -> None:
    """Revoke every user behind the back of whoever has it."""
    server.client().adapter.put(f"/v1/sys/leases/revoke-prefix/{CREDS}")


def test_a_lease_is_renewed_and_no_second_user_is_made(openbao, database, long, since):
    with bench(openbao) as made:
        inbox = made.watch(long)
        eventually(lambda: asked(openbao, since, RENEW) >= 3, within=30)
        first = inbox.readings[0]
        eventually(lambda: len(inbox.readings) >= 4)
        assert database.lets_in(first.value["username"], first.value["password"])
    assert len(inbox.users) == 1
    assert asked(openbao, since, CREDS) == 1
    assert not inbox.failures
    expiries = [each.expires for each in inbox.readings]
    assert expiries == sorted(expiries)
    assert {each.at for each in inbox.readings} == {first.at}
    for earlier, later in itertools.pairwise(inbox.readings):
        assert earlier.current_until < later.expires - 3 + 0.5  # the next renewal came when it was due, not before
        assert later.expires - 3 >= earlier.current_until - 0.01


def test_two_who_want_the_same_get_the_same_user(openbao, database, long, since):
    with bench(openbao) as made:
        one, other = made.watch(long), made.watch(long, "other")
        assert one.reading().value == other.reading().value
    assert asked(openbao, since, CREDS) == 1


def test_at_its_longest_life_a_lease_is_followed_by_another_before_its_end(openbao, database, since):
    read = Secret(database.role(openbao, "app", ttl="8s", max_ttl="16s"))
    with bench(openbao) as made:
        inbox = made.watch(read)
        eventually(lambda: len(inbox.users) == 2, within=40)
        first, second = inbox.readings[0], inbox.readings[-1]
        assert database.lets_in(second.value["username"], second.value["password"])
    last_of_first = [each for each in inbox.readings if each.value == first.value][-1]
    assert second.at < last_of_first.expires
    assert second.at - first.at > 0.8 * 16 - 1  # lifetimes are told in whole seconds
    assert asked(openbao, since, CREDS) == 2
    assert not inbox.failures


def test_what_was_replaced_is_renewed_until_the_new_set_is_confirmed(openbao, database, long, tmp_path):
    """A token that ends: what hangs on it is issued anew with the next token, and the old user works on until nobody uses it."""
    tokens = [unknown_life(openbao) for _ in range(2)]
    token_file = tmp_path / "token"
    token_file.write_text(tokens[0])
    with bench(openbao, auth=VaultAuth(token_file=str(token_file))) as made:
        inbox = made.watch(long)
        old = inbox.reading()
        token_file.write_text(tokens[1])
        new = inbox.reading(lambda reading: reading.value != old.value)
        began = len(openbao.audit())
        eventually(lambda: asked(openbao, began, RENEW) >= 6, within=30)  # three life times of each
        for each in (old, new):
            assert database.lets_in(each.value["username"], each.value["password"])
        made.backend.confirmed(long, inbox, "name", new.at)
        eventually(lambda: not database.lets_in(old.value["username"], old.value["password"]), within=20)
        assert database.lets_in(new.value["username"], new.value["password"])
        assert len(inbox.users) == 2
    assert not inbox.failures


def test_one_of_two_who_confirms_does_not_let_go_of_what_the_other_uses(openbao, database, long, tmp_path):
    tokens = [unknown_life(openbao) for _ in range(2)]
    token_file = tmp_path / "token"
    token_file.write_text(tokens[0])
    with bench(openbao, auth=VaultAuth(token_file=str(token_file))) as made:
        inbox, slow = made.watch(long), made.watch(long, "slow")
        old = inbox.reading()
        made.backend.confirmed(long, slow, "slow", old.at)
        token_file.write_text(tokens[1])
        new = inbox.reading(lambda reading: reading.value != old.value)
        made.backend.confirmed(long, inbox, "name", new.at)
        began = len(openbao.audit())
        eventually(lambda: asked(openbao, began, RENEW) >= 6, within=30)
        assert database.lets_in(old.value["username"], old.value["password"])


def test_a_lease_that_is_revoked_again_and_again_does_not_mint_in_a_loop(openbao, database, long, since):
    with bench(openbao) as made:
        inbox = made.watch(long)
        for users in range(1, 4):
            eventually(lambda users=users: len(inbox.users) == users, within=30)
            revoke_all(openbao)
        told = "its lease was revoked 3 times in a row; it is issued anew in"
        eventually(lambda: inbox.failures and told in inbox.failures[-1].reason, within=30)
    assert asked(openbao, since, CREDS) == 3


def test_one_revoked_lease_is_followed_by_one_new_issue(openbao, database, long, since):
    with bench(openbao) as made:
        inbox = made.watch(long)
        inbox.reading()
        revoke_all(openbao)
        eventually(lambda: len(inbox.users) == 2, within=20)
        eventually(lambda: asked(openbao, since, RENEW) >= 2, within=20)
    assert asked(openbao, since, CREDS) == 2
    assert not inbox.failures


def test_a_lease_that_may_not_be_renewed_is_used_until_shortly_before_its_end(openbao, database, since):
    read = Secret(database.role(openbao, "app", ttl="8s", max_ttl="1h"))
    token = openbao.policy_token(MAY_ISSUE + f'path "{RENEW}" {{ capabilities = ["deny"] }}')
    with bench(openbao, token, rng=Soonest()) as made:
        inbox = made.watch(read)
        eventually(lambda: len(inbox.users) >= 3, within=60)
    assert not inbox.failures
    issues = [next(each for each in inbox.readings if each.value["username"] == user) for user in inbox.users]
    for earlier, later in itertools.pairwise(issues):
        assert later.at - earlier.at > 0.84 * 8
        assert later.at < earlier.expires
    assert asked(openbao, since, CREDS) == len(inbox.users)


def test_a_renewal_that_fails_is_tried_again_while_the_lease_lives(openbao, database, since):
    """The engine cannot reach the database for a moment: no second user is asked for, and the first one is renewed after it."""
    read = Secret(database.role(openbao, "steady", ttl="6s", max_ttl="1h"))
    with bench(openbao) as made:
        inbox = made.watch(read)
        first = inbox.reading()
        user = first.value["username"]
        database.ask(f'ALTER ROLE "{user}" RENAME TO hidden')
        failure = eventually(lambda: inbox.failures and inbox.failures[0], within=20)
        database.ask(f'ALTER ROLE hidden RENAME TO "{user}"')
        inbox.reading()
    assert failure.current_until == first.current_until
    assert len(inbox.users) == 1
    assert asked(openbao, since, CREDS) == 1


def test_a_rotated_password_is_read_again_right_after_its_rotation(openbao, database, since):
    read = Secret(database.static_role(openbao, "static", period="5s"))
    try:
        with bench(openbao) as made:
            inbox = made.watch(read)
            # OpenBao 2.7 rotates every 5 s what is due by then, and each time a read may come too soon and be put off.
            eventually(lambda: len({each.value["password"] for each in inbox.readings}) == 3, within=90)
            latest = inbox.readings[-1]
            assert database.lets_in("static", latest.value["password"])
        assert len(inbox.readings) == 3
        assert all(each.expires is None for each in inbox.readings)
        # One that comes just before the server has rotated is told that nothing is left, and tries again.
        assert asked(openbao, since, "database/static-creds/") == 3 + len(inbox.failures)
    finally:
        openbao.client().delete("database/static-roles/static")
        database.forget("static")


class TestKept:
    """With `state.path`."""

    def test_the_next_run_has_the_same_user(self, openbao, database, long, tmp_path, since):
        with bench(openbao, state=tmp_path) as made:
            first = made.watch(long).reading()
            made.close()
            second = made.again().watch(long).reading()
            assert second.value == first.value
            renewed = asked(openbao, since, RENEW)
            eventually(lambda: asked(openbao, since, RENEW) >= renewed + 2, within=20)
            assert database.lets_in(first.value["username"], first.value["password"])
        assert asked(openbao, since, CREDS) == 1

    def test_it_has_it_before_the_server_says_a_word(self, own_openbao, database, tmp_path):
        database.connect(own_openbao)
        read = Secret(database.role(own_openbao, "slow", ttl="1h", max_ttl="2h"))
        with bench(own_openbao, state=tmp_path) as made:
            first = made.watch(read).reading()
            made.close()
            own_openbao.stop(kill=True)
            assert made.again().watch(read).readings[0].value == first.value

    def test_what_replaces_it_is_not_doubted_with_it(self, openbao, database, long, tmp_path):
        """Whose token what was kept had been issued with is asked of that alone."""
        with bench(openbao, state=tmp_path) as made:
            made.watch(long).reading()
            made.close()
            leases = made.again().backend._leases
            assert long in leases._unproven
            leases.take(leases.current(long))
            assert long not in leases._unproven

    def test_another_read_gets_none_of_it(self, openbao, database, long, short, tmp_path):
        with bench(openbao, state=tmp_path) as made:
            first = made.watch(long).reading()
            made.close()
            assert made.again().watch(short).reading().value != first.value

    def test_another_token_of_the_operator_has_it_issued_anew(self, openbao, database, tmp_path, since):
        read = Secret(database.role(openbao, "slow", ttl="1h", max_ttl="2h"))
        tokens = [unknown_life(openbao) for _ in range(2)]
        token_file = tmp_path / "token"
        token_file.write_text(tokens[0])
        with bench(openbao, state=tmp_path / "state", auth=VaultAuth(token_file=str(token_file))) as made:
            first = made.watch(read).reading()
            made.close()
            token_file.write_text(tokens[1])
            made.again()
            inbox = made.watch(read)
            assert inbox.reading().value == first.value
            made.backend.look()
            inbox.reading(lambda reading: reading.value != first.value)
        assert asked(openbao, since, CREDS) == 2

    def test_a_certificate_is_the_same_while_it_is_valid(self, openbao, tmp_path):
        pki = openbao.pki("pki", "tests")
        read = Write(pki.issue, parameters_of({"common_name": "web.test", "ttl": "1h"}))
        with bench(openbao, state=tmp_path) as made:
            first = made.watch(read).reading()
            made.close()
            assert made.again().watch(read).reading().value == first.value
        assert first.value["ca_chain"]
        assert len(openbao.client().list("pki/certs")["data"]["keys"]) == 2  # the authority's own, and this one

    def test_what_hung_on_a_token_that_ended_meanwhile_is_issued_anew_at_once(self, openbao, database, tmp_path):
        read = Secret(database.role(openbao, "slow", ttl="1h", max_ttl="2h"))
        auth = logins(openbao, tmp_path, token_ttl="4s", token_max_ttl="4s")
        with bench(openbao, state=tmp_path / "state", auth=auth) as made:
            first = made.watch(read).reading()
            made.close()
            eventually(lambda: first.value["username"] not in database.minted(), within=20)
            fresh = made.again().watch(read).reading(lambda reading: reading.value != first.value)
            assert database.lets_in(fresh.value["username"], fresh.value["password"])

    def test_what_is_still_in_use_is_renewed_by_the_next_run(self, openbao, database, long, tmp_path):
        tokens = [unknown_life(openbao) for _ in range(2)]
        token_file = tmp_path / "token"
        token_file.write_text(tokens[0])
        with bench(openbao, state=tmp_path / "state", auth=VaultAuth(token_file=str(token_file))) as made:
            inbox = made.watch(long)
            old = inbox.reading()
            token_file.write_text(tokens[1])
            new = inbox.reading(lambda reading: reading.value != old.value)
            made.close()
            again = made.again().watch(long)
            began = len(openbao.audit())
            eventually(lambda: asked(openbao, began, RENEW) >= 6, within=30)
            assert again.users == [new.value["username"]]
            assert database.lets_in(old.value["username"], old.value["password"])

    def test_a_lease_that_ended_meanwhile_is_issued_anew(self, openbao, database, long, tmp_path):
        with bench(openbao, state=tmp_path) as made:
            first = made.watch(long).reading()
            made.close()
            eventually(lambda: first.value["username"] not in database.minted(), within=20)
            assert made.again().watch(long).reading(lambda reading: reading.value != first.value)

    def test_no_token_of_the_operator_is_written(self, openbao, database, long, tmp_path):
        with bench(openbao, state=tmp_path) as made:
            made.watch(long).reading()
            text = next(tmp_path.glob("vault-*.json")).read_text()
        assert openbao.root_token not in text
        assert long.path in text

    @pytest.mark.parametrize("damage", ['"issued": [{}]', '"issued": 3', '"key": "x"', '"identity": 4'])
    def test_a_damaged_file_is_set_aside(self, openbao, database, long, tmp_path, damage):
        with bench(openbao, state=tmp_path) as made:
            made.watch(long).reading()
            made.close()
            file = next(tmp_path.glob("vault-*.json"))
            file.write_text(f'{{"version": 1, "key": "00", "identity": null, "issued": [], {damage}}}')
            made.again().watch(long).reading()
        assert list(tmp_path.glob("vault-*.damaged"))


def test_without_a_state_the_next_run_has_a_user_of_its_own(openbao, database, long):
    with bench(openbao) as made:
        first = made.watch(long).reading()
        made.close()
        assert made.again().watch(long).reading().value != first.value


def test_what_is_held_is_renewed_though_nobody_reads_it(openbao, database, long):
    with bench(openbao) as made:
        inbox = Inbox()
        leave = made.backend.watch(long, inbox, "name")
        first = inbox.reading()
        release = made.backend.hold(long)
        leave()
        began = len(openbao.audit())
        eventually(lambda: asked(openbao, began, RENEW) >= 3, within=20)
        assert database.lets_in(first.value["username"], first.value["password"])
        release()
        eventually(lambda: first.value["username"] not in database.minted(), within=20)


def test_everything_is_revoked_when_that_is_asked_for(openbao, database, tmp_path):
    read = Secret(database.role(openbao, "slow", ttl="1h", max_ttl="2h"))
    with bench(openbao, state=tmp_path) as made:
        first = made.watch(read).reading()
        assert made.backend.revoke() == ()
        eventually(lambda: first.value["username"] not in database.minted())
        made.close()
        assert made.again().watch(read).reading().value != first.value


def test_a_token_of_ours_is_revoked_with_all_that_hangs_on_it(openbao, database, tmp_path):
    read = Secret(database.role(openbao, "slow", ttl="1h", max_ttl="2h"))
    with bench(openbao, auth=logins(openbao, tmp_path, token_ttl="1h")) as made:
        first = made.watch(read).reading()
        assert made.backend.revoke() == ()
        eventually(lambda: first.value["username"] not in database.minted())


def test_what_a_batch_token_issued_is_revoked_one_by_one(openbao, database, tmp_path):
    """No server revokes the token itself, nor what hangs on it, before its end."""
    read = Secret(database.role(openbao, "slow", ttl="1h", max_ttl="2h"))
    auth = logins(openbao, tmp_path, token_ttl="1h", token_type="batch")
    openbao.client().sys.create_or_update_policy("app", MAY_ISSUE + 'path "sys/leases/revoke" { capabilities = ["update"] }')
    with bench(openbao, state=tmp_path / "state", auth=auth) as made:
        first = made.watch(read).reading()
        made.close()
        assert made.again().watch(read).reading().value == first.value
        assert made.backend.revoke() == ()
        eventually(lambda: first.value["username"] not in database.minted())


def test_what_ended_with_its_token_is_issued_anew_once_the_server_is_back(own_openbao, database, tmp_path):
    """Long before its own renewal would be due."""
    database.connect(own_openbao)
    read = Secret(database.role(own_openbao, "slow", ttl="1h", max_ttl="2h"))
    with bench(own_openbao, auth=logins(own_openbao, tmp_path, token_ttl="4s", token_max_ttl="4s")) as made:
        inbox, identity = made.watch(read), made.backend._client.identity
        inbox.reading()
        own_openbao.seal()
        last = identity._held.token
        before = inbox.users
        eventually(lambda: not identity.lives(last))
        own_openbao.unseal()
        eventually(lambda: inbox.users[len(before) :])
        fresh = inbox.reading()
        assert database.lets_in(fresh.value["username"], fresh.value["password"])


def test_another_token_in_the_file_has_it_issued_anew_though_nothing_is_due(openbao, database, tmp_path):
    read = Secret(database.role(openbao, "slow", ttl="1h", max_ttl="2h"))
    token_file = tmp_path / "token"
    token_file.write_text(unknown_life(openbao))
    with bench(openbao, auth=VaultAuth(token_file=str(token_file))) as made:
        inbox = made.watch(read)
        first = inbox.reading()
        token_file.write_text(unknown_life(openbao))
        eventually(lambda: inbox.users != [first.value["username"]])
    assert not inbox.failures


def test_what_ended_with_a_token_that_was_revoked_once_it_was_replaced_is_issued_anew_at_its_renewal(openbao, database, tmp_path, caplog):
    """The renewal is denied, because its token is no more: its lease does not live on until its end, as one that may not be renewed."""
    read = Secret(database.role(openbao, "app", ttl="6s", max_ttl="1h"))
    token_file = tmp_path / "token"
    token_file.write_text(replaced := openbao.policy_token(MAY_ISSUE, ttl="768h"))
    with bench(openbao, auth=VaultAuth(token_file=str(token_file))) as made:
        inbox, identity = made.watch(read), made.backend._client.identity
        first, before = inbox.reading(), identity.token()
        token_file.write_text(openbao.policy_token(MAY_ISSUE, ttl="768h"))
        eventually(lambda: identity._held.token != before)
        openbao.client(replaced).auth.token.revoke_self()
        eventually(lambda: first.value["username"] not in database.minted())
        eventually(lambda: len(inbox.users) == 2)
    assert "lease gone" in caplog.text
    assert "lease not renewed" not in caplog.text
    assert not inbox.failures


def test_a_new_token_makes_no_retry_come_sooner(openbao, database, tmp_path, relay):
    """The read itself finds that its token ended, and logs in: that what hung on it is due is told while the new token is denied, too."""
    read = Secret(database.role(openbao, "app", ttl="3s", max_ttl="1h"))
    with bench(openbao, address=relay.address, auth=logins(openbao, tmp_path, token_ttl="1h"), rng=Soonest()) as made:
        made.watch(read).reading()
        relay.behave = lambda asked: Answer(500) if asked.path.endswith(RENEW) else relay.forward(asked)
        openbao.client().sys.create_or_update_policy("app", 'path "nothing" { capabilities = ["read"] }')
        openbao.client().adapter.put("/v1/sys/leases/revoke-prefix/auth/approle")
        eventually(lambda: len(relay.of(ISSUE)) >= 4, what="one that the old token was denied, and two of the new one")
    first, second = relay.of(ISSUE)[2:4]
    assert first.headers["X-Vault-Token"] == second.headers["X-Vault-Token"]
    failures = sum(asked.at < first.at for asked in relay.of(RENEW)) + 1
    assert failures >= 4
    assert pauses([first, second])[0] >= Backoff().floor(failures) - EARLY


def test_while_nothing_new_can_be_issued_the_old_one_is_renewed(openbao, database, since, tmp_path):
    """The next token may not issue: the user of the one before works on, and is replaced when the policy is mended.

    The seventh failure is followed by a longer wait than the lease has time.
    """
    read = Secret(database.role(openbao, "app", ttl="6s", max_ttl="1h"))
    token_file = tmp_path / "token"
    token_file.write_text(unknown_life(openbao))
    with bench(openbao, auth=VaultAuth(token_file=str(token_file)), rng=Soonest()) as made:
        inbox = made.watch(read)
        first = inbox.reading()
        powerless = openbao.policy_token('path "nothing" { capabilities = ["read"] }', ttl="1h")
        name = openbao.client(powerless).auth.token.lookup_self()["data"]["policies"][-1]
        token_file.write_text(powerless)
        eventually(lambda: inbox.failures, within=30)
        began = len(openbao.audit())
        eventually(lambda: asked(openbao, began, RENEW) >= 4, within=60)
        assert database.lets_in(first.value["username"], first.value["password"])
        openbao.client().sys.create_or_update_policy(name, MAY_ISSUE)
        eventually(lambda: len(inbox.users) == 2, within=30)
    assert asked(openbao, since, CREDS) == 2


def test_what_is_held_no_more_is_renewed_while_its_successor_may_not_be_asked_for(openbao, database, tmp_path):
    """After six failures there is no retry for longer than the lease lives."""
    read = Secret(database.role(openbao, "app", ttl="3s", max_ttl="1h"))
    token_file = tmp_path / "token"
    token_file.write_text(unknown_life(openbao))
    with bench(openbao, auth=VaultAuth(token_file=str(token_file)), rng=Soonest()) as made:
        inbox = made.watch(read)
        first = inbox.reading()
        release = made.backend.hold(read)
        token_file.write_text(openbao.policy_token('path "nothing" { capabilities = ["read"] }', ttl="1h"))
        eventually(lambda: len(inbox.failures) >= 7, within=60)
        release()
        began = len(openbao.audit())
        eventually(lambda: asked(openbao, began, RENEW) >= 3, within=30)
        assert database.lets_in(first.value["username"], first.value["password"])


def test_who_renews_a_lease_counts_what_failed_for_who_did_before(openbao, database, relay):
    """A renewal fails until the lease is to be replaced, and so does that: then somebody else renews it, and no sooner for that."""
    read = Secret(database.role(openbao, "app", ttl="10s", max_ttl="1h"))
    with bench(openbao, address=relay.address, rng=Soonest()) as made:
        made.watch(read).reading()
        relay.behave = lambda asked: Answer(500) if asked.path.endswith(RENEW) else _denied(relay, asked)
        eventually(lambda: len(relay.of(ISSUE)) == 3, what="the end of the lease")
    found, backoff = pauses(relay.of(RENEW)), Backoff()
    assert len(found) >= 5
    assert [pause for failures, pause in enumerate(found, start=1) if pause < backoff.floor(failures) - EARLY] == []


def test_a_lease_that_need_not_be_replaced_any_more_is_renewed_once_a_term(openbao, database, relay):
    """It could be renewed in time after all, by who prolonged it: who reads it goes on with that, and nobody else does."""
    read = Secret(database.role(openbao, "app", ttl="6s", max_ttl="1h"))
    with bench(openbao, address=relay.address, rng=Soonest()) as made:
        inbox = made.watch(read)
        inbox.reading()
        relay.behave = lambda asked: Answer(500) if asked.path.endswith(RENEW) and len(relay.of(ISSUE)) == 1 else _denied(relay, asked)
        eventually(lambda: len([asked for asked in relay.of(RENEW) if asked.status == 200]) == 4, within=60, what="four renewals")
        renewed = [asked.at for asked in relay.of(RENEW) if asked.status == 200]
        assert len(inbox.users) == 1
    assert min(later - earlier for earlier, later in itertools.pairwise(renewed)) > 3


def test_what_is_held_is_issued_anew_by_who_reads_it_as_soon_as_it_is_gone(openbao, database, relay):
    read = Secret(database.role(openbao, "app", ttl="6s", max_ttl="1h"))
    with bench(openbao, address=relay.address) as made:
        inbox = made.watch(read)
        inbox.reading()
        made.backend.hold(read)
        revoke_all(openbao)
        eventually(lambda: len(inbox.users) == 2, what="another user")
    renew = f"/v1/{RENEW}"
    assert [asked.path for asked in relay.asked if asked.path in (ISSUE, renew)] == [ISSUE, renew, renew, ISSUE]


def test_what_several_hold_is_renewed_once_a_term(openbao, database, relay):
    read = Secret(database.role(openbao, "app", ttl="6s", max_ttl="1h"))
    with bench(openbao, address=relay.address) as made:
        made.watch(read).reading()
        made.backend.hold(read)
        made.backend.hold(read)
        eventually(lambda: len(relay.of(RENEW)) == 3, what="three renewals")
    renewed = [asked.at for asked in relay.of(RENEW)]
    assert min(later - earlier for earlier, later in itertools.pairwise(renewed)) > 2


def test_what_is_held_waits_with_all_others_while_the_server_fails(openbao, database, relay):
    """One request at a time asks whether it is back, by one backoff, however many leases are due."""
    reads = [Secret(database.role(openbao, name, ttl="6s", max_ttl="1h")) for name in ("app", "other")]
    with bench(openbao, address=relay.address, rng=Soonest()) as made:
        for inbox in [made.watch(read) for read in reads]:
            inbox.reading()
        for read in reads:
            made.backend.hold(read)
        began = len(relay.asked)
        relay.behave = lambda _asked: Answer(503)
        eventually(lambda: len(relay.asked) >= began + 9, what="requests to a server that fails")
        found, backoff = pauses(relay.asked[began : began + 9]), Backoff()
        relay.behave = relay.forward
        eventually(lambda: len([asked for asked in relay.asked[began:] if asked.status == 200]) >= 2, what="two renewals")
    assert len([pause for failures, pause in enumerate(found, start=1) if pause < backoff.floor(failures) - EARLY]) <= 1


def test_what_was_held_is_kept_once_by_the_next_run(openbao, database, long, tmp_path):
    with bench(openbao, state=tmp_path) as made:
        made.watch(long).reading()
        made.backend.hold(long)
        made.close()
        again = made.again().backend._leases
        assert len(again.all()) == 1
        assert again._older.due() is None


def _denied(relay: Relay, asked: Asked) -> Answer:
    """Answer that nothing may be issued, and hand on all else."""
    return Answer(403, b'{"errors": ["permission denied"]}') if asked.path == ISSUE else relay.forward(asked)


@pytest.mark.parametrize("held", [False, True], ids=["by itself", "and was held"])
def test_what_nobody_reads_any_more_is_renewed_no_longer_though_it_could_not_be_replaced(openbao, database, tmp_path, held):
    read = Secret(database.role(openbao, "app", ttl="6s", max_ttl="1h"))
    token_file = tmp_path / "token"
    token_file.write_text(unknown_life(openbao))
    with bench(openbao, auth=VaultAuth(token_file=str(token_file)), rng=Soonest()) as made:
        inbox = Inbox()
        leave = made.backend.watch(read, inbox, "name")
        inbox.reading()
        release = made.backend.hold(read) if held else lambda: None
        token_file.write_text(openbao.policy_token('path "nothing" { capabilities = ["read"] }', ttl="1h"))
        eventually(lambda: inbox.failures and made.backend._leases._older.due() is not None, what="the renewal of what cannot be replaced")
        leave()
        release()
        assert made.backend._leases._older.due() is None


def test_a_server_that_fails_for_all_is_not_asked_for_more_time_where_it_issues_nothing(own_openbao, database):
    """One request at a time finds out whether it is back, however close the end of the lease is."""
    database.connect(own_openbao)
    issue, counting = f"/v1/{CREDS}app", Counting(own_openbao.address)
    with bench(own_openbao, address=counting.address) as made:
        made.watch(Secret(database.role(own_openbao, "app", ttl="8s", max_ttl="1h"))).reading()
        own_openbao.seal()
        eventually(lambda: [seen for seen in counting.requests() if seen.path == issue][2:], within=30)
        paths = [seen.path for seen in counting.requests()]
    counting.refuse()
    first_renewal = paths.index(f"/v1/{RENEW}")
    assert f"/v1/{RENEW}" not in paths[paths.index(issue, first_renewal) :]


def test_what_may_not_be_revoked_is_told(openbao, database, long):
    with bench(openbao, openbao.policy_token(MAY_ISSUE)) as made:
        made.watch(long).reading()
        (reason,) = made.backend.revoke()
    assert 'path "sys/leases/revoke" { capabilities = ["update"] }' in reason


class TestMetadata:
    """A poll of KV v2 that finds nothing new reads no secret."""

    @pytest.fixture
    def secret(self, openbao) -> Secret:
        openbao.enable("kv", "secret", version="2")
        openbao.put_kv2("secret", "app", {"password": "one"})
        return Secret("secret/app", poll=0.1)

    def test_the_secret_is_read_only_when_its_version_changed(self, openbao, secret, since):
        with bench(openbao) as made:
            inbox = made.watch(secret)
            eventually(lambda: len(openbao.audit("secret/metadata/app", since=since)) >= 5)
            openbao.put_kv2("secret", "app", {"password": "two"})
            inbox.reading(lambda reading: reading.value == {"password": "two"})
        assert len([each for each in openbao.audit("secret/data/app", since=since) if each.operation == "read"]) == 2

    def test_a_secret_that_was_made_anew_with_the_same_version_is_read(self, openbao, secret):
        with bench(openbao) as made:
            inbox = made.watch(secret)
            inbox.reading()
            openbao.client().secrets.kv.v2.delete_metadata_and_all_versions("app", mount_point="secret")
            openbao.put_kv2("secret", "app", {"password": "anew"})
            assert inbox.reading(lambda reading: reading.value == {"password": "anew"}).detail == "version 1"

    def test_a_version_that_is_to_be_deleted_is_read_until_it_is(self, openbao, secret):
        openbao.write("secret/metadata/app", delete_version_after="2s")
        openbao.put_kv2("secret", "app", {"password": "for a while"})
        with bench(openbao) as made:
            inbox = made.watch(secret)
            inbox.reading()
            eventually(lambda: inbox.failures and "was deleted at" in inbox.failures[-1].reason)

    def test_a_token_that_may_not_read_them_is_never_denied(self, openbao, secret):
        token = openbao.policy_token('path "secret/data/app" { capabilities = ["read"] }')
        since = len(openbao.audit())
        with bench(openbao, token) as made:
            inbox = made.watch(secret)
            eventually(lambda: len(inbox.readings) >= 5)
        assert not [each for each in openbao.audit(since=since) if each.refused or each.path.startswith("secret/metadata")]
        assert len([each for each in openbao.audit(since=since) if each.path == "sys/capabilities-self"]) == 1
