"""What a source of kind `vault` is told, and what it asks for."""

import pytest

from reloader import sources
from reloader.backends.vault import Secret, Write
from reloader.plan import Connections, Vault
from reloader.snapshot import Reading
from reloader.sources.vault import Settings, Source

CONNECTIONS = Connections(vault=Vault(address="http://127.0.0.1:8200"))


def test_a_secret_is_read_every_30_s_unless_told_otherwise():
    assert Source(Settings(path="secret/app/db"), CONNECTIONS).read == Secret("secret/app/db", None, 30.0)
    assert Source(Settings(path="secret/app/db", version=3, poll=5.0), CONNECTIONS).read == Secret("secret/app/db", 3, 5.0)


def test_a_write_is_not_polled_unless_told_so():
    settings = Settings(path="pki/issue/web", write={"common_name": "web.internal"})
    assert settings.effective_poll is None
    assert Source(settings, CONNECTIONS).read == Write("pki/issue/web", '{"common_name": "web.internal"}', None)


def test_equal_writes_are_one_read_however_their_parameters_are_ordered():
    one = Source(Settings(path="p", write={"a": 1, "b": "x"}), CONNECTIONS).read
    other = Source(Settings(path="p", write={"b": "x", "a": 1}), CONNECTIONS).read
    assert {one} == {other}


def test_a_number_and_a_truth_value_are_different_parameters():
    assert Source(Settings(path="p", write={"a": 1}), CONNECTIONS).read != Source(Settings(path="p", write={"a": True}), CONNECTIONS).read


def test_parameters_are_not_shown():
    assert "canary" not in repr(Source(Settings(path="p", write={"password": "canary"}), CONNECTIONS).read)


def test_readings_are_secret():
    reading = Source(Settings(path="p"), CONNECTIONS).interpret(Reading(value={"a": "b"}, at=0.0))
    assert isinstance(reading, Reading)
    assert reading.secret


@pytest.mark.parametrize("connections", [Connections(), Connections(vault=Vault())])
def test_a_missing_server_is_named_with_its_key_and_variable(connections):
    with pytest.raises(ValueError, match=r"vault\.address, or VAULT_ADDR"):
        sources.make("vault", Settings(path="secret/app/db"), connections)


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (Settings(path="secret/app/db", version=1, poll=0.1), []),
        (Settings(path="pki/issue/web", write={}), []),
        (Settings(path=""), ["path"]),
        (Settings(path="/secret/app"), ["path"]),
        (Settings(path="secret/app/"), ["path"]),
        (Settings(path="secret//app"), ["path"]),
        (Settings(path="secret/../sys/seal"), ["path"]),
        (Settings(path="p", write={}, version=1), ["version"]),
        (Settings(path="p", version=0), ["version"]),
        (Settings(path="p", poll=0.0), ["poll"]),
    ],
)
def test_rules_across_keys(settings, keys):
    assert [key for key, _message in settings.mistakes()] == keys
