"""What a Consul source is told, and what an answer means to it."""

import importlib
import importlib.metadata

import pytest

from reloader.backends.consul import client as consul_client
from reloader.backends.consul.reads import Key, Nodes, Prefix, Service, Services
from reloader.plan import Connections, Consul
from reloader.snapshot import Failure, FailureKind, Reading
from reloader.sources import consul, make
from reloader.written import Secret

SERVER = Connections(consul=Consul(address="http://consul:8500"))


def settings(**given) -> consul.Settings:
    return consul.Settings(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"key": "app/flags"},
        {"key": "app/flags", "default": ""},
        {"key": "a.b/..c/d."},
        {"prefix": "nginx/routes/"},
        {"prefix": "nginx"},
        {"prefix": ""},
        {"service": "web"},
        {"service": "web", "passing": False, "tag": "blue", "near": "_agent"},
        {"services": True},
        {"nodes": True},
    ],
)
def test_what_can_work_is_no_mistake(given) -> None:
    """Each of the ways, with what belongs to it."""
    assert list(settings(**given).mistakes()) == []


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({}, "key"),
        ({"key": "a", "prefix": "b/"}, "prefix"),
        ({"prefix": "b/", "service": "web"}, "service"),
        ({"key": ""}, "key"),
        ({"key": "/app"}, "key"),
        ({"key": "app/"}, "key"),
        ({"key": "app/../other"}, "key"),
        ({"key": "app/.."}, "key"),
        ({"key": "app//x"}, "key"),
        ({"prefix": "/"}, "prefix"),
        ({"prefix": "a/./b/"}, "prefix"),
        ({"services": True, "nodes": True}, "nodes"),
        ({"key": "a", "services": True}, "services"),
        ({"services": False}, "key"),
        ({"services": True, "tag": "blue"}, "tag"),
        ({"nodes": True, "default": ""}, "default"),
        ({"service": ""}, "service"),
        ({"service": "a/b"}, "service"),
        ({"key": "a", "tag": "blue"}, "tag"),
        ({"key": "a", "near": "n1"}, "near"),
        ({"prefix": "a/", "passing": False}, "passing"),
        ({"prefix": "a/", "default": "x"}, "default"),
        ({"service": "web", "default": "x"}, "default"),
    ],
)
def test_what_cannot_work_is_a_mistake_at_its_key(given, key: str) -> None:
    """The key that has to change is named, with what was expected."""
    assert [(name, message.startswith("expected")) for name, message in settings(**given).mistakes()] == [(key, True)]


@pytest.mark.parametrize("connections", [Connections(), Connections(consul=Consul())], ids=["none", "without an address"])
def test_a_source_needs_a_server(connections: Connections) -> None:
    """Both places where the address may be written are named."""
    with pytest.raises(ValueError, match=r"consul\.address.*CONSUL_HTTP_ADDR"):
        make("consul", settings(key="a"), connections)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"key": "a/b"}, Key("a/b")),
        ({"prefix": "a/b/"}, Prefix("a/b/")),
        ({"prefix": "a/b"}, Prefix("a/b/")),
        ({"prefix": ""}, Prefix("")),
        ({"service": "web"}, Service("web", passing=True)),
        ({"services": True}, Services()),
        ({"nodes": True}, Nodes()),
        ({"service": "web", "passing": False, "tag": "t", "near": "n"}, Service("web", passing=False, tag="t", near="n")),
    ],
)
def test_a_source_says_what_to_read_where(given, read) -> None:
    """Equal settings make equal reads, so that they are asked once."""
    source = make("consul", settings(**given), SERVER)

    assert source.read == read
    assert source.backend == SERVER.consul


def test_an_answer_is_the_value() -> None:
    """What is there is handed on."""
    reading = Reading(value="text", at=1.0, detail="index 7")

    assert consul.Source(settings(key="a", default="d"), SERVER).interpret(reading) == reading


def test_a_missing_key_is_its_default() -> None:
    """An empty default is one too."""
    outcome = consul.Source(settings(key="a", default=""), SERVER).interpret(Reading(value=None, at=1.0, detail="index 7"))

    assert isinstance(outcome, Reading)
    assert (outcome.value, outcome.at, outcome.detail) == ("", 1.0, "index 7, default")


def test_a_missing_key_without_default_is_refused() -> None:
    """The reason says where, what, and the ways out."""
    outcome = consul.Source(settings(key="app/flags"), SERVER).interpret(Reading(value=None, at=1.0))

    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.at) == (FailureKind.REFUSED, 1.0)
    assert all(word in outcome.reason for word in ("http://consul:8500", "app/flags", "`default`", 'key "app/flags" { policy = "read" }'))


@pytest.mark.parametrize("name", ["python-consul", "python-consul2"])
def test_another_client_in_the_same_folder_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages install `consul`; whoever came last won, and the message says how to get out of that."""
    real = importlib.metadata.distribution
    monkeypatch.setattr(importlib.metadata, "distribution", lambda asked: real("py-consul") if asked == name else real(asked))

    with pytest.raises(ImportError, match=f"pip uninstall {name}"):
        importlib.reload(consul_client)


@pytest.mark.parametrize(
    ("server", "given", "secret"),
    [
        ({"token": Secret("t")}, {"key": "a"}, True),
        ({"token": Secret("t")}, {"prefix": "a/"}, True),
        ({"token_file": "/t"}, {"key": "a"}, True),
        ({}, {"key": "a"}, False),
        ({"token": Secret("t")}, {"service": "web"}, False),
        ({"token": Secret("t")}, {"nodes": True}, False),
    ],
)
def test_keys_that_take_a_token_are_secret(server, given, secret) -> None:
    """What anyone may read is nobody's, and the catalog is not made for secrets."""
    source = consul.Source(settings(**given), Connections(consul=Consul(address="http://consul:8500", **server)))
    assert source.interpret(Reading(value="text", at=1.0)).secret is secret
