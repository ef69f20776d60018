"""What is said of a request that brought no answer."""

import socket
from threading import Thread

import pytest
import requests

from reloader.backends.transport import concerns_all, explain
from reloader.plan import Tls
from reloader.snapshot import FailureKind
from reloader.world.session import BoundedSession, TooLarge


def test_a_server_that_never_answers_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(requests.RequestException) as caught:
        BoundedSession(Tls(), timeout=0.1).get(f"http://127.0.0.1:{server.getsockname()[1]}/")
    assert explain(caught.value, "vault") == (
        FailureKind.UNREACHABLE,
        "no complete answer in time; check the server's load, and the network in between",
    )


def test_a_name_that_does_not_resolve_is_unreachable_and_names_the_key():
    with pytest.raises(requests.RequestException) as caught:
        BoundedSession(Tls(), timeout=5).get("http://nobody.invalid/")
    kind, reason = explain(caught.value, "consul")
    assert kind is FailureKind.UNREACHABLE
    assert reason.endswith("; check that the server runs, and consul.address")


def test_a_server_that_speaks_no_tls_and_hangs_up_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        with pytest.raises(requests.RequestException) as caught:
            _get_and_be_cut_off(server)
    assert explain(caught.value, "vault")[0] is FailureKind.UNREACHABLE


def _get_and_be_cut_off(server: socket.socket) -> None:
    """Ask by TLS a server that reads the first bytes and hangs up, as one does that is being stopped."""

    def hang_up() -> None:
        connection = server.accept()[0]
        connection.recv(4096)
        connection.close()

    Thread(target=hang_up, daemon=True).start()
    BoundedSession(Tls(), timeout=5).get(f"https://127.0.0.1:{server.getsockname()[1]}/")


def test_who_cannot_be_connected_to_fails_everywhere():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"http://127.0.0.1:{port}/", "http://nobody.invalid/"):
        with pytest.raises(requests.RequestException) as caught:
            BoundedSession(Tls(), timeout=5).get(address)
        assert concerns_all(caught.value)
    with pytest.raises(requests.RequestException) as caught:
        BoundedSession(Tls(ca_file="/nothing"), timeout=5).get("https://127.0.0.1:1/")
    assert concerns_all(caught.value)


def test_an_answer_that_takes_too_long_or_is_too_large_fails_alone():
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(requests.RequestException) as caught:
        BoundedSession(Tls(), timeout=0.1).get(f"http://127.0.0.1:{server.getsockname()[1]}/")
    assert not concerns_all(caught.value)
    assert not concerns_all(TooLarge("the answer is larger than 64 MiB"))


def test_an_answer_that_is_too_large_is_a_mistake():
    assert explain(TooLarge("the answer is larger than 64 MiB"), "consul") == (
        FailureKind.MISCONFIGURED,
        "the answer is larger than 64 MiB; read less of it",
    )
