"""What every kind of target keeps to. A kind that has no entry here fails."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from math import inf
from pathlib import Path
from signal import SIGHUP
from typing import Any

import psutil
import pytest

from reloader.plan import Verify
from reloader.targets import KINDS, Held, Instance, Runs, Target, Trouble, Verdict, make
from reloader.targets._find import Match
from tests.servers.misbehaving import misbehaving
from tests.targets.started import PRINT_SIGNALS, Starter, sidecar, starter, unique
from tests.waiting import eventually

VERIFY = Verify(within=0.05)


def process(start: Starter) -> tuple[Any, Callable[[], object]]:
    name = unique()
    child = start.target(name)
    return KINDS.load("process").Settings(match=Match(name=name)), child.kill


def run_by_us(start: Starter) -> tuple[Any, Callable[[], object]]:
    name = unique()
    command = (str(start.interpreter(name)), str(PRINT_SIGNALS))

    def kill() -> None:
        program = next(process for process in psutil.process_iter() if process.name() == name)
        program.kill()
        eventually(lambda: program.status() == psutil.STATUS_ZOMBIE)

    return KINDS.load("exec").Settings(command=command), kill


def none(_start: Starter) -> tuple[Any, None]:
    return KINDS.load("none").Settings(), None


def command(_start: Starter) -> tuple[Any, None]:
    return KINDS.load("command").Settings(command=("true",)), None


def http(start: Starter) -> tuple[Any, None]:
    server = start.stops.enter_context(misbehaving(lambda exchange: exchange.answer("")))
    return KINDS.load("http").Settings(url=server.address), None


ENTRIES: dict[str, Callable[[Starter], tuple[Any, Callable[[], object] | None]]] = {
    "process": process,
    "exec": run_by_us,
    "none": none,
    "command": command,
    "http": http,
}
"""For each kind: settings of a target that is there, and what ends it, if it can end."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    with starter(tmp_path) as start:
        yield start


@pytest.fixture(params=KINDS.names())
def kind(request: pytest.FixtureRequest) -> str:
    assert request.param in ENTRIES, f"the target kind {request.param} has no entry in {__name__}"
    return request.param


@pytest.fixture
def entry(kind: str, start: Starter) -> tuple[Any, Callable[[], object] | None]:
    return ENTRIES[kind](start)


@pytest.fixture
def target(kind: str, entry: tuple[Any, Any]) -> Iterator[Target]:
    target = make(kind, entry[0], VERIFY, sidecar())
    if isinstance(target, Runs):
        eventually(lambda: target.start() == inf)
        eventually(lambda: sidecar().processes.masks(target.instances()[0].pid).catches(SIGHUP))
        target.close()
    yield target
    target.close()
    if isinstance(target, Runs):
        with suppress(StopIteration, psutil.NoSuchProcess):
            entry[1]()


def test_modules_that_help_a_kind_are_no_kinds():
    assert not [name for name in KINDS.names() if name.startswith("_")]


def test_settings_are_a_frozen_dataclass_that_refuses_unknown_keys(kind):
    settings = KINDS.load(kind).Settings

    assert is_dataclass(settings)
    assert settings.__dataclass_params__.frozen
    assert settings.__pydantic_config__["extra"] == "forbid"
    assert not {field.name for field in fields(settings)} & {"kind", "verify"}, "taken by every target"


def test_the_settings_of_a_target_that_is_there_have_no_mistake(entry):
    assert not list(getattr(entry[0], "mistakes", list)())


def test_the_same_instance_is_found_again(target):
    instances = target.instances()

    assert instances
    assert all(isinstance(instance, Instance) for instance in instances)
    assert instances == target.instances()


def test_nothing_is_held_before_it_is_found(target):
    assert target.descriptors() == ()


@pytest.mark.parametrize("ask", ["reload", "verify"])
def test_what_is_well_is_confirmed_in_its_time(target, ask):
    verification = getattr(target, ask)(target.instances()[0])

    assert isinstance(verification.proves_completion, bool)
    eventually(lambda: verification.judge().verdict is Verdict.CONFIRMED)


def test_a_pending_verification_says_when_to_look_again(target):
    world = sidecar()
    verification = target.reload(target.instances()[0])
    seen = verification.judge()

    if seen.verdict is Verdict.PENDING:
        assert seen.look_at <= world.clock.now() + VERIFY.within


def test_one_that_ended_is_absent_and_wakes_nobody(target, entry):
    if entry[1] is None:
        pytest.skip("a target without a process does not end")
    target.instances()
    entry[1]()

    with pytest.raises(Held) as held:
        target.instances()
    assert held.value.trouble is Trouble.ABSENT
    assert target.descriptors() == ()


def test_closing_twice_is_closing(target):
    target.instances()
    target.close()
    target.close()

    assert target.descriptors() == ()
    assert target.instances()
