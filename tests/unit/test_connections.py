"""However many sessions there are to one address, the connections that are open to it stay within their bound."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from reloader.plan import Tls
from reloader.world.connections import Connection, Connections
from reloader.world.session import BoundedSession
from tests.scale import SEED
from tests.servers.certificates import Authority
from tests.servers.misbehaving import Exchange, Misbehaving, drip_body, misbehaving
from tests.waiting import eventually


def answer(exchange: Exchange) -> None:
    exchange.answer({"asked": exchange.target})


class Ended(Connections):
    """Ends what was kept open, at the last moment before it is used again."""

    def claim(self, connection: Connection) -> bool:
        if self._users[connection] is None:
            connection.drop()
            self.forget(connection)
        return super().claim(connection)


@contextmanager
def sessions(number: int, among: Connections, tls: Tls | None = None) -> Iterator[list[BoundedSession]]:
    with ExitStack() as stack:
        yield [stack.enter_context(BoundedSession(tls or Tls(), timeout=10, connections=4, among=among)) for _ in range(number)]


@pytest.fixture(params=["http", "https"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], tuple[Misbehaving, Tls]]]:
    with ExitStack() as stack:

        def start() -> tuple[Misbehaving, Tls]:
            if request.param == "http":
                return stack.enter_context(misbehaving(answer)), Tls()
            authority = Authority(tmp_path / "authority")
            certificate, key = authority.issue("localhost")
            server = stack.enter_context(misbehaving(answer, (str(certificate), str(key))))
            return server, Tls(ca_file=str(authority.ca_file), server_name="localhost")

        yield start


def test_what_idled_longest_gives_way(serve: Callable[[], tuple[Misbehaving, Tls]]) -> None:
    server, tls = serve()
    with sessions(3, Connections(lambda: 2), tls) as (first, second, third):
        for session in (first, second, first, third):
            assert session.get(server.address).ok
        eventually(lambda: server.open == 2, what="the second one's connection ended")
        assert server.connections == 3

        assert first.get(server.address).ok
        assert server.connections == 3
        assert second.get(server.address).ok
        assert server.connections == 4
        eventually(lambda: server.open == 2, what="the third one's connection ended")


def test_what_is_in_use_never_gives_way() -> None:
    waiting = threading.Event()

    def behave(exchange: Exchange) -> None:
        if exchange.path == "/held":
            waiting.wait(30)
        answer(exchange)

    with misbehaving(behave) as server, sessions(2, Connections(lambda: 1)) as (one, other), ThreadPoolExecutor() as threads:
        held = threads.submit(one.get, f"{server.address}/held")
        eventually(lambda: server.exchanges, what="the request that is held")
        assert other.get(server.address).ok
        eventually(lambda: server.open == 1, what="the end of the one that idles")
        waiting.set()
        assert held.result(30).json() == {"asked": "/held"}


def test_what_another_thread_took_meanwhile_is_in_use() -> None:
    """A connection is kept for the next request before the one before has ended: another thread may be quick."""
    among, ended = Connections(lambda: 0), threading.Event()

    class Kept:
        def drop(self) -> None:
            ended.set()

    kept = Kept()
    among.admit(kept)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(among.claim, kept).result()
        among.release(kept)
        assert not ended.is_set()
        threads.submit(among.release, kept).result()
    assert ended.is_set()


def test_who_is_idle_gives_way_as_soon_as_the_bound_is_less() -> None:
    bound = [3]
    with misbehaving(answer) as server, sessions(3, Connections(lambda: bound[0])) as made:
        for session in made:
            session.get(server.address)
        assert server.open == 3
        bound[0] = 1
        made[0].get(server.address)
        eventually(lambda: server.open == 1, what="one connection")


def test_one_that_ended_at_the_last_moment_is_opened_anew(serve: Callable[[], tuple[Misbehaving, Tls]]) -> None:
    """No request is lost, and none is sent twice."""
    server, tls = serve()
    with sessions(1, Ended(lambda: 1), tls) as (session,):
        assert [session.get(f"{server.address}/{number}").json() for number in range(3)] == [{"asked": f"/{number}"} for number in range(3)]
    assert [exchange.path for exchange in server.exchanges] == ["/0", "/1", "/2"]
    assert server.connections == 3


def test_a_failed_request_takes_no_place() -> None:
    with misbehaving(answer) as server, sessions(3, Connections(lambda: 2)) as (one, two, third):
        one.get(server.address)
        server.behave = drip_body
        for session in (two, third, two, third):
            with pytest.raises(requests.Timeout):
                session.get(server.address, timeout=0.2)
        server.behave = answer
        assert one.get(server.address).ok
        assert two.get(server.address).ok
        eventually(lambda: server.open == 2, what="one connection each")


def test_many_threads_with_many_sessions_lose_no_request() -> None:
    """Each of them takes its turn on what the bound allows, and its connection may be ended at any moment in between."""
    turns = threading.Semaphore(3)

    def work(session: BoundedSession, number: int) -> None:
        rng = random.Random(f"{SEED} {number}")
        for _ in range(60):
            with turns:
                asked = f"/{rng.random()}"
                assert session.get(server.address + asked).json() == {"asked": asked}

    with misbehaving(answer) as server, sessions(6, Connections(lambda: 3)) as made, ThreadPoolExecutor(12) as threads:
        for done in [threads.submit(work, made[number % 6], number) for number in range(12)]:
            done.result(60)
        assert len(server.exchanges) == 12 * 60
        eventually(lambda: server.open <= 3, what="what is kept open")
