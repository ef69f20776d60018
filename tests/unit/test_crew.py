"""The pipelines of one process made to match a plan, where not all of them can be."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reloader import crew as module, settings
from reloader.backends import Backends
from reloader.crew import Crew, NotMade
from reloader.pipeline.turnstile import Turnstile
from reloader.plan import Pipeline
from reloader.running import Running, Shared
from reloader.status import Metrics, Status
from reloader.volume.wish import NotPossible, Wish
from reloader.world import World
from tests.waiting import eventually


class House:
    """A crew that a test leads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        world = World()
        self.status = Status(world.clock)
        self.crew = Crew(Shared(Backends(world), self.status, Metrics(self.status, "0"), world, Turnstile(), None))

    def plan(self, name: str, content: str = "one") -> Pipeline:
        file = self._folder / f"{name}.yaml"
        file.write_text(f"volume: {{path: {self._folder}/{name}, files: {{a: {{content: {content}}}}}}}\ntarget: {{kind: none}}\n")
        file.write_text(file.read_text() + f"sources: {{s: {{kind: files, path: {self._folder}}}}}\n")
        return settings.load([file], {}).pipelines[0]

    def published(self, name: str) -> str | None:
        file = self._folder / name / "a"
        return file.read_text() if file.exists() else None

    def comes(self, name: str, content: str) -> None:
        eventually(lambda: (self.crew.converge(), self.published(name))[1] == content, what=f"{content} of {name}")

    def close(self) -> None:
        self.crew.stop()
        for running in self.crew.running.values():
            running.thread.join(10)
        self.crew.forget()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


def test_what_is_equal_keeps_its_thread(house: House) -> None:
    house.crew.start([house.plan("one"), house.plan("two")])
    house.comes("one", "one")
    threads = {name: running.thread for name, running in house.crew.running.items()}
    house.crew.want([house.plan("one"), house.plan("two", "changed")])
    house.comes("two", "changed")
    assert house.crew.running["one"].thread is threads["one"]
    assert house.crew.running["two"].thread is not threads["two"]
    assert house.crew.troubles == ()


def test_one_that_cannot_be_made_changes_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others neither, which come before it."""
    house.crew.start([house.plan("one")])
    house.comes("one", "one")
    thread = house.crew.running["one"].thread

    def make(plan: Pipeline, shared: Shared) -> Running:
        if plan.name == "two":
            raise OSError(24, "Too many open files")
        return Running(plan, shared)

    monkeypatch.setattr(module, "Running", make)
    with pytest.raises(NotMade, match=r"pipeline two cannot be made: .*Too many open files"):
        house.crew.want([house.plan("one", "changed"), house.plan("two")])
    house.crew.converge()
    assert house.crew.running["one"].thread is thread
    assert list(house.status.reports) == ["one"]
    assert house.published("one") == "one"


def test_one_that_cannot_be_started_says_so_and_is_tried_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are changed all the same."""
    house.crew.start([house.plan("one"), house.plan("two")])
    house.comes("two", "one")
    refused = threading.Event()
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name == "pipeline one":
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", limited)
        house.crew.want([house.plan("one", "changed"), house.plan("two", "changed")])
        house.comes("two", "changed")
        eventually(lambda: (house.crew.converge(), refused.is_set())[1], what="the refusal")
    (trouble,) = house.crew.troubles
    assert trouble.startswith("one: cannot be started: can't start new thread")
    report = house.status.reports["one"]
    assert (report.ready, report.reasons) == (False, (trouble.removeprefix("one: "),))
    house.comes("one", "changed")
    assert house.crew.troubles == ()


def test_a_change_back_while_the_old_one_ends_ends_with_the_old_plan(house: House) -> None:
    house.crew.start([house.plan("one")])
    house.comes("one", "one")
    house.crew.want([house.plan("one", "changed")])
    house.crew.converge()
    house.crew.want([house.plan("one")])
    eventually(lambda: (house.crew.converge(), house.crew.running.get("one"))[1], what="the old plan")
    house.crew.want([house.plan("one", "last")])
    house.comes("one", "last")


def test_one_is_replaced_by_the_wake_that_its_thread_sends_though_that_still_lives(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not woken again for the end of the thread itself."""
    house.crew.start([house.plan("one")])
    house.comes("one", "one")
    woken, looked, old = threading.Event(), threading.Event(), house.crew.running["one"]
    monkeypatch.setattr(old, "_wake", lambda: old.has_ended and (woken.set(), looked.wait(10)))
    house.crew.want([house.plan("one", "changed")])
    house.crew.converge()
    assert woken.wait(10)
    threading.Timer(0.2, looked.set).start()
    house.crew.converge()
    assert house.crew.running["one"] is not old


def test_what_is_gone_is_not_reported(house: House) -> None:
    house.crew.start([house.plan("one"), house.plan("two")])
    house.comes("two", "one")
    house.crew.want([house.plan("one")])
    eventually(lambda: (house.crew.converge(), list(house.status.reports))[1] == ["one"], what="the end of the other")


def test_what_does_not_run_now_cannot_be_asked(house: House) -> None:
    """It is told so, of one that is wanted and of one that is not."""
    with pytest.raises(NotPossible, match=r"^no pipeline runs now; `reloader status` tells why$"):
        house.crew.ask(None, Wish(act="resume"))
    house.crew.start([house.plan("one")])
    house.comes("one", "one")
    house.crew.want([house.plan("one"), house.plan("two")])
    with pytest.raises(NotPossible, match=r"^pipeline two does not run now; `reloader status` tells why$"):
        house.crew.ask("two", Wish(act="rollback"))
    with pytest.raises(NotPossible, match="there is no pipeline three; there are one, two"):
        house.crew.ask("three", Wish(act="rollback"))


def test_the_last_of_several_that_ended_is_gone_on_from(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another one cannot be started, all that ended are kept; the newest of them knows what is confirmed."""
    inherited = []
    succeed = Running.succeed
    monkeypatch.setattr(Running, "succeed", lambda self, before: (inherited.append(before), succeed(self, before)))
    house.crew.start([house.plan("one"), house.plan("two")])
    house.comes("one", "one")
    house.comes("two", "one")
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name == "pipeline two":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    for content in ("second", "third"):
        house.crew.want([house.plan("one", content), house.plan("two", "changed")])
        house.comes("one", content)
        last = [each for each in inherited if each.plan.name == "one"][-1]
        before = "one" if content == "second" else "second"
        assert last.plan.volume.files["a"].content == before


def test_a_thread_that_died_is_late_and_one_that_was_asked_to_end_is_not(house: House) -> None:
    house.crew.start([house.plan("one")])
    house.comes("one", "one")
    running = house.crew.running["one"]
    assert [beat.due > 0 for beat in house.crew.heartbeats()] == [True]
    running.pipeline.stop()
    running.thread.join(10)
    assert [beat.due > 0 for beat in house.crew.heartbeats()] == [True]
    house.crew.running["one"] = replace_thread(running)
    assert [beat.due > 0 for beat in house.crew.heartbeats()] == [False]
    house.crew.running["one"] = running


def replace_thread(running: Running) -> Running:
    """Return one whose pipeline was not asked to end, though its thread has."""
    other = Running(replace(running.plan, name="other"), running._shared)
    other.thread = running.thread
    return other
