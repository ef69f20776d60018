"""A token beside a server that fails: nothing spins, nothing hangs, and what is secret is never told."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import Any

import pytest

from reloader.backends.reads import ReadFailed
from reloader.backends.turns import Turns
from reloader.backends.vault import Backend, Secret as SecretRead, identity as vault_identity
from reloader.backends.vault.client import Client
from reloader.backends.vault.token import Held
from reloader.plan import Vault, VaultAuth
from reloader.schedule import Backoff
from reloader.snapshot import FailureKind, Mailbox
from reloader.world import World
from reloader.world.clock import Clock
from reloader.written import Secret
from tests.servers.misbehaving import Behaviour, Exchange, Misbehaving, cut, html, misbehaving
from tests.waiting import eventually

LOGIN, LOOK_UP, RENEW = "/v1/auth/userpass/login/ann", "/v1/auth/token/lookup-self", "/v1/auth/token/renew-self"
REVOKE = "/v1/auth/token/revoke-self"
CANARY = "canary-c0ffee"


class Stepped(Clock):
    """The machine's clock, some seconds later."""

    later = 0.0

    def now(self) -> float:
        return super().now() + self.later


def says(status: int = 200, **body: Any) -> Behaviour:
    return lambda exchange: exchange.answer({"errors": []} | body if status >= 400 else {"data": None} | body, status=status)


def token(name: str = "s.one", **auth: Any) -> Behaviour:
    return says(auth={"client_token": name, "accessor": name[2:], "lease_duration": 1000, "renewable": True, **auth})


class Scene:
    """A server that does at each path what `plays` says, and a client whose clock only we move."""

    def __init__(self, server: Misbehaving, folder: Path) -> None:
        self.plays: dict[str, Behaviour] = {LOGIN: token(), RENEW: token(), LOOK_UP: says(403), "/v1/kv/app": says(data={"a": "b"})}
        self.server = server
        server.behave = self._play
        (folder / "password").write_text(CANARY)
        self.clock = Stepped()
        self.auth = VaultAuth(method="userpass", username="ann", password_file=str(folder / "password"))
        self._clients: list[Client] = []

    def client(self, auth: VaultAuth | None = None) -> Client:
        world = World(clock=self.clock)
        plan = Vault(address=self.server.address, auth=auth or self.auth)
        self._clients.append(Client(plan, Turns(plan.address, plan.max_connections, world), world))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def asked(self, path: str) -> int:
        return Counter(exchange.path for exchange in self.server.exchanges)[path]

    def until_due(self, client: Client) -> Held:
        """Move the clock to when the token is due, and see to it, as its thread would."""
        due = client.identity._held.due
        self.clock.later += max(0.0, due - self.clock.now())
        client.identity._tend(0.0)
        return client.identity._held

    def _play(self, exchange: Exchange) -> None:
        self.plays[exchange.path](exchange)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with misbehaving(html) as server:
        made = Scene(server, tmp_path)
        yield made
        made.close()


def failure(look: Callable[[], object]) -> ReadFailed:
    with pytest.raises(ReadFailed) as caught:
        look()
    assert CANARY not in str(caught.value)
    return caught.value


SEALED = says(503, errors=["Vault is sealed"])


@pytest.mark.parametrize("fault", [says(500), SEALED, says(429), cut, html], ids=["500", "sealed", "429", "cut", "html"])
def test_a_renewal_that_fails_is_tried_with_backoff_until_a_new_login_is_due(scene, fault):
    client, backoff = scene.client(), Backoff()
    client.identity.token()
    scene.plays[RENEW] = scene.plays[LOGIN] = fault
    ends, asked, held = client.identity.token().ends, 0, client.identity._held
    while held.due < inf:
        before = scene.clock.now()
        held = scene.until_due(client)
        asked += 1
        if held.failures and scene.clock.now() < held.replace_at:
            assert held.due - scene.clock.now() >= 0.99 * backoff.floor(held.failures)
        assert held.due > before
        assert held.token.ends == ends
    assert scene.asked(RENEW) + scene.asked(LOGIN) <= asked + 1
    assert 5 < asked < 60
    assert scene.asked(LOGIN) > 1
    # Whoever asks after its end logs in.
    scene.clock.later += 1000
    scene.plays[LOGIN] = token("s.two")
    client.identity.wake()
    assert client.identity.token().serial == "two"


@pytest.mark.parametrize(
    "answer",
    [says(500, errors=["past the max TTL, cannot renew"]), says(400), says(403), says(auth=None)],
    ids=["500", "400", "403", "none"],
)
def test_a_token_that_the_server_does_not_renew_is_replaced_at_once(scene, answer):
    client = scene.client()
    client.identity.token()
    scene.plays |= {RENEW: answer, LOGIN: token("s.two")}
    assert scene.until_due(client).token.serial == "two"
    assert (scene.asked(RENEW), scene.asked(LOGIN)) == (1, 2)


def test_a_login_that_was_needed_does_not_allow_another_trial(scene):
    """One read finds that the token has ended, and is slow; another one is denied with the new token too, and tries a third in vain."""
    logins = map(token, (f"s.{number}" for number in itertools.count()))
    go_on = threading.Event()

    def logged_in(exchange: Exchange) -> None:
        next(logins)(exchange)

    def looked_up(exchange: Exchange) -> None:
        says(403 if exchange.headers["x-vault-token"] == "s.0" else 200, data={"ttl": 1000})(exchange)

    def served(exchange: Exchange) -> None:
        if exchange.headers["x-vault-token"] == "s.0":
            return says(403)(exchange)
        go_on.wait(30)
        return says(data={"a": "b"})(exchange)

    scene.plays |= {LOGIN: logged_in, LOOK_UP: looked_up, REVOKE: says(204)}
    scene.plays |= {"/v1/kv/app": served, "/v1/kv/denied": says(403)}
    client = scene.client()
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(client.get, "kv/app")
        eventually(lambda: scene.asked("/v1/kv/app") == 2, what="the same with a new token")
        failure(lambda: client.get("kv/denied"))
        assert scene.asked(LOGIN) == 3
        go_on.set()
        assert slow.result(30).body["data"] == {"a": "b"}
    failure(lambda: client.get("kv/denied"))
    assert scene.asked(LOGIN) == 3


def test_a_renewal_that_fails_just_before_the_token_is_replaced_is_not_followed_at_once(scene, monkeypatch):
    monkeypatch.setattr(Clock, "now", lambda _clock: 5000.0)
    client = scene.client()
    client.identity.token()
    scene.plays[RENEW] = says(500)
    held = scene.until_due(client)
    held.replace_at = held.due + 0.001
    scene.until_due(client)
    assert held.failures == 2
    assert held.due - scene.clock.now() >= Backoff().floor(2)


def test_a_renewal_that_works_after_failures_counts_none_of_them(scene):
    client = scene.client()
    client.identity.token()
    scene.plays[RENEW] = says(500)
    assert [scene.until_due(client).failures for _ in range(2)] == [1, 2]
    scene.plays[RENEW] = token()
    assert scene.until_due(client).failures == 0
    assert scene.asked(LOGIN) == 1


def test_a_renewal_that_brings_less_than_usual_leads_to_a_login_before_the_end(scene):
    client = scene.client()
    client.identity.token()
    scene.plays |= {RENEW: token(lease_duration=100), LOGIN: token("s.two")}
    held = scene.until_due(client)
    left = held.token.ends - scene.clock.now()
    assert (held.token.serial, held.due) == ("one", held.replace_at)
    assert 0.1 * left <= held.token.ends - held.due <= 0.21 * left
    assert scene.until_due(client).token.serial == "two"
    assert scene.asked(RENEW) == 1


def test_a_login_that_failed_is_not_tried_again_at_once_whoever_asks(scene):
    client = scene.client()
    scene.plays[LOGIN] = SEALED
    first = failure(lambda: client.get("kv/app"))
    assert (first.kind, first.everywhere) == (FailureKind.REFUSED, True)
    client.identity._not_before += 3600
    assert {str(failure(lambda: client.get("kv/app"))) for _ in range(20)} == {str(first)}
    assert scene.asked(LOGIN) == 1
    client.identity.wake()
    scene.plays[LOGIN] = token()
    assert client.get("kv/app").body["data"] == {"a": "b"}


def test_a_server_that_asks_for_fewer_logins_gets_none_for_so_long(scene):
    client = scene.client()
    scene.plays[LOGIN] = lambda exchange: exchange.answer({"errors": ["slow down"]}, status=429, Retry_After="100")
    assert failure(lambda: client.get("kv/app")).retry_after == 100
    scene.clock.later += 99
    failure(lambda: client.get("kv/app"))
    assert scene.asked(LOGIN) == 1
    scene.clock.later += 10
    failure(lambda: client.get("kv/app"))
    assert scene.asked(LOGIN) == 2


@pytest.mark.parametrize(
    "auth",
    [None, {"client_token": "", "mfa_requirement": {"mfa_request_id": "1"}}, {"client_token": f"s.{CANARY}\nX: y"}, {"client_token": 7}],
)
def test_a_login_without_a_token_is_a_mistake(scene, auth):
    scene.plays[LOGIN] = says(auth=auth)
    told = failure(lambda: scene.client().get("kv/app"))
    assert "auth/userpass/login/ann: the login brought no token" in str(told)
    assert (told.kind, told.everywhere) == (FailureKind.MISCONFIGURED, True)


def test_a_server_that_repeats_what_was_sent_is_not_quoted(scene):
    scene.plays[LOGIN] = says(400, errors=[f"invalid password {CANARY!r}"])
    assert "(invalid password '***')" in str(failure(lambda: scene.client().get("kv/app")))


@pytest.mark.parametrize("end", ["\n", "\\n", "  "], ids=["as it is", "written out", "spaces"])
def test_what_was_sent_is_known_again_however_its_lines_end(scene, end):
    """A private key, for one."""
    lines = [CANARY, f"{CANARY}  more", "the end"]
    scene.plays["/v1/pki/import"] = says(400, errors=[f"cannot use {end.join(lines)}"])
    told = failure(lambda: scene.client().post("pki/import", {"pem": "\n".join(lines)}))
    assert "***" in str(told)
    assert "more" not in str(told)
    assert "the end" not in str(told)


def test_a_proxy_that_answers_for_the_server_is_no_refused_login(scene):
    scene.plays[LOGIN] = lambda exchange: exchange.answer("<html>", status=403)
    assert "answered 403 as no Vault does" in str(failure(lambda: scene.client().get("kv/app")))


@pytest.mark.parametrize("fault", [SEALED, says(412), says(429), says(500), html], ids=["sealed", "412", "429", "500", "html"])
def test_a_given_token_is_not_used_before_the_server_can_tell_of_it(scene, fault):
    """It is no token of unknown life, which nobody would renew, because the server fails for a moment."""
    client = scene.client(VaultAuth(token=Secret(f"s.{CANARY}")))
    scene.plays[LOOK_UP] = fault
    told = failure(lambda: client.get("kv/app"))
    assert "auth/token/lookup-self: " in str(told)
    assert told.everywhere == (fault is SEALED)
    scene.plays[LOOK_UP] = says(data={"accessor": "a1", "ttl": 100, "expire_time": "2030-01-01T00:00:00Z", "creation_ttl": 100})
    assert client.get("kv/app").token.serial == "a1"
    assert client.identity.token().ends == pytest.approx(scene.clock.now() + 100, abs=5)


def test_a_given_token_of_which_less_than_a_second_is_left_does_not_live_for_ever(scene):
    """Its life is told in whole seconds."""
    scene.plays[LOOK_UP] = says(data={"accessor": "a1", "ttl": 0, "expire_time": "2030-01-01T00:00:00Z", "creation_ttl": 100})
    token = scene.client(VaultAuth(token=Secret(f"s.{CANARY}"))).identity.token()
    assert token.ends <= scene.clock.now() + 1


def test_a_given_token_is_renewed_again_after_a_failure(scene, caplog):
    scene.plays[LOOK_UP] = says(data={"accessor": "a1", "ttl": 100, "expire_time": "2030-01-01", "period": 100, "renewable": True})
    client = scene.client(VaultAuth(token=Secret(f"s.{CANARY}")))
    client.get("kv/app")
    scene.plays[RENEW] = SEALED
    assert [scene.until_due(client).failures for _ in range(3)] == [1, 2, 3]
    scene.plays[RENEW] = token(f"s.{CANARY}", lease_duration=100)
    held = scene.until_due(client)
    assert (held.failures, held.token.serial) == (0, "a1")
    assert 59 < held.due - scene.clock.now() < 71
    assert caplog.text.count("vault token not renewed") == 1
    assert CANARY not in caplog.text


def test_no_token_at_all_is_a_mistake_of_everybody(scene):
    told = failure(lambda: scene.client(VaultAuth()).get("kv/app"))
    assert "no token; set vault.auth.token_file, or VAULT_TOKEN in the environment" in str(told)
    assert (told.kind, told.everywhere) == (FailureKind.MISCONFIGURED, True)


def test_an_outage_of_the_login_costs_one_login_at_a_time_however_many_reads_wait(scene):
    scene.plays |= {LOGIN: says(500), "/v1/sys/internal/ui/mounts/kv/app": says(data={"path": "kv/", "type": "kv", "options": None})}
    mailbox, world = Mailbox(map(str, range(20))), World()
    plan = Vault(address=scene.server.address, auth=scene.auth)
    backend = Backend(plan, Turns(plan.address, plan.max_connections, world), world)
    try:
        for number in range(20):
            backend.watch(SecretRead("kv/app", poll=30.0 + number), mailbox, str(number))
        eventually(lambda: all(standing.failure for standing in mailbox.take().standings.values()))
        assert scene.asked(LOGIN) <= 5
        scene.plays[LOGIN] = token()
        backend.wake()
        eventually(lambda: all(standing.failure is None for standing in mailbox.take().standings.values()))
        assert len({exchange.headers.get("x-vault-token") for exchange in scene.server.exchanges}) == 2
    finally:
        backend.close()
        mailbox.close()


def test_another_token_that_cannot_be_tried_leaves_the_refusal(scene):
    """The token lives, and no login works now: what is told is what is denied."""
    client = scene.client()
    client.get("kv/app")
    scene.plays |= {"/v1/kv/app": says(403), LOOK_UP: says(data={"ttl": 100}), LOGIN: says(500)}
    for _ in range(3):
        told = failure(lambda: client.get("kv/app"))
        assert 'path "kv/app"' in str(told)
        assert not told.everywhere
    assert scene.asked(LOGIN) == 2
    assert client.identity.token().serial == "one"


def test_reads_that_are_denied_together_try_one_other_token(scene):
    """Each of them would be a login, and a token that is revoked."""
    client, together = scene.client(), threading.Barrier(2)
    client.get("kv/app")

    def denied(exchange: Exchange) -> None:
        if exchange.headers["x-vault-token"] == "s.one":
            together.wait(timeout=10)
        says(403)(exchange)

    scene.plays |= {"/v1/kv/app": denied, LOOK_UP: says(data={"ttl": 100}), LOGIN: token("s.two"), REVOKE: says(204)}
    with ThreadPoolExecutor(2) as pool:
        told = [pool.submit(failure, lambda: client.get("kv/app")) for _ in range(2)]
        assert all('path "kv/app"' in str(each.result()) for each in told)
    assert scene.asked(LOGIN) == 2
    assert client.identity.token().serial == "one"


def test_a_mistake_of_ours_in_the_renewal_does_not_end_the_thread_that_others_share(scene, caplog, monkeypatch):
    def mistaken(*_arguments: object) -> Held:
        raise ValueError(CANARY)

    monkeypatch.setattr(vault_identity, "renewed", mistaken)
    client = scene.client()
    client.identity.token()
    held = scene.until_due(client)
    assert scene.clock.now() < held.due < held.token.ends
    assert "vault token not renewed" in caplog.text
    assert CANARY not in caplog.text
