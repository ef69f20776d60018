"""When the own configuration is loaded, how often at most, and what comes of it; and what of a change needs a restart."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from reloader import settings
from reloader.backends import Backends
from reloader.own import AGAIN, LEAST_BETWEEN, LONGEST_LOAD, SETTLE, SETTLE_MAX, Loaded, OwnConfiguration, needs_restart
from reloader.plan import Log, Pipeline, Plan, Server, State, Target, Volume
from reloader.snapshot import Failure, FailureKind, Reading
from reloader.targets import exec as executed
from reloader.world import World
from tests.kubelet import KubeletVolume
from tests.virtual import VirtualClock
from tests.waiting import eventually

PLAN = Plan(pipelines=(Pipeline(name="app", sources={}, target=Target(kind="none", settings=None)),))


class House:
    """An own configuration whose clock stands still until it is set."""

    def __init__(self, load: Any = lambda: PLAN, *paths: Path) -> None:
        self.clock = VirtualClock()
        self.loads = 0
        self._load = load
        self.own = OwnConfiguration(paths, self._counted, self.clock)

    def _counted(self) -> Plan:
        self.loads += 1
        return self._load()

    def shows(self, value: object, seconds: float = 0.0) -> None:
        self.clock.time += seconds
        self.own.put({"there": Reading(value=value, at=self.clock.time)})

    def after(self, seconds: float) -> Loaded | None:
        """Return what was loaded, if it was time for it."""
        self.clock.time += seconds
        if self.own.look_at > self.clock.time:
            return None
        self.own.look()
        return eventually(self.own.take, what="what was loaded")


def test_nothing_is_loaded_without_a_cause() -> None:
    house = House()
    assert house.own.look_at == inf
    assert house.after(1e9) is None


def test_a_change_is_loaded_once_it_is_quiet() -> None:
    """An editor writes in pieces."""
    house = House()
    house.shows("a")
    house.shows("ab", 0.9 * SETTLE)
    assert house.after(0.9 * SETTLE) is None
    assert house.after(0.2 * SETTLE) == Loaded(PLAN)
    assert house.after(1e9) is None


def test_what_never_is_quiet_is_loaded_all_the_same() -> None:
    house = House()
    house.shows(0)
    for number in range(1, 1000):
        house.shows(number, SETTLE / 2)
        if house.after(0.0) is not None:
            break
    assert house.clock.time - 1000 == pytest.approx(SETTLE_MAX, abs=SETTLE)


def test_changes_are_loaded_once_a_second_at_most() -> None:
    house = House()
    for number in range(1000):
        house.shows(number, 0.02)
        house.after(0.0)
    assert house.loads <= 20 / LEAST_BETWEEN + 1


def test_being_asked_loads_at_once() -> None:
    house = House()
    house.shows("a")
    assert house.after(SETTLE)
    house.own.ask()
    assert house.after(0.0) == Loaded(PLAN)


def test_what_cannot_be_read_any_more_is_a_change_and_what_is_the_same_is_none() -> None:
    house = House()
    house.shows("a")
    assert house.after(SETTLE)
    house.shows("a")
    assert house.own.look_at == inf
    house.own.put({"there": Failure(kind=FailureKind.REFUSED, reason="gone", at=0.0)})
    assert house.after(LEAST_BETWEEN) == Loaded(PLAN)


def test_what_is_refused_is_loaded_again_and_again() -> None:
    """What was wrong may lie where nobody watches: in a template that only the refused configuration names, or in /etc/passwd."""
    house = House()
    house.shows("a")
    house.after(SETTLE)
    house.own.judge(refused=True)
    assert house.after(0.9 * AGAIN) is None
    assert house.after(0.1 * AGAIN) == Loaded(PLAN)
    house.own.judge(refused=False)
    assert house.own.look_at == inf


def test_every_mistake_is_told() -> None:
    mistakes = [settings.Mistake("a.yaml", "a", "wrong"), settings.Mistake("b.yaml", "b", "wrong")]

    def load() -> Plan:
        raise settings.ConfigurationInvalid(mistakes)

    house = House(load)
    house.own.ask()
    assert house.after(0.0) == Loaded(mistakes=tuple(map(str, mistakes)))


@pytest.mark.parametrize("error", [ValueError("canary"), RuntimeError("canary"), OSError("canary")])
def test_a_mistake_of_ours_is_a_refusal_without_its_text(error: Exception) -> None:
    def load() -> Plan:
        raise error

    house = House(load)
    house.own.ask()
    loaded = house.after(0.0)
    assert loaded is not None
    assert loaded.plan is None
    (mistake,) = loaded.mistakes
    assert mistake.startswith(f"internal error: {type(error).__name__} in own.py:")


def test_too_many_threads_are_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    house.own.ask()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_thread)
        loaded = house.after(0.0)
    assert loaded == Loaded(mistakes=("the configuration cannot be looked at: can't start new thread",))
    house.own.judge(refused=True)
    assert house.after(AGAIN) == Loaded(PLAN)


def _no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_load_that_hangs_is_late_and_holds_up_nobody() -> None:
    gate = threading.Event()
    house = House(lambda: gate.wait(30) and PLAN)
    house.own.ask()
    house.own.look()
    (beat,) = house.own.heartbeats()
    assert beat.due == pytest.approx(house.clock.awake() + LONGEST_LOAD)
    assert house.own.take() is None
    house.shows("changed meanwhile")
    assert house.own.look_at == inf
    gate.set()
    assert eventually(house.own.take) == Loaded(PLAN)
    assert house.own.heartbeats() == ()
    assert house.own.look_at < inf


# What is watched


@pytest.fixture
def backends() -> Iterator[Backends]:
    backends = Backends(World())
    yield backends
    for backend, _ in backends._open.values():
        backend.close()


class Watched:
    """What is seen of places on the real disk."""

    def __init__(self, backends: Backends, plan: Plan, *paths: Path) -> None:
        self.own = OwnConfiguration(paths, lambda: plan, World().clock)
        self.own.follow(plan, backends)
        self.changed()

    def changed(self) -> None:
        """Return once something changed."""
        eventually(lambda: self.own.look_at < inf, what="a change")
        eventually(lambda: (self.own.look(), self.own.take())[1], what="the load")


def test_a_file_its_link_and_its_template_are_watched(tmp_path: Path, backends: Backends) -> None:
    file, templates = tmp_path / "app.yaml", tmp_path / "templates"
    templates.mkdir()
    file.write_text("1")
    (templates / "a.j2").write_text("1")
    volume = Volume(path="/live", files={"a": settings.plan.File(template=f"{templates}/a.j2")})
    watched = Watched(backends, replace(PLAN, pipelines=(replace(PLAN.pipelines[0], volume=volume),)), file)
    file.write_text("2")
    watched.changed()
    file.unlink()
    watched.changed()
    file.symlink_to(tmp_path / "other.yaml")
    (tmp_path / "other.yaml").write_text("3")
    watched.changed()
    (templates / "a.j2").write_text("2")
    watched.changed()


def test_a_directory_is_watched_for_what_comes_and_goes(tmp_path: Path, backends: Backends) -> None:
    folder = tmp_path / "configurations"
    folder.mkdir()
    watched = Watched(backends, PLAN, folder)
    (folder / "new.yaml").write_text("1")
    watched.changed()
    (folder / "link.yaml").symlink_to("nothing")
    watched.changed()
    (folder / "link.yaml").unlink()
    watched.changed()
    (folder / "new.yaml").unlink()
    watched.changed()


def test_a_load_amid_a_swap_is_done_again(tmp_path: Path, backends: Backends) -> None:
    """So that no two files of one ConfigMap are of two generations."""
    mounted = KubeletVolume(tmp_path / "mounted")
    mounted.swap({"a.yaml": "1", "b.yaml": "1"})
    seen: list[tuple[str, str]] = []

    def load() -> Plan:
        first = (mounted.path / "a.yaml").read_text()
        if not seen:
            mounted.swap({"a.yaml": "2", "b.yaml": "2"})
        seen.append((first, (mounted.path / "b.yaml").read_text()))
        return PLAN

    own = OwnConfiguration((mounted.path,), load, World().clock)
    own.follow(PLAN, backends)
    own.ask()
    own.look()
    eventually(own.take, what="what was loaded")
    assert seen[0] == ("1", "2")
    assert seen[1] == ("2", "2")


def test_what_cannot_be_watched_is_told_and_tried_again(tmp_path: Path, backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "app.yaml"
    file.write_text("1")
    own = OwnConfiguration((file,), lambda: PLAN, World().clock)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_thread)
        own.follow(PLAN, backends)
    assert own.look_at < inf
    own.look()
    assert eventually(own.take) == Loaded(PLAN)
    own.follow(PLAN, backends)
    eventually(lambda: own._seen, what="the file")


# What needs a restart


def changed(**changes: Any) -> Plan:
    return replace(PLAN, **changes)


def pipeline(**changes: Any) -> Plan:
    return changed(pipelines=(replace(PLAN.pipelines[0], **changes),))


ONE, OTHER = (pipeline(volume=Volume(path=path)) for path in ("/one", "/other"))
RUN = Target(kind="exec", settings=executed.Settings(command=("one",)))


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        (PLAN, PLAN, []),
        (PLAN, changed(server=Server(listen="off", details="all")), ["server.listen", "server.details"]),
        (PLAN, changed(state=State(path="/state")), ["state.path"]),
        (PLAN, changed(log=Log(level="debug", format="json")), []),
        (ONE, OTHER, ["volume.path of app"]),
        (PLAN, ONE, []),
        (ONE, PLAN, []),
        (ONE, pipeline(name="renamed", volume=Volume(path="/one")), []),
        (PLAN, pipeline(target=RUN), ["target.command of app"]),
        (PLAN, pipeline(target=Target(kind="command", settings=None)), []),
    ],
)
def test_what_needs_a_restart_is_named_by_its_key(old: Plan, new: Plan, keys: list[str]) -> None:
    assert needs_restart(old, new) == keys
