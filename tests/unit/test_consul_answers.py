"""Every answer that is none has a kind and a reason, whatever stands where Consul should be; nothing of it leaks."""

import base64
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from reloader.backends.consul import Backend, Since, client as consul_client
from reloader.backends.consul.reads import Key, Nodes, Prefix, Read, Service, Services
from reloader.backends.reads import ReadFailed
from reloader.backends.turns import Turns
from reloader.plan import Consul, Tls
from reloader.snapshot import FailureKind
from reloader.world import World
from reloader.written import Secret
from tests.recorder import Recorder
from tests.servers.certificates import Authority
from tests.servers.misbehaving import (
    Behaviour,
    Exchange,
    Misbehaving,
    cut,
    drip_body,
    drip_headers,
    endless,
    hang,
    html,
    misbehaving,
    redirect_to,
    truncate,
)
from tests.waiting import eventually

UNREACHABLE, REFUSED, MISCONFIGURED = FailureKind
TOKEN = "CANARY-token"
KEY = Key("app/flags")
WORLD = World()


def answer_key(exchange: Exchange, text: str | bytes = "text", **headers: str) -> None:
    value = base64.b64encode(text.encode() if isinstance(text, str) else text).decode()
    exchange.answer([{"Key": exchange.path.removeprefix("/v1/kv/"), "Value": value}], **{"X_Consul_Index": "7"} | headers)


def says(body: Any = "", status: int = 200, **headers: str) -> Behaviour:
    return lambda exchange: exchange.answer(body, status=status, **headers)


@contextmanager
def backend_of(plan: Consul) -> Iterator[Backend]:
    backend = Backend(plan, Turns(plan.address, plan.max_connections, WORLD), WORLD)
    backend.is_wanted = lambda read: True
    try:
        yield backend
    finally:
        backend.close()


def fetch(server: Misbehaving, read: Read = KEY, state: int | None = None, hold: float = 60, **plan: Any) -> Any:
    with backend_of(Consul(address=server.address, token=Secret(TOKEN), **plan)) as backend:
        return backend.fetch(read, None if state is None else Since(state, token=1), hold)


def failure(behave: Behaviour, read: Read = KEY, **options: Any) -> ReadFailed:
    with misbehaving(behave) as server, pytest.raises(ReadFailed) as caught:
        fetch(server, read, **options)
    assert server.address in str(caught.value)
    assert str(read) in str(caught.value)
    assert "CANARY" not in repr(caught.value)
    return caught.value


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give servers that hang less time."""
    monkeypatch.setattr(consul_client, "DEADLINE", 0.5)


@pytest.mark.parametrize("state", [None, 7], ids=["first", "blocking"])
@pytest.mark.parametrize("behave", [hang, drip_headers, drip_body], ids=lambda behave: behave.__name__)
def test_no_answer_in_time_is_unreachable_since_it_was_asked(behave: Behaviour, state: int | None) -> None:
    """A blocking query that hangs proves nothing of the time it hung."""
    before = WORLD.clock.now()
    failed = failure(behave, state=state, hold=0.1)

    assert failed.kind == UNREACHABLE
    assert failed.current_until is not None
    assert before <= failed.current_until < WORLD.clock.now() - 0.4


@pytest.mark.parametrize("behave", [cut, truncate], ids=lambda behave: behave.__name__)
def test_a_cut_connection_is_unreachable_from_then_on(behave: Behaviour) -> None:
    """Until it was cut, a blocking query was current."""
    failed = failure(behave, state=7)

    assert failed.kind == UNREACHABLE
    assert failed.current_until is None


def test_nobody_there_is_unreachable() -> None:
    """A refused connection says to look after the server."""
    with misbehaving(hang) as server:
        pass
    with pytest.raises(ReadFailed, match="refused") as caught:
        fetch(server)

    assert caught.value.kind == UNREACHABLE
    assert caught.value.everywhere


@pytest.mark.parametrize(
    ("behave", "kind", "words"),
    [
        (says("CANARY", 400), REFUSED, "consul.datacenter"),
        (says("CANARY", 401), REFUSED, "ACLs are disabled"),
        (says("CANARY", 403), REFUSED, 'key "app/flags" { policy = "read" }'),
        (says("CANARY", 404), MISCONFIGURED, "without an index"),
        (says("CANARY", 405), MISCONFIGURED, "status 405"),
        (says("CANARY", 429), UNREACHABLE, "fewer requests"),
        (says("CANARY", 500), UNREACHABLE, "no leader"),
        (says("CANARY", 503), UNREACHABLE, "status 503"),
        (says("CANARY", 403, Content_Type="text/html"), MISCONFIGURED, "page for people"),
        (says([], 200), MISCONFIGURED, "without an index"),
        (says("CANARY", 200, X_Consul_Index="7"), MISCONFIGURED, "does not say"),
        (says({"CANARY": 1}, 200, X_Consul_Index="7"), MISCONFIGURED, "does not say"),
        (says([1], 200, X_Consul_Index="7"), MISCONFIGURED, "does not say"),
        (says([{"Value": "CANARY!"}], 200, X_Consul_Index="7"), MISCONFIGURED, "does not say"),
        (says([{"Value": "eA=="}], 200, X_Consul_Index="CANARY"), MISCONFIGURED, "does not say"),
        (html, MISCONFIGURED, "page for people"),
        (redirect_to("http://elsewhere:1/CANARY"), MISCONFIGURED, "elsewhere:1"),
        (says([], 200, X_Consul_Index="7", X_Consul_KnownLeader="false"), UNREACHABLE, "no leader"),
        (says("", 404, X_Consul_Index="7", X_Consul_KnownLeader="false"), UNREACHABLE, "no leader"),
    ],
)
def test_an_answer_that_is_none_has_its_kind_and_a_mend(behave: Behaviour, kind: FailureKind, words: str) -> None:
    """What the body says is never told."""
    failed = failure(behave)

    assert failed.kind == kind
    assert words in str(failed)


def test_an_oversize_answer_is_misconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is too large for one answer has to be made smaller."""
    monkeypatch.setattr("reloader.world.session.BODY_LIMIT", 2**20)
    monkeypatch.setattr(consul_client, "DEADLINE", 30)

    assert failure(endless).kind == MISCONFIGURED


@pytest.mark.parametrize(
    ("read", "rule"),
    [
        (Prefix("a/"), 'key_prefix "a/" { policy = "read" }'),
        (Service("web"), 'service "web" { policy = "read" } and node_prefix "" { policy = "read" }'),
        (Services(), 'service_prefix "" { policy = "read" }'),
        (Nodes(), 'node_prefix "" { policy = "read" }'),
    ],
)
def test_a_denied_read_names_the_rule_it_lacks(read: Read, rule: str) -> None:
    """An operator can paste it."""
    assert rule in str(failure(says("CANARY", 403), read))


@pytest.mark.parametrize(("text", "seconds"), [("17", 17.0), ("99999", 300.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)])
def test_the_server_says_when_to_come_back(text: str, seconds: float | None) -> None:
    """Within reason, and in seconds only."""
    assert failure(says("", 429, Retry_After=text)).retry_after == seconds


def test_services_that_are_not_as_consul_says_are_misconfigured() -> None:
    """A list of something else is no list of instances."""
    assert failure(says([{"CANARY": 1}], X_Consul_Index="7"), Service("web")).kind == MISCONFIGURED
    assert failure(says("null", X_Consul_Index="7"), Service("web")).kind == MISCONFIGURED
    assert failure(says(["CANARY"], X_Consul_Index="7"), Services()).kind == MISCONFIGURED
    assert failure(says([{"Node": ["CANARY"]}], X_Consul_Index="7"), Nodes()).kind == MISCONFIGURED


def test_a_wrong_certificate_is_misconfigured(tmp_path: Path) -> None:
    """The mend is named: the CA, or the name."""
    certificate, key = Authority(tmp_path / "authority").issue("127.0.0.1")
    with misbehaving(answer_key, (str(certificate), str(key))) as server, pytest.raises(ReadFailed, match=r"consul\.tls") as caught:
        fetch(server)

    assert caught.value.kind == MISCONFIGURED
    assert caught.value.everywhere


def test_a_right_certificate_is_taken(tmp_path: Path) -> None:
    """TLS settings of the plan reach the connection."""
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue("consul.test")
    tls = Tls(ca_file=str(authority.ca_file), server_name="consul.test")
    with misbehaving(answer_key, (str(certificate), str(key))) as server:
        assert fetch(server, tls=tls).reading.value == "text"


class TestQueries:
    """What is asked, and with which token."""

    def test_the_first_query_does_not_block_and_is_the_leaders_to_answer(self) -> None:
        """What is there is answered at once, and is what was written a moment ago."""
        with misbehaving(answer_key) as server:
            fetched = fetch(server)

            assert server.exchanges[0].query == {}
        assert fetched.state.index == 7

    def test_later_ones_wait_from_the_index(self) -> None:
        """The server may hold them for as long as the turn lasts."""
        with misbehaving(answer_key) as server:
            fetch(server, state=7, hold=2.5)

            assert server.exchanges[0].query == {"index": "7", "wait": "2500ms", "stale": "1"}

    def test_the_deadline_lies_above_what_the_server_may_take(self) -> None:
        """A server that takes its wait and a sixteenth more is in time."""

        def late(exchange: Exchange) -> None:
            exchange.stopping.wait(1.6 * 17 / 16)
            answer_key(exchange)

        with misbehaving(late) as server:
            assert fetch(server, state=7, hold=1.6).reading.value == "text"

            assert len(server.exchanges) == 1

    def test_after_a_failure_the_query_does_not_block(self) -> None:
        """Hold 0 asks for what there is now."""
        with misbehaving(answer_key) as server:
            fetch(server, state=7, hold=0)
            fetch(server, state=None, hold=0)

            assert [exchange.query for exchange in server.exchanges] == [{"stale": "1"}, {}]

    @pytest.mark.parametrize(
        ("state", "answered", "then"), [(None, "7", 7), (7, "9", 9), (7, "7", 7), (7, "3", 3), (None, "0", 1), (1, "0", 1)]
    )
    def test_the_index_is_reset_when_it_goes_backwards_and_never_makes_a_busy_loop(
        self, state: int | None, answered: str, then: int
    ) -> None:
        """Below what was seen, or the same too soon, the server was restored, or lags: the leader is asked, without waiting."""
        with misbehaving(lambda exchange: answer_key(exchange, X_Consul_Index=answered)) as server:
            assert fetch(server, state=state).state.index == then

            assert [exchange.query for exchange in server.exchanges[1:]] == [{}] * (state is not None and int(answered) <= state)

    def test_another_token_waits_for_no_news(self, tmp_path: Path) -> None:
        """What it may read beside the old one's is no change to the server, which would hold the answer back."""
        token_file, indexes, state = tmp_path / "token", count(7), None
        with misbehaving(lambda exchange: answer_key(exchange, X_Consul_Index=str(next(indexes)))) as server:
            with backend_of(Consul(address=server.address, token_file=str(token_file))) as backend:
                for token in ("one", "one", "two", "two"):
                    token_file.write_text(token)
                    state = backend.fetch(KEY, state, 2.5).state

            asked = [(exchange.headers["x-consul-token"], exchange.query.get("index")) for exchange in server.exchanges]
        assert asked == [("one", None), ("one", "7"), ("two", None), ("two", "9")]

    def test_an_answer_is_not_asked_for_again_too_soon(self) -> None:
        """A busy key is no busy loop."""
        with misbehaving(answer_key) as server:
            fetched = fetch(server)

        assert fetched.due == fetched.reading.at + 0.1

    def test_where_the_leader_was_asked_too_the_next_answer_is_asked_for_later(self) -> None:
        """A server that lags or was restored for long costs no more than any other."""
        with misbehaving(lambda exchange: answer_key(exchange, X_Consul_Index="0")) as server:
            fetched = fetch(server, state=1)

            assert len(server.exchanges) == 2
        assert fetched.due == fetched.reading.at + 0.2

    def test_the_plan_says_which_datacenter(self) -> None:
        """It goes into each query."""
        with misbehaving(answer_key) as server:
            fetch(server, datacenter="dc2")

            assert server.exchanges[0].query == {"dc": "dc2"}

    def test_namespace_and_partition_are_headers(self) -> None:
        """Of every request, and only where they are given: the open-source server has neither."""
        with misbehaving(answer_key) as server:
            fetch(server, namespace="team", partition="east")
            fetch(server)

            first, second = (exchange.headers for exchange in server.exchanges)
        assert (first["x-consul-namespace"], first["x-consul-partition"]) == ("team", "east")
        assert not {"x-consul-namespace", "x-consul-partition"} & second.keys()

    def test_a_server_that_lags_is_not_believed(self) -> None:
        """What it says may be old, so the leader is asked, once; within the bound any server will do."""

        def lagging(milliseconds: int) -> Behaviour:
            def consul(exchange: Exchange) -> None:
                stale = "stale" in exchange.query
                answer_key(exchange, "old" if stale else "new", X_Consul_Index="8", X_Consul_LastContact=str(milliseconds if stale else 0))

            return consul

        with misbehaving(lagging(2001)) as server:
            assert fetch(server, state=7).reading.value == "new"
            assert [exchange.query.get("index") for exchange in server.exchanges] == ["7", None]
            server.behave = lagging(2000)
            assert fetch(server, state=7).reading.value == "old"
            assert len(server.exchanges) == 3

    def test_without_a_leader_it_is_known_until_when_the_last_answer_held(self) -> None:
        """Whoever answers says how long it has been without one."""
        before = WORLD.clock.now()
        failed = failure(says([], 200, X_Consul_Index="7", X_Consul_KnownLeader="false", X_Consul_LastContact="5000"))

        assert failed.everywhere
        assert failed.current_until == pytest.approx(before - 5, abs=2)

    @pytest.mark.parametrize(
        ("behave", "everywhere"),
        [
            (says("No cluster leader", 500), True),
            (says("rpc error: CANARY", 500), False),
            (says("", 503), True),
            (says("", 429, Retry_After="3"), True),
            (says("", 429), False),
            (says("", 403), False),
            (hang, False),
            (cut, False),
        ],
    )
    def test_some_failures_are_the_servers_and_not_the_reads(self, behave: Behaviour, everywhere: bool) -> None:
        """Then every other read would fail alike."""
        assert failure(behave).everywhere == everywhere

    def test_a_path_in_the_address_is_kept(self) -> None:
        """A Consul behind a proxy may have one."""
        with misbehaving(answer_key) as server, backend_of(Consul(address=server.address + "/consul/")) as backend:
            backend.fetch(KEY, None, 0)

            assert server.exchanges[0].path == "/consul/v1/kv/app/flags"

    @pytest.mark.parametrize("key", ["with space", "per%cent", "que?stion", "ha#sh", "ümlaut", "a+b&c=d", "%2e%2e"])
    def test_every_key_is_asked_for_as_it_is(self, key: str) -> None:
        """What means something in a URL is quoted."""
        from urllib.parse import unquote

        with misbehaving(answer_key) as server:
            fetch(server, Key(key))

            assert unquote(server.exchanges[0].target) == f"/v1/kv/{key}"

    def test_a_service_is_asked_for_with_all_that_narrows_it(self) -> None:
        """Passing, tag and near are the server's to apply."""
        with misbehaving(says([], X_Consul_Index="7")) as server:
            fetch(server, Service("web", passing=True, tag="blue", near="_agent"))

            assert server.exchanges[0].path == "/v1/health/service/web"
            assert server.exchanges[0].query == {"passing": "1", "tag": "blue", "near": "_agent"}

    def test_the_token_of_the_plan_beats_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The client library would have it the other way round."""
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", "another")
        with misbehaving(answer_key) as server:
            fetch(server)

            assert server.exchanges[0].headers["x-consul-token"] == TOKEN
            assert TOKEN not in server.exchanges[0].target

    def test_without_a_token_none_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the environment has is for the settings to take or leave."""
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", "another")
        monkeypatch.setenv("CONSUL_HTTP_ADDR", "http://127.0.0.1:1")
        with misbehaving(answer_key) as server, backend_of(Consul(address=server.address)) as backend:
            backend.fetch(KEY, None, 0)

            assert "x-consul-token" not in server.exchanges[0].headers

    def test_a_rotated_token_file_is_taken_with_the_next_query(self, tmp_path: Path) -> None:
        """No restart is needed for a new token."""
        file = tmp_path / "token"
        with misbehaving(answer_key) as server, backend_of(Consul(address=server.address, token_file=str(file))) as backend:
            for token in ("first", "second"):
                file.write_text(f"{token}\n")
                backend.fetch(KEY, None, 0)

            assert [exchange.headers["x-consul-token"] for exchange in server.exchanges] == ["first", "second"]
            assert server.connections == 1

    @pytest.mark.parametrize("text", ["", "two\nCANARY", "CANARY\x00", "CANÄRY", None])
    def test_a_token_file_without_a_token_is_misconfigured(self, text: str | None, tmp_path: Path) -> None:
        """It is named, nothing of it is quoted, and the server is not asked."""
        file = tmp_path / "token"
        if text is not None:
            file.write_text(text)
        plan = Consul(address="http://127.0.0.1:1", token_file=str(file))
        with backend_of(plan) as backend, pytest.raises(ReadFailed, match=str(file)) as caught:
            backend.fetch(KEY, None, 0)

        assert caught.value.kind == MISCONFIGURED
        assert "CAN" not in str(caught.value)


def test_a_failed_read_frees_its_connection() -> None:
    """Failing for long leaves neither sockets nor connections behind, and the next success reuses the session."""
    with misbehaving(cut) as server, backend_of(Consul(address=server.address)) as backend:
        for _ in range(5):
            with pytest.raises(ReadFailed):
                backend.fetch(KEY, None, 0)
        server.behave = answer_key

        assert backend.fetch(KEY, None, 0).reading.value == "text"
        assert len(backend._idle) == 1
        assert not backend._used


def test_nothing_of_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither token nor body gets into a log, at any level, when reads fail in every way."""
    with caplog.at_level(logging.DEBUG):
        for behave in (
            says("CANARY", 403),
            says("CANARY", 500),
            html,
            truncate,
            redirect_to("http://h/CANARY"),
            says("CANARY", X_Consul_Index="1"),
        ):
            inbox = Recorder()
            with misbehaving(behave) as server, backend_of(Consul(address=server.address, token=Secret(TOKEN))) as backend:
                backend.watch(KEY, inbox, "source")
                eventually(lambda inbox=inbox: inbox.got)
            assert not inbox.values
            assert "CANARY" not in repr(inbox.got)

    assert "CANARY" not in caplog.text
