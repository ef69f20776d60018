"""The session holds its bounds whatever the server does."""

import gzip
import socket
import ssl
import threading
from pathlib import Path

import pytest
import requests

from reloader import plan
from reloader.world import session as sessions
from reloader.world.connections import Connections
from reloader.world.session import BoundedSession, DeadlineExceeded, RedirectRefused, TooLarge
from tests.servers.certificates import Authority
from tests.servers.misbehaving import (
    Behaviour,
    Exchange,
    cut,
    drip_body,
    drip_chunks,
    drip_headers,
    endless,
    hang,
    html,
    misbehaving,
    redirect_to,
    truncate,
)
from tests.waiting import eventually

NO_TLS = plan.Tls()


def answer(exchange: Exchange) -> None:
    exchange.answer({"asked": exchange.target})


@pytest.mark.parametrize("behave", [hang, drip_headers, drip_body, drip_chunks], ids=lambda behave: behave.__name__)
def test_no_answer_takes_longer_than_the_deadline(behave: Behaviour) -> None:
    """A server that hangs, or sends a byte now and then, ends in DeadlineExceeded, long before it would be done."""
    with misbehaving(behave) as server, BoundedSession(NO_TLS, timeout=0.4) as session, pytest.raises(DeadlineExceeded):
        session.get(server.address)


def test_each_use_of_the_socket_gets_what_is_left() -> None:
    """A server that drips and then hangs has no more time than one that only hangs."""
    guard, (ours, theirs) = sessions._Guard(Connections(lambda: 1)), socket.socketpair()
    with ours, theirs:
        guard.start(5)
        guard.bound(ours)
        first = ours.gettimeout() or 0
        guard.bound(ours)

        assert 5 > first > (ours.gettimeout() or 0) > 0


@pytest.mark.parametrize("timeout", [0.2, (30, 0.2)], ids=["one number", "connect and read"])
def test_the_timeout_of_a_request_is_its_deadline(timeout: float) -> None:
    """A blocking query gives a deadline of its own, as hvac and the Consul client do."""
    with (
        misbehaving(drip_body) as server,
        BoundedSession(NO_TLS, timeout=3600) as session,
        pytest.raises(DeadlineExceeded, match=r"0\.2 s"),
    ):
        session.get(server.address, timeout=timeout)


def test_a_silent_tls_handshake_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that accepts and never speaks TLS ends with the connect timeout."""
    monkeypatch.setattr(sessions, "CONNECT_TIMEOUT", 0.2)
    timed_out = pytest.raises(requests.Timeout)
    with socket.create_server(("127.0.0.1", 0)) as silent, BoundedSession(NO_TLS, timeout=3600) as session, timed_out:
        session.get(f"https://127.0.0.1:{silent.getsockname()[1]}")


def test_a_failed_request_leaves_a_usable_session() -> None:
    """After a missed deadline the next request gets its own answer, on a new connection."""
    with misbehaving(drip_body) as server, BoundedSession(NO_TLS, timeout=0.2) as session:
        with pytest.raises(DeadlineExceeded):
            session.get(server.address)
        server.behave = answer

        assert session.get(server.address + "/again", timeout=5).json() == {"asked": "/again"}


def test_a_connection_is_used_again() -> None:
    """Requests after each other share one connection."""
    with misbehaving(answer) as server, BoundedSession(NO_TLS, timeout=5) as session:
        for _ in range(3):
            session.get(server.address)

        assert server.connections == 1


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_no_redirect_is_followed(status: int, method: str) -> None:
    """The other host is never spoken to, and named without the rest of the location."""
    with misbehaving(answer) as other, misbehaving(redirect_to(f"{other.address}/v1?token=CANARY", status)) as server:
        session = BoundedSession(NO_TLS, timeout=5)
        with session, pytest.raises(RedirectRefused, match=f"{status}: redirected to 127.0.0.1:{other.port}") as caught:
            session.request(method, server.address, headers={"X-Consul-Token": "CANARY"}, allow_redirects=True)

        assert other.connections == 0
        assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("location", ["/other", "http://[::1", ""])
def test_a_redirect_to_nowhere_is_refused_too(location: str) -> None:
    """A location without a host, or none that can be read, is the same mistake."""
    with misbehaving(redirect_to(location)) as server:
        session = BoundedSession(NO_TLS, timeout=5)
        with session, pytest.raises(RedirectRefused, match="another path"):
            session.get(server.address)


def test_a_body_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may not be larger than the limit, whatever its length says."""
    monkeypatch.setattr(sessions, "BODY_LIMIT", 2**20)
    with misbehaving(endless) as server, BoundedSession(NO_TLS, timeout=30) as session, pytest.raises(TooLarge, match="1 MiB"):
        session.get(server.address)


def test_the_limit_holds_for_the_unpacked_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small body that unpacks into a large one is cut off as well."""
    monkeypatch.setattr(sessions, "BODY_LIMIT", 2**20)
    packed = gzip.compress(b"x" * 2**23)
    with misbehaving(lambda exchange: exchange.answer(packed, Content_Encoding="gzip")) as server:
        session = BoundedSession(NO_TLS, timeout=30)
        with session, pytest.raises(TooLarge):
            session.get(server.address)


@pytest.mark.parametrize("behave", [truncate, cut], ids=lambda behave: behave.__name__)
def test_a_cut_connection_is_a_request_exception(behave: Behaviour) -> None:
    """Half an answer is none, and is not tried a second time by the session."""
    with misbehaving(behave) as server, BoundedSession(NO_TLS, timeout=30) as session:
        with pytest.raises(requests.RequestException) as caught:
            session.get(server.address)

        assert not isinstance(caught.value, DeadlineExceeded)
        assert len(server.exchanges) == 1


def test_other_answers_are_handed_on() -> None:
    """What a body means is not the session's affair."""
    with misbehaving(html) as server, BoundedSession(NO_TLS, timeout=5) as session:
        assert "log in" in session.get(server.address).text


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a proxy nor a .netrc of the machine changes where a request goes or who we are."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login CANARY password CANARY\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with misbehaving(answer) as server, BoundedSession(NO_TLS, timeout=5) as session:
        session.get(server.address)

        assert "authorization" not in server.exchanges[0].headers


@pytest.mark.parametrize("behave", [hang, drip_body], ids=lambda behave: behave.__name__)
def test_closing_ends_a_request_on_another_thread(behave: Behaviour) -> None:
    """A blocking query does not outlive its session."""
    with misbehaving(behave) as server:
        session = BoundedSession(NO_TLS, timeout=3600)
        raised: list[BaseException] = []
        thread = threading.Thread(target=lambda: raised.append(_failure(session, server.address)))
        thread.start()
        eventually(lambda: server.exchanges, what="the request")
        session.close()
        thread.join(10)

        assert not thread.is_alive()
        assert isinstance(raised[0], requests.RequestException)


def test_a_closed_session_stays_closed() -> None:
    """A request that was about to start finds no way out."""
    with misbehaving(answer) as server:
        session = BoundedSession(NO_TLS, timeout=5)
        session.close()
        with pytest.raises(requests.ConnectionError, match="closed"):
            session.get(server.address)

        assert server.connections == 0


def test_two_threads_have_a_deadline_each() -> None:
    """The short request of one thread does not shorten the long one of another."""
    with misbehaving(lambda exchange: hang(exchange) if exchange.path == "/hang" else _late(exchange)) as server:
        session = BoundedSession(NO_TLS, timeout=30, connections=2)
        raised: list[BaseException] = []
        short = threading.Thread(target=lambda: raised.append(_failure(session, server.address + "/hang", 0.2)))
        with session:
            short.start()
            assert session.get(server.address).json() == {"asked": "/"}
            short.join()

        assert isinstance(raised[0], DeadlineExceeded)


class TestTls:
    """How a server proves itself to us, and we to it."""

    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path / "authority")

    def ask(self, authority: Authority, name: str, tls: plan.Tls) -> requests.Response:
        certificate, key = authority.issue(name)
        with misbehaving(answer, (str(certificate), str(key))) as server, BoundedSession(tls, timeout=5) as session:
            return session.get(server.address, verify=True)

    def test_our_ca_is_trusted(self, authority: Authority) -> None:
        """A certificate of ca_file for the address is taken."""
        assert self.ask(authority, "127.0.0.1", plan.Tls(ca_file=str(authority.ca_file))).ok

    def test_another_ca_is_not(self, authority: Authority) -> None:
        """Without ca_file only the public authorities count."""
        with pytest.raises(requests.exceptions.SSLError, match="verify failed"):
            self.ask(authority, "127.0.0.1", plan.Tls())

    def test_a_server_name_is_what_the_certificate_must_say(self, authority: Authority) -> None:
        """A server reached by address may prove itself by name."""
        assert self.ask(authority, "consul.test", plan.Tls(ca_file=str(authority.ca_file), server_name="consul.test")).ok

    @pytest.mark.parametrize("server_name", [None, "other.test"])
    def test_another_name_is_refused(self, authority: Authority, server_name: str | None) -> None:
        """A certificate for another name proves nothing."""
        with pytest.raises(requests.exceptions.SSLError):
            self.ask(authority, "consul.test", plan.Tls(ca_file=str(authority.ca_file), server_name=server_name))

    def test_the_address_is_no_proof_when_there_is_a_server_name(self, authority: Authority) -> None:
        """With server_name, a certificate for the bare address is refused."""
        with pytest.raises(requests.exceptions.SSLError):
            self.ask(authority, "127.0.0.1", plan.Tls(ca_file=str(authority.ca_file), server_name="consul.test"))

    def test_the_server_is_asked_by_that_name(self, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
        """server_name goes into the handshake, so that a shared port knows which certificate to show."""
        asked: list[str | None] = []
        monkeypatch.setattr(ssl.SSLContext, "wrap_socket", _noting(asked, ssl.SSLContext.wrap_socket))
        self.ask(authority, "consul.test", plan.Tls(ca_file=str(authority.ca_file), server_name="consul.test"))

        assert "consul.test" in asked

    def test_verification_can_be_switched_off(self, authority: Authority) -> None:
        """verify: false takes any certificate, also when the client library asks for verification."""
        with pytest.warns(Warning, match="Unverified HTTPS"):
            assert self.ask(authority, "other.test", plan.Tls(verify=False)).ok

    @pytest.mark.parametrize("tls", [plan.Tls(ca_file="/nowhere/ca.pem"), plan.Tls(cert_file="/nowhere/c.pem", key_file="/nowhere/k.pem")])
    def test_missing_files_are_tls_errors(self, authority: Authority, tls: plan.Tls) -> None:
        """A file that is not there is named in a request exception."""
        with pytest.raises(requests.exceptions.SSLError, match="/nowhere"):
            self.ask(authority, "127.0.0.1", tls)

    def test_garbage_files_are_tls_errors(self, authority: Authority, tmp_path: Path) -> None:
        """A file that holds no certificate is a request exception too."""
        garbage = tmp_path / "ca.pem"
        garbage.write_text("not a certificate")
        with pytest.raises(requests.exceptions.SSLError):
            self.ask(authority, "127.0.0.1", plan.Tls(ca_file=str(garbage)))


def _late(exchange: Exchange) -> None:
    exchange.stopping.wait(0.5)
    answer(exchange)


def _failure(session: BoundedSession, url: str, timeout: float | None = None) -> BaseException:
    try:
        session.get(url, timeout=timeout)
    except BaseException as error:
        return error
    return AssertionError("it was answered")


def _noting(asked, original):
    def wrap_socket(context, *args, server_hostname=None, **kwargs):
        asked.append(server_hostname)
        return original(context, *args, server_hostname=server_hostname, **kwargs)

    return wrap_socket
