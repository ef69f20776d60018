"""The source `env`."""

import pytest

from reloader import sources
from reloader.backends.local import Backend
from reloader.backends.turns import Turns
from reloader.plan import Connections, Local
from reloader.snapshot import Failure, FailureKind, Mailbox, Reading, Standing
from reloader.sources.env import Settings, Source
from reloader.world import World
from tests.waiting import eventually


def standing(source: Source):
    """Return what one run of the backend says of the source."""
    world = World()
    backend = Backend(source.backend, Turns("local", 1, world), world)
    mailbox = Mailbox(["env"])
    backend.watch(source.read, mailbox, "env")
    eventually(lambda: mailbox.take().standings["env"] != Standing())
    backend.close()
    return mailbox.take().standings["env"]


def test_variables_become_a_mapping_by_name_that_is_masked_and_always_current(monkeypatch):
    monkeypatch.setenv("DB_USER", "app")
    monkeypatch.setenv("DB_PASSWORD", "canary")
    source = Source(Settings(names=("DB_USER", "DB_PASSWORD")), Connections())
    reading = source.interpret(standing(source).reading)
    assert isinstance(reading, Reading)
    assert reading.value == {"DB_USER": "app", "DB_PASSWORD": "canary"}
    assert reading.secret
    assert reading.current_until == float("inf")
    assert "canary" not in repr(reading)


def test_variables_that_are_not_set_are_all_named(monkeypatch):
    monkeypatch.setenv("DB_USER", "app")
    monkeypatch.delenv("ONE_MISSING", raising=False)
    monkeypatch.delenv("OTHER_MISSING", raising=False)
    failure = standing(Source(Settings(names=("DB_USER", "ONE_MISSING", "OTHER_MISSING")), Connections())).failure
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.REFUSED
    assert "ONE_MISSING, OTHER_MISSING" in failure.reason
    assert "DB_USER" not in failure.reason


def test_the_kind_is_found_by_its_name():
    source = sources.make("env", Settings(names=("HOME",)), Connections())
    assert source.backend == Local()
    assert source.read == Source(Settings(names=("HOME",)), Connections()).read


@pytest.mark.parametrize(("names", "keys"), [((), ["names"]), (("HOME",), [])])
def test_no_names_are_a_mistake(names, keys):
    assert [key for key, _message in Settings(names=names).mistakes()] == keys
