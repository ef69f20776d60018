"""A pipeline that closes, one course of events each: what it takes away, ends and leaves, and what keeps it from that."""

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from reloader.plan import FailurePolicy, StopTarget
from reloader.snapshot import FailureKind
from reloader.targets import Trouble
from reloader.volume import VolumeError
from reloader.volume.wish import Wish
from tests.unit.virtual_pod import App, Machine, Sidecar, failure, make_plan, reading


class Pod:
    """A closed pipeline of the sources `a` and `b`, and an application that confirms."""

    def __init__(self, folder: Path, *actions: str) -> None:
        self.machine = Machine()
        self.live = folder / "live"
        self.app = App(self.machine, self.live)
        self.app.appear()
        listed = tuple(StopTarget() if action == "stop_target" else action for action in actions)
        self.plan = make_plan(folder, {"a": None, "b": None}, FailurePolicy(mode="closed", when_closed=listed))
        self.sidecar = Sidecar(self.plan, self.machine, self.app)
        self.sidecar.pipeline.open()

    def say(self, *, expires: float | None = None, **values: object) -> None:
        for name, value in values.items():
            self.sidecar.put(name, reading({} if value is None else {"x": value}, self.machine, expires=expires))
        self.run(0.01)

    def fail(self, *names: str) -> None:
        for name in names:
            self.sidecar.put(name, failure(FailureKind.UNREACHABLE, self.machine))
        self.run(0.01)

    def run(self, seconds: float) -> int:
        """Let time pass, and return how many cycles were wanted."""
        end, cycles = self.machine.time + seconds, 0
        while self.machine.time < end:
            cycles += 1
            look = self.sidecar.cycle() + self.machine.booted
            self.machine.time = min(end, max(look, self.machine.time + 0.001))
        return cycles

    def restart(self, *, killed: bool = False) -> None:
        (self.sidecar.die if killed else self.sidecar.close)()
        self.sidecar = Sidecar(self.plan, self.machine, self.app)
        self.sidecar.pipeline.open()

    @property
    def shows(self) -> str | None:
        return self.app.shown


@pytest.fixture
def pod(tmp_path) -> Callable[..., Pod]:
    made: list[Pod] = []

    def make(*actions: str) -> Pod:
        made.append(Pod(tmp_path, *actions))
        return made[-1]

    yield make
    for each in made:
        each.sidecar.die()


def test_what_is_withdrawn_because_newer_content_waits_does_not_come_back_without_that(pod):
    """The value that was held would make the same set again, over and over."""
    pod = pod("withdraw")
    pod.say(a="good", b="one")
    pod.say(a=None)
    pod.run(300)
    assert pod.shows == '{"a": "good", "b": "one"}'

    pod.run(400)
    seen = set()
    for _ in range(20):
        pod.run(1)
        seen.add(pod.shows)
    assert seen == {None}

    pod.say(a="better")
    assert pod.shows == '{"a": "better", "b": "one"}'


def test_a_lease_that_ran_out_while_nothing_ran_is_known_to_the_next_run(pod):
    """However long `max_staleness` is, what has ended is not relied on before the source has said something again."""
    pod = pod("not_ready")
    pod.say(a="user", b="one", expires=pod.machine.now + 60)
    pod.run(30)
    assert pod.sidecar.report.ready

    pod.restart()
    pod.run(20)
    assert pod.sidecar.report.ready
    pod.run(20)
    assert not pod.sidecar.report.ready

    pod.say(a="user", b="one", expires=pod.machine.now + 60)
    assert pod.sidecar.report.ready


def test_nobody_leaves_while_a_set_is_about_to_be_published_that_opens_it(pod):
    """The next run finds the volume withdrawn; what its sources then say is tried before anything else is done."""
    first = pod("withdraw")
    first.say(a="good", b="one")
    first.fail("a")
    first.run(700)
    assert first.shows is None
    first.sidecar.close()

    second = pod("withdraw", "stop_target", "exit")
    second.run(5)
    assert second.sidecar.report.closed
    second.sidecar.put("a", reading({"x": "back"}, second.machine))
    second.say(b="back")
    second.run(5)

    assert (second.shows, second.sidecar.left, second.app.stops) == ('{"a": "back", "b": "back"}', False, [])


def test_a_source_that_was_read_just_before_a_kill_is_as_old_as_that(pod):
    """Its age is in the record before a set is that was made of it, however seldom ages are written."""
    pod = pod("not_ready")
    pod.say(b="one")
    pod.run(100)
    pod.say(a="good")
    pod.machine.time += 700
    pod.restart(killed=True)
    pod.say(b="one")

    assert pod.shows is not None
    assert not pod.sidecar.report.ready


def test_a_source_that_no_record_tells_of_gets_no_younger_by_restarts(pod):
    """Where the record was lost, what is published is as old as its files, in every run that does not read the source."""
    pod = pod("not_ready")
    pod.say(a="good", b="one")
    pod.machine.time += 500
    pod.sidecar.close()
    (pod.live / "..reloader" / "record.json").unlink()
    for _ in range(3):
        pod.restart()
        pod.say(b="one")
        pod.run(70)

    assert not pod.sidecar.report.ready


def test_refused_content_that_may_not_be_published_now_is_not_tried_without_a_pause(pod):
    """Its time has come, but a source is too old for a first set."""
    pod = pod("not_ready")
    pod.say(a='no"json', b="one")
    pod.fail("a")
    pod.machine.time += 1500

    assert pod.run(10) < 30


def test_content_that_is_refused_again_and_again_waits_since_the_first_time(pod):
    """To try it once more is no news of it."""
    pod = pod("not_ready")
    pod.say(a="good", b="one")
    pod.say(a="bad!")
    ready = []
    for _ in range(25):
        pod.run(100)
        ready.append(pod.sidecar.report.ready)

    assert ready == [True] * 6 + [False] * 19
    pod.say(a="better")
    pod.run(1)
    assert pod.sidecar.report.ready


@pytest.mark.parametrize("step", [-3600.0, -200.0, 200.0, 3600.0])
def test_a_step_of_the_wall_clock_makes_no_retry_come_sooner_or_later(pod, step):
    pod = pod("not_ready")
    pod.say(a="good", b="one")
    pod.run(1)
    pod.say(a="bad!")
    pod.run(1)
    asked = pod.app.asked
    pod.machine.ahead += step
    pod.run(260)
    pod.sidecar.pipeline.content.look_again()
    pod.run(1)
    assert pod.app.asked == asked

    pod.run(80)
    assert pod.app.asked > asked


def test_a_volume_that_could_not_be_taken_for_long_is_withdrawn_by_what_it_remembers(pod):
    """Nobody is asked to read an empty set, and what the sources say then is published."""
    pod = pod("withdraw")
    pod.say(a="good", b="one")
    pod.run(1)
    pod.sidecar.close()
    pod.machine.disk_trouble = errno.EROFS
    with suppress(VolumeError):
        pod.restart()
    pod.fail("a", "b")
    pod.run(700)
    pod.machine.disk_trouble = None
    pod.run(100)
    assert pod.shows is None

    pod.say(a="better", b="one")
    pod.run(1)
    assert pod.shows == '{"a": "better", "b": "one"}'
    assert pod.sidecar.report.ready


def test_a_target_that_ended_and_is_several_now_is_looked_at_with_pauses(pod):
    """Its time to come back is over, and that it is not clear who came is no reason to ask all the time."""
    pod = pod("not_ready")
    pod.app.says = "takes its time"
    pod.say(a="good", b="one")
    pod.run(1)
    pod.app.appear()
    pod.app.trouble = Trouble.AMBIGUOUS
    pod.run(30)

    assert pod.run(10) < 30


@pytest.mark.parametrize("held", [True, False], ids=["a person holds a set", "no source has answered"])
def test_a_volume_that_is_taken_at_last_is_no_cause_any_more(pod, held):
    """Though nothing is written to it for long: what is published is what is wanted, or all that there is."""
    pod = pod("not_ready")
    pod.say(a="good", b="one")
    pod.run(1)
    pod.say(a="better")
    pod.run(1)
    if held:
        pod.sidecar.pipeline.ask(Wish(act="rollback"))
        pod.run(1)
    pod.machine.disk_trouble = errno.EROFS
    with suppress(VolumeError):
        pod.restart()
    pod.run(5)
    pod.machine.disk_trouble = None
    if held:
        pod.say(a="better", b="one")
    pod.run(70)

    assert not any("read-only" in reason for reason in pod.sidecar.report.reasons)


def test_a_refused_set_stays_where_what_was_held_for_it_has_ended(pod):
    """Nobody goes back to a lease that has run out, and no cycle fails of it."""
    pod = pod("not_ready")
    pod.say(a="good", b="one", expires=pod.machine.now + 20)
    pod.run(30)
    pod.say(a="bad!")
    pod.run(30)

    assert pod.shows == '{"a": "bad!", "b": "one"}'
    assert any("does not take it" in reason for reason in pod.sidecar.report.reasons)


def test_what_is_known_to_be_refused_is_not_relied_on_while_it_is_asked_for_again(pod):
    """There is nothing to go back to; only a yes opens the pipeline, not another question."""
    pod = pod("not_ready")
    pod.say(a="good", b="one")
    pod.app.says = "refuses"
    pod.say(a="better")
    pod.run(1)
    assert pod.sidecar.report.closed
    asked = pod.app.asked

    pod.app.says = "takes its time"
    ready = set()
    for _ in range(400):
        pod.run(1)
        ready.add(pod.sidecar.report.ready)
    assert pod.app.asked > asked
    assert ready == {False}

    pod.app.says = "confirms"
    pod.run(10)
    assert pod.sidecar.report.ready


def test_a_target_that_started_since_on_what_was_refused_is_asked_before_that_is_relied_on(pod):
    pod = pod("not_ready")
    pod.say(a="good", b="one")
    pod.app.says = "refuses"
    pod.say(a="better")
    pod.run(1)
    pod.app.end()
    pod.run(5)
    pod.app.says = "takes its time"
    pod.app.appear()
    pod.run(5)
    assert (pod.sidecar.report.owed or "").startswith("failed: ")
    assert not pod.sidecar.report.ready

    pod.app.says = "confirms"
    pod.run(10)
    assert pod.sidecar.report.ready
    pod.app.says = "takes its time"
    pod.app.appear()
    pod.run(5)
    assert pod.sidecar.report.ready  # that one has read what was confirmed


@pytest.mark.parametrize("trouble", [Trouble.AMBIGUOUS, Trouble.ABSENT])
def test_what_was_withdrawn_is_tried_again_as_soon_as_it_is_clear_who_is_meant(pod, trouble):
    pod = pod("withdraw")
    pod.say(a="good", b="one")
    pod.app.trouble = Trouble.AMBIGUOUS
    pod.say(a="better")
    while pod.shows is not None:
        pod.run(0.1)
    if trouble is Trouble.ABSENT:
        pod.app.end()
    pod.run(20)
    assert pod.shows is None

    pod.app.trouble = None
    if trouble is Trouble.ABSENT:
        pod.app.appear()
    pod.run(5)
    assert pod.shows == '{"a": "better", "b": "one"}'
    assert pod.sidecar.report.ready


def test_what_cannot_be_withdrawn_from_a_disk_that_fails_stays_closed_and_is_left_in_the_end(pod):
    """It failed for the record first: that what is to be withdrawn cannot be either is no trouble that begins anew."""
    pod = pod("withdraw", "exit")
    pod.plan = replace(pod.plan, failure=replace(pod.plan.failure, max_staleness=10.0))
    pod.restart()
    pod.app.says = "takes its time"
    pod.say(a="good", b="one")
    pod.machine.disk_trouble = errno.EIO
    pod.app.says = "confirms"
    pod.run(9)
    assert pod.sidecar.report.owed is None
    assert not pod.sidecar.report.closed
    pod.run(10)
    told = {pod.sidecar.report.closed for _ in range(300) if pod.run(0.1)}
    assert told == {True}
    assert pod.sidecar.left
    assert [event.stage for event in pod.sidecar.report.events].count("closed") == 1


def _with_fallback(pod, folder, text):
    """Return one that is open, and whose fallback says this."""
    (folder / "fallback").mkdir()
    (folder / "fallback" / "app.json").write_text(text)
    made = pod("not_ready")
    made.plan = replace(made.plan, failure=FailurePolicy(fallback=str(folder / "fallback"), startup_grace=1.0))
    return made


def test_a_fallback_that_was_refused_before_is_told_of_while_it_waits(tmp_path, pod):
    pod = _with_fallback(pod, tmp_path, "no json")
    for _ in range(2):
        pod.restart()
        pod.run(20)
        told = [reason for reason in pod.sidecar.report.reasons if "json" in reason or "failure.fallback" in reason]
        assert told, pod.sidecar.report.reasons
    assert told == ["failure.fallback: the check refused it before"]


def test_a_fallback_that_nobody_could_be_asked_for_comes_back_when_what_replaced_it_is_refused(tmp_path, pod):
    pod = _with_fallback(pod, tmp_path, '{"fallback": 1}')
    pod.restart()
    pod.app.trouble = Trouble.AMBIGUOUS
    pod.run(5)
    assert pod.shows == '{"fallback": 1}'
    pod.say(a="bad!", b="one")
    pod.run(5)
    assert "bad!" in pod.shows

    pod.app.trouble = None
    seen = {pod.shows for _ in range(50) if pod.run(0.1)}
    assert None not in seen
    assert pod.shows == pod.app.reads == '{"fallback": 1}'
    assert not pod.sidecar.report.ready
    pod.say(a="good")
    pod.run(5)
    assert pod.shows == pod.app.reads == '{"a": "good", "b": "one"}'
    assert pod.sidecar.report.ready


def test_a_fallback_that_is_refused_after_all_is_not_gone_back_to(tmp_path, pod):
    pod = _with_fallback(pod, tmp_path, '{"fallback": "f0!"}')
    pod.restart()
    pod.app.trouble = Trouble.AMBIGUOUS
    pod.run(5)
    pod.say(a="bad!", b="one")
    pod.run(5)
    pod.app.trouble = None
    pod.run(20)
    assert pod.shows is None
    assert pod.app.asked == 2  # for what replaced it, and for it
