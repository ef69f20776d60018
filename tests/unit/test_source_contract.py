"""What every kind of source keeps to, each against the real thing that it reads. A kind that has no entry here fails."""

import copy
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from reloader import plan
from reloader.backends import Backends
from reloader.plan import Connections, Consul, Vault, VaultAuth
from reloader.snapshot import Failure, FailureKind, Mailbox, Outcome, Reading
from reloader.sources import KINDS, Source, make
from reloader.world import World
from reloader.written import Secret
from tests.kubelet import KubeletVolume
from tests.waiting import eventually

CANARY = "canary-7f3a"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to use a kind. What it reads is there, and holds the canary."""

    settings: dict[str, Any]
    """As an operator writes them."""
    value: Any
    """What a template gets."""
    missing: dict[str, Any]
    """Settings for something that is not there."""
    absent: str
    """What the refusal has to name."""
    connections: Connections = field(default_factory=Connections)
    change: Callable[[], Any] | None = None
    """Changes what is read, and returns the value that it has then; None for what cannot change."""


def files_directory(tmp_path: Path, _: pytest.FixtureRequest) -> Case:
    volume = KubeletVolume(tmp_path / "volume")
    volume.swap({"a": CANARY})

    def change() -> dict[str, str]:
        volume.swap({"a": "2", "b": "2"})
        return {"a": "2", "b": "2"}

    return Case(
        settings={"path": str(volume.path)},
        value={"a": CANARY},
        missing={"path": str(tmp_path / "none")},
        absent=str(tmp_path / "none"),
        change=change,
    )


def files_file(tmp_path: Path, _: pytest.FixtureRequest) -> Case:
    file = tmp_path / "app.yaml"
    file.write_text(CANARY)

    def change() -> str:
        file.write_text("2")
        return "2"

    return Case(
        settings={"path": str(file)},
        value=CANARY,
        missing={"path": str(tmp_path / "none.yaml")},
        absent=str(tmp_path / "none.yaml"),
        change=change,
    )


def env(_: Path, request: pytest.FixtureRequest) -> Case:
    request.getfixturevalue("monkeypatch").setitem(os.environ, "CONTRACT_NAME", CANARY)
    return Case(
        settings={"names": ["CONTRACT_NAME"]},
        value={"CONTRACT_NAME": CANARY},
        missing={"names": ["CONTRACT_NO_NAME"]},
        absent="CONTRACT_NO_NAME",
    )


def vault(_: Path, request: pytest.FixtureRequest) -> Case:
    server = request.getfixturevalue("openbao")
    server.enable("kv", "secret", version="2")
    server.put_kv2("secret", "app", {"password": CANARY})

    def change() -> dict[str, str]:
        server.put_kv2("secret", "app", {"password": "2"})
        return {"password": "2"}

    return Case(
        settings={"path": "secret/app", "poll": "100ms"},
        value={"password": CANARY},
        missing={"path": "secret/nowhere"},
        absent="nowhere",
        connections=Connections(vault=Vault(address=server.address, auth=VaultAuth(token=Secret(server.root_token)))),
        change=change,
    )


def consul_key(_: Path, request: pytest.FixtureRequest) -> Case:
    server = request.getfixturevalue("consul_server")
    server.put("app/name", CANARY)

    def change() -> str:
        server.put("app/name", "2")
        return "2"

    connections = Connections(consul=Consul(address=server.address))
    return Case(
        settings={"key": "app/name"},
        value=CANARY,
        missing={"key": "app/nowhere"},
        absent="app/nowhere",
        connections=connections,
        change=change,
    )


def consul_prefix(_: Path, request: pytest.FixtureRequest) -> Case:
    case = consul_key(_, request)
    server = request.getfixturevalue("consul_server")

    def change() -> dict[str, str]:
        server.put("app/more/name", "2")
        return {"name": CANARY, "more/name": "2"}

    return replace(case, settings={"prefix": "app"}, value={"name": CANARY}, change=change)


CASES: dict[str, tuple[Callable[[Path, pytest.FixtureRequest], Case], ...]] = {
    "consul": (consul_key, consul_prefix),
    "env": (env,),
    "files": (files_directory, files_file),
    "vault": (vault,),
}
"""For each kind, the ways to set it up."""


def no_case(_: Path, request: pytest.FixtureRequest) -> Case:
    pytest.fail(f"the source kind {request.getfixturevalue('kind')} has no entry in {__name__}")


WAYS = [(kind, way) for kind in KINDS.names() for way in CASES.get(kind, (no_case,))]

pytestmark = pytest.mark.servers


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}-{way[1].__name__}")
def way(request: pytest.FixtureRequest) -> tuple[str, Callable[[Path, pytest.FixtureRequest], Case]]:
    return request.param


@pytest.fixture
def kind(way: Any) -> str:
    return way[0]


@pytest.fixture
def case(way: Any, kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    return way[1](tmp_path, request)


class Read:
    """A source that is being read, as a pipeline does it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._mailbox = Mailbox(["it"])
        self._backends = Backends(World())
        self.raw: list[Outcome] = []
        self._leave = self._backends.acquire(source.backend).watch(source.read, self, "it")

    def put(self, outcomes: Mapping[str, Outcome]) -> None:
        self.raw.extend(outcomes.values())
        meant = {name: self._source.interpret(outcome) if isinstance(outcome, Reading) else outcome for name, outcome in outcomes.items()}
        self._mailbox.put(meant)

    def reading(self, value: Any) -> Reading:
        """Return the latest reading once it has that value."""
        return eventually(
            lambda: (reading := self._mailbox.take().standings["it"].reading) and reading.value == value and reading, within=20
        )

    def failure(self) -> Failure:
        return eventually(lambda: self._mailbox.take().standings["it"].failure, within=20)

    def close(self) -> None:
        self._leave()
        self._backends.release(self._source.backend)
        self._mailbox.close()


@pytest.fixture
def read() -> Iterator[Callable[[Source], Read]]:
    """Begins to read a source; at the end, no thread of it is left."""
    before = set(threading.enumerate())
    begun: list[Read] = []
    yield lambda source: begun.append(Read(source)) or begun[-1]
    for each in begun:
        each.close()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread not in before], within=20, what="the end of all threads")


def written(kind: str, settings: dict[str, Any]) -> Any:
    """Return settings as an operator's file gives them."""
    return TypeAdapter(KINDS.load(kind).Settings).validate_python(settings)


def source(kind: str, case: Case, settings: dict[str, Any] | None = None) -> Source:
    return make(kind, written(kind, settings or case.settings), case.connections)


@pytest.mark.parametrize("kind", KINDS.names())
def test_settings_are_a_frozen_dataclass_that_takes_no_name_of_ours(kind):
    settings = KINDS.load(kind).Settings
    assert is_dataclass(settings)
    assert settings.__dataclass_params__.frozen
    assert not {each.name for each in fields(settings)} & ({each.name for each in fields(plan.Source)} - {"settings"})


def test_an_unknown_key_is_a_mistake(kind, case):
    with pytest.raises(ValidationError, match="no_such_key"):
        written(kind, {**case.settings, "no_such_key": "x"})


def test_good_settings_have_no_mistake(kind, case):
    assert list(getattr(written(kind, case.settings), "mistakes", list)()) == []


def test_equal_settings_are_one_read_of_one_backend(kind, case):
    one, other = source(kind, case), source(kind, case)
    assert isinstance(one.backend, plan.BackendPlan)
    assert {one.backend, other.backend} == {one.backend}
    assert isinstance(one.read, Hashable)
    assert {one.read, other.read} == {one.read}


def test_a_connection_that_is_missing_is_named(kind, case):
    if case.connections == Connections():
        pytest.skip("needs no connection")
    with pytest.raises(ValueError, match=rf"{kind}\.address"):
        make(kind, written(kind, case.settings), Connections())


def test_what_is_there_is_read(kind, case, read):
    before = World().clock.now()
    reading = read(source(kind, case)).reading(case.value)
    assert before <= reading.at <= World().clock.now() <= reading.current_until


def test_what_was_read_is_not_shown(kind, case, read):
    begun = read(source(kind, case))
    reading = begun.reading(case.value)
    assert CANARY not in repr((reading, begun.raw, reading.detail))


def test_interpreting_is_always_the_same_and_changes_nothing(kind, case, read):
    made = source(kind, case)
    begun = read(made)
    begun.reading(case.value)
    raw = next(outcome for outcome in begun.raw if isinstance(outcome, Reading))
    kept = copy.deepcopy(raw)
    assert made.interpret(raw) == made.interpret(raw) == source(kind, case).interpret(raw)
    assert raw == kept


def test_a_change_is_seen(kind, case, read):
    if case.change is None:
        pytest.skip("does not change")
    begun = read(source(kind, case))
    begun.reading(case.value)
    begun.reading(case.change())


def test_what_is_not_there_is_refused_and_says_what_is_missing(kind, case, read):
    failure = read(source(kind, case, case.missing)).failure()
    assert failure.kind is FailureKind.REFUSED
    assert case.absent in failure.reason
    assert CANARY not in failure.reason
