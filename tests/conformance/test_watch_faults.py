"""What consul-template's watches are tested with (`watch/*_test.go`), and the rows they lack, with our outcomes.

Theirs gives up after twelve retries and leaves; ours never does.
"""

import base64
import itertools
import json
import os
import signal
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from reloader.schedule import ANSWER_INTERVAL, Backoff
from tests.conformance.app import App
from tests.conformance.relay import EARLY, Answer, Asked, Relay, pauses
from tests.waiting import eventually

pytestmark = pytest.mark.servers


@pytest.fixture
def watching(app, consul, consul_server):
    """Makes an application that shows one key."""

    def make() -> App:
        consul_server.put("one/a", "A")
        return app(
            consul={"address": consul.address}, sources={"a": {"kind": "consul", "key": "one/a"}}, files={"app.conf": "{{ a }}"}
        ).start()

    return make


def waits_for_news(consul: Relay, *, after: int = 0) -> None:
    """Wait until a blocking query is under way, which is not among the first requests."""

    def waiting() -> bool:
        last = consul.of("one/a")[after:][-1]
        return bool(last.index) and last.answered is None

    eventually(waiting, what="the blocking query")


# Failures


@pytest.mark.parametrize("status", [500, 503], ids=str)
def test_retried_until_it_succeeds_and_a_success_begins_the_backoff_anew(watching, consul, consul_server, status: int):
    """It runs on, no retry comes sooner than the backoff allows, and after a success the next failure is a first one."""
    backoff = Backoff()
    consul.failing(*[status] * 4)
    app = watching()
    app.shows("A")
    waits_for_news(consul)
    tries = consul.of("one/a")
    assert [each.status for each in tries[:5]] == [status] * 4 + [200]
    assert all(pause >= backoff.floor(failures) - EARLY for failures, pause in enumerate(pauses(tries)[:4], start=1))

    after_success = []
    for value in ("B", "C", "D"):
        before = len(consul.of("one/a"))
        consul.failing(status)
        consul_server.put("one/a", value)
        app.shows(value)
        waits_for_news(consul, after=before + 2)
        failed, retried = consul.of("one/a")[before : before + 2]
        assert (failed.status, retried.status) == (status, 200)
        after_success += pauses([failed, retried])

    assert min(after_success) < backoff.floor(5), "as if it were the fifth failure in a row"
    assert app.sidecar.running


def test_a_missing_key_is_waited_for(watching, consul_server, consul):
    """Deleted while it runs: refused with its reason, and what is published stays; made again: published."""
    app = watching()
    app.shows("A")
    waits_for_news(consul)
    consul_server.delete("one/a")
    eventually(lambda: "one/a: does not exist" in (app.source("a")["failure"] or ""), what="the refusal")
    assert app.published() == "A"
    consul_server.put("one/a", "B")
    app.shows("B")


# Answers that are not to be believed


def test_an_old_answer_is_asked_for_again_at_the_leader(watching, consul, consul_server):
    """A server that has had no contact for 30 s is passed over for one query; then any server will do again."""

    def behind(asked: Asked, answer: Answer) -> Answer:
        if asked is not waited:
            return answer
        old = [{**each, "Value": base64.b64encode(b"old").decode()} for each in json.loads(answer.body)]
        return Answer(200, json.dumps(old).encode(), answer.headers).but(x_consul_lastcontact="30000")

    app = watching()
    app.shows("A")
    waits_for_news(consul)
    number = len(consul.of("one/a"))
    waited = consul.of("one/a")[-1]
    consul.spoil = behind
    consul_server.put("one/a", "B")
    app.shows("B")
    waits_for_news(consul, after=number)

    assert app.generation == 2, "the old answer was not published in between"
    leader, any_server = consul.of("one/a")[number:]
    assert ["stale" in asked.query for asked in (waited, leader, any_server)] == [True, False, True]
    assert leader.index is None


def test_an_answer_without_a_leader_is_none(watching, consul, consul_server):
    """During an election every server may answer, even with nothing at all."""

    def lost(_asked: Asked, answer: Answer) -> Answer:
        return Answer(404, b"", answer.headers).but(x_consul_knownleader="false")

    app = watching()
    app.shows("A")
    waits_for_news(consul)
    consul.spoil = lost
    consul_server.put("one/a", "B")
    eventually(lambda: "no leader" in (app.source("a")["failure"] or ""), what="the failure")
    assert app.published() == "A"
    assert app.sidecar.ready()
    consul.spoil = lambda _asked, answer: answer
    app.shows("B")


def test_an_index_that_goes_backwards_is_forgotten(watching, consul, consul_server):
    """The next query waits for nothing, and what changes afterwards is seen."""
    app = watching()
    app.shows("A")
    waits_for_news(consul)
    waited = consul.of("one/a")[-1]
    consul.spoil = lambda asked, answer: answer.but(x_consul_index="1") if asked is waited else answer
    consul_server.put("one/a", "B")
    app.shows("B")
    waits_for_news(consul)

    after = consul.of("one/a")[consul.of("one/a").index(waited) + 1 :]
    assert after[0].index is None
    assert (after[-1].index or 0) > (waited.index or 0)
    consul_server.put("one/a", "C")
    app.shows("C")


def test_an_index_of_0_is_never_waited_on(watching, consul, consul_server):
    """Each query with it would return at once. The leader is asked too, ten times a second at most in all, and what changes is seen."""
    consul.spoil = lambda _asked, answer: answer.but(x_consul_index="0")
    app = watching()
    app.shows("A")
    eventually(lambda: len(consul.of("one/a")) >= 10, what="ten queries")
    consul_server.put("one/a", "B")
    app.shows("B")

    asked = consul.of("one/a")
    assert 0 not in {each.index for each in asked}
    assert len(asked) <= (asked[-1].at - asked[0].at + EARLY) / ANSWER_INTERVAL + 3
    consul.spoil = lambda _asked, answer: answer
    waits_for_news(consul)


def test_a_key_that_changes_all_the_time_is_asked_for_ten_times_a_second(watching, consul, consul_server):
    """At most; and the last value gets through."""
    app = watching()
    app.shows("A")
    stop = threading.Event()
    last = ""

    def write() -> None:
        nonlocal last
        for number in itertools.count():
            last = str(number)
            consul_server.put("one/a", last)
            if stop.wait(0.005):
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        eventually(lambda: len(consul.of("one/a")) >= 15, what="fifteen queries")
    finally:
        stop.set()
        writer.join()
    app.shows(last)

    answered = [each for each in consul.of("one/a") if each.answered is not None]
    assert min(pauses(answered)) >= ANSWER_INTERVAL - EARLY
    assert int(last) > len(answered)


# The end


def test_it_ends_during_a_blocking_query(watching, consul):
    """Within 5 s, and asks for nothing any more."""
    app = watching()
    app.shows("A")
    waits_for_news(consul)
    before = len(consul.asked)
    os.kill(app.sidecar.pid, signal.SIGTERM)

    eventually(lambda: not app.sidecar.running, within=5, what="its end")
    assert app.sidecar.status == 0
    assert len(consul.asked) == before


@pytest.fixture
def polling(app, vault, openbao):
    """Makes an application that shows one secret."""

    def make(**auth: str) -> App:
        openbao.put_kv2("secret", "app", {"password": "one"})
        return app(
            vault={"address": vault.address, "auth": auth or {"token": openbao.root_token}},
            sources={"db": {"kind": "vault", "path": "secret/app", "poll": "200ms"}},
            files={"app.conf": "{{ db.password }}"},
            failure={"max_staleness": "10m"},
        )

    return make


def test_it_ends_during_a_poll(polling, vault):
    """Of a server that does not answer."""
    app = polling().start()
    app.shows("one")
    vault.behave = vault.hang
    eventually(lambda: vault.hung, what="a poll without an answer")
    before = len(vault.asked)
    os.kill(app.sidecar.pid, signal.SIGTERM)

    eventually(lambda: not app.sidecar.running, within=5, what="its end")
    assert app.sidecar.status == 0
    assert len(vault.asked) == before


# The token

RIGHTS = 'path "secret/*" { capabilities = ["read"] } path "sys/internal/ui/mounts/*" { capabilities = ["read"] }'


def test_a_token_whose_renewal_fails_once_is_renewed_all_the_same(polling, vault, openbao):
    """Theirs renews nothing more after the first error, and says nothing; ours outlives the term of the token."""
    token = openbao.policy_token(RIGHTS, period="4s")
    began = time.monotonic()
    vault.failing(500, path="auth/token/renew-self")
    app = polling(token=token).start()
    app.shows("one")
    eventually(lambda: time.monotonic() > began + 5, what="the end of the first term")
    openbao.put_kv2("secret", "app", {"password": "two"})
    app.shows("two")

    renewals = vault.of("auth/token/renew-self")
    assert [each.status for each in renewals][:2] == [500, 200]
    assert app.source("db")["up"]


def test_a_token_that_lives_longer_than_it_said_is_not_renewed_more_often_for_that(polling, vault, openbao):
    """Its end is looked up each time it comes; what failed before that has failed all the same."""
    vault.behave = lambda asked: Answer(500) if asked.path.endswith("renew-self") else vault.forward(asked)
    vault.spoil = lambda asked, answer: (
        replace(answer, body=json.dumps(_ends_soon(json.loads(answer.body))).encode()) if asked.path.endswith("lookup-self") else answer
    )
    polling(token=openbao.policy_token(RIGHTS, period="1h")).start().shows("one")
    eventually(lambda: len(vault.of("renew-self")) > 6, what="seven renewals")

    pause_after, backoff = pauses(vault.of("renew-self")), Backoff()
    assert len(vault.of("lookup-self")) > 2
    assert [pause for failures, pause in enumerate(pause_after, start=1) if pause < backoff.floor(failures) - EARLY] == []


def _ends_soon(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"data": answer["data"] | {"ttl": 1}}


def test_a_token_that_cannot_be_renewed_ends_in_a_refusal_and_no_storm(polling, vault, openbao, tmp_path):
    """What is published stays; a new token in the file is taken by itself."""
    file = tmp_path / "token"
    file.write_text(openbao.policy_token(RIGHTS, period="8s"))
    vault.behave = lambda asked: Answer(500) if asked.path.endswith("renew-self") else vault.forward(asked)
    app = polling(token_file=str(file)).start()
    app.shows("one")
    eventually(lambda: app.sidecar.metric("reloader_source_errors_total", source="db", reason="refused"), what="the refusal")
    assert "token" in app.source("db")["failure"]
    assert app.published() == "one"
    assert app.sidecar.ready()

    renewals, backoff = vault.of("renew-self"), Backoff()
    assert renewals
    early = [pause for failures, pause in enumerate(pauses(renewals), start=1) if pause < backoff.floor(failures) - EARLY]
    assert not early
    openbao.put_kv2("secret", "app", {"password": "two"})
    file.write_text(openbao.policy_token(RIGHTS, ttl="1h"))
    app.shows("two")
