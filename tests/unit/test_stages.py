"""Where a stage is timed, counted, logged, kept and traced."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from reloader.pipeline.cycles import LONGEST
from reloader.pipeline.stages import KEPT, StageFailed, Stages
from reloader.status import Metrics, Status
from reloader.targets import Held, Trouble
from reloader.traces import Cycle
from reloader.world.clock import Clock


class Stepped(Clock):
    """Stands still, unless the test says otherwise."""

    at = 1000.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at + 5000.0


class Room:
    """The stages of one pipeline, and all that came of them."""

    def __init__(self, logged: Callable[[], list[logging.LogRecord]]) -> None:
        self.clock = Stepped()
        self.metrics = Metrics(Status(self.clock), "0")
        self.cycles: list[Cycle] = []
        self.stages = Stages("app", self.metrics, self.clock, (ValueError, Held), self.cycles.append)
        self._logged = logged

    def run(self, name: str, number: int, *, takes: float = 0.0, fails: str | Exception = "", **options: bool) -> None:
        """Run a stage that takes so many seconds, and fails if it is told how."""
        with suppress(StageFailed), self.stages.stage(name, number, **options):
            self.clock.at += takes
            if fails:
                raise fails if isinstance(fails, Exception) else ValueError(fails)

    def lines(self, level: int = logging.INFO) -> list[tuple[str, dict[str, Any]]]:
        return [(each.getMessage(), vars(each)["fields"]) for each in self._logged() if each.levelno >= level]

    def events(self) -> list[tuple[str, int, str, str, int]]:
        return [(each.stage, each.generation, each.outcome, each.reason, each.times) for each in self.stages.events]

    def traced(self) -> list[tuple[int, str, list[str]]]:
        return [(cycle.generation, cycle.outcome, [step.name for step in cycle.steps]) for cycle in self.cycles]

    def change(self, number: int) -> None:
        """Make and publish a set, and ask for a reload."""
        self.run("render", number, takes=1.0, quiet=True)
        self.run("publish", number, takes=2.0)
        self.run("reload", number, takes=0.5)


@pytest.fixture
def room(caplog: pytest.LogCaptureFixture) -> Room:
    caplog.set_level(logging.DEBUG, "reloader")
    return Room(lambda: caplog.records)


def test_a_stage_is_one_line_with_pipeline_generation_outcome_and_duration(room: Room) -> None:
    room.run("publish", 7, takes=0.25)
    room.run("reload", 7, takes=1.5, fails="no")
    assert room.lines() == [
        ("publish", {"pipeline": "app", "generation": 7, "outcome": "ok", "duration_ms": 250.0}),
        ("reload", {"pipeline": "app", "generation": 7, "outcome": "failed", "duration_ms": 1500.0, "reason": "no"}),
    ]


def test_what_is_no_news_is_for_those_who_debug(room: Room) -> None:
    """A render that changed nothing, and a failure that is known of this content: no event either."""
    room.run("render", 7, quiet=True)
    room.run("check", 7, fails="refused before", again=True)
    assert (room.lines(), room.events()) == ([], [])
    assert [name for name, _ in room.lines(logging.DEBUG)] == ["render", "check"]


def test_a_failure_that_repeats_is_told_ever_more_seldom_and_its_end_says_how_often(room: Room) -> None:
    for _ in range(1234):
        room.run("publish", 7, fails="full")
    room.run("publish", 7)
    assert [fields.get("times", 1) for _, fields in room.lines(logging.WARNING)] == [1, 10, 100, 1000]
    assert room.lines()[-1] == ("publish", {"pipeline": "app", "generation": 7, "outcome": "ok", "duration_ms": 0.0, "failures": 1234})
    room.run("publish", 8)
    assert "failures" not in room.lines()[-1][1]


def test_another_failure_of_the_same_stage_is_told(room: Room) -> None:
    for reason in ("full", "full", "read-only", "full"):
        room.run("publish", 7, fails=reason)
    assert [fields["reason"] for _, fields in room.lines()] == ["full", "read-only", "full"]


def test_a_quiet_success_after_failures_is_told(room: Room) -> None:
    room.run("render", 7, fails="undefined")
    room.run("render", 7, quiet=True)
    assert room.events() == [("render", 7, "ok", "", 2), ("render", 7, "failed", "undefined", 1)]


def test_a_failure_that_repeats_is_one_event_at_the_time_when_it_was_seen_last(room: Room) -> None:
    """Newest first: what fails still is above what happened meanwhile."""
    room.run("publish", 7, fails="full")
    room.run("find", 6, fails="absent")
    for number in (8, 9):
        room.clock.at += 60
        room.run("publish", number, fails="full")
    assert room.events() == [("publish", 9, "failed", "full", 3), ("find", 6, "failed", "absent", 1)]
    assert room.stages.events[0].at == room.clock.wall()


def test_the_last_ten_events_are_kept(room: Room) -> None:
    for number in range(1, KEPT + 4):
        room.run("publish", number, takes=0.5)
    assert [event[1] for event in room.events()] == list(range(KEPT + 3, 3, -1))
    assert {event.duration for event in room.stages.events} == {0.5}


def test_a_failure_that_fell_off_the_end_comes_back_with_its_count(room: Room) -> None:
    room.run("render", 1, fails="undefined")
    for number in range(KEPT):
        room.run("publish", number + 1)
    room.run("render", 1, fails="undefined")
    assert room.events()[0] == ("render", 1, "failed", "undefined", 2)
    assert len(room.events()) == KEPT


def test_what_is_no_stage_is_logged_and_kept_as_well(room: Room) -> None:
    room.stages.note("held by hand", 4)
    room.stages.note("closed", 0, level=logging.ERROR, outcome="failed", reason="source db: old")
    assert room.events() == [("closed", 0, "failed", "source db: old", 1), ("held by hand", 4, "ok", "", 1)]
    assert room.stages.events[0].duration is None
    assert room.lines() == [
        ("held by hand", {"pipeline": "app", "generation": 4}),
        ("closed", {"pipeline": "app", "generation": 0, "reason": "source db: old"}),
    ]


# Traces: what belongs to one change


def test_a_change_is_one_cycle_from_its_first_stage_to_the_end_of_its_delivery(room: Room) -> None:
    room.change(5)
    room.stages.rest(5, None)
    assert room.cycles == []
    room.clock.at += 3
    room.stages.succeeded("verify", 5, 3.0)
    room.stages.rest(5, "ok")
    [cycle] = room.cycles
    assert (cycle.pipeline, cycle.generation, cycle.outcome) == ("app", 5, "ok")
    assert (cycle.began, cycle.ended) == (6000.0, 6006.5)
    steps = [(step.name, step.began, step.ended, step.outcome) for step in cycle.steps]
    assert steps == [
        ("render", 6000.0, 6001.0, "ok"),
        ("publish", 6001.0, 6003.0, "ok"),
        ("reload", 6003.0, 6003.5, "ok"),
        ("verify", 6003.5, 6006.5, "ok"),
    ]


def test_a_look_that_changes_nothing_is_no_cycle(room: Room) -> None:
    """Also while an earlier change is being verified, whose trace goes on."""
    room.run("render", 6, quiet=True)
    room.run("record", 0, quiet=True)
    room.stages.rest(5, "ok")
    room.change(6)
    room.stages.rest(6, None)
    room.run("render", 7, quiet=True)
    room.stages.rest(6, None)
    room.stages.succeeded("verify", 6, 0.0)
    room.stages.rest(6, "ok")
    assert room.traced() == [(6, "ok", ["render", "publish", "reload", "verify"])]


def test_a_set_that_is_not_published_is_a_failed_cycle_beside_the_one_that_is_delivered(room: Room) -> None:
    room.change(5)
    room.stages.rest(5, None)
    room.run("render", 6, quiet=True)
    room.run("check", 6, fails="canary refused")
    room.stages.rest(5, None)
    room.stages.rest(5, "ok")
    assert room.traced() == [(6, "failed", ["render", "check"]), (5, "ok", ["render", "publish", "reload"])]
    assert room.cycles[0].steps[1].kind == "ValueError"
    assert "canary" not in str(room.cycles)


def test_a_failure_that_repeats_is_traced_once(room: Room) -> None:
    """As it is logged."""
    for _ in range(5):
        room.run("render", 6, fails="undefined")
        room.stages.rest(5, "ok")
    assert room.traced() == [(6, "failed", ["render"])]


def test_what_the_target_refuses_and_its_way_back_are_one_failed_cycle(room: Room) -> None:
    room.change(5)
    room.stages.rest(5, None)
    room.clock.at += 2
    room.stages.failed("verify", "no new worker", 5, seconds=2.0, kind="refused")
    room.run("rollback", 4)
    room.run("reload", 4)
    room.stages.rest(4, None)
    room.stages.succeeded("verify", 4, 0.0)
    room.stages.rest(4, "ok")
    [cycle] = room.cycles
    assert (cycle.generation, cycle.outcome) == (5, "failed")
    assert [(step.name, step.generation, step.outcome) for step in cycle.steps[3:]] == [
        ("verify", 5, "failed"),
        ("rollback", 4, "ok"),
        ("reload", 4, "ok"),
        ("verify", 4, "ok"),
    ]
    assert cycle.steps[3].kind == "refused"


def test_newer_content_ends_the_cycle_of_older(room: Room) -> None:
    room.change(5)
    room.stages.rest(5, None)
    room.change(6)
    room.stages.rest(6, "ok")
    assert [(number, outcome) for number, outcome, _ in room.traced()] == [(5, "superseded"), (6, "ok")]


def test_a_reload_that_stays_owed_is_handed_over_after_a_while_and_what_follows_is_a_cycle_of_its_own(room: Room) -> None:
    room.run("publish", 5)
    room.run("find", 5, fails=Held(Trouble.AMBIGUOUS, "two of them: canary"))
    room.stages.rest(5, None)
    room.clock.at += LONGEST
    room.stages.rest(5, None)
    assert room.traced() == [(5, "owed", ["publish", "find"])]
    assert (room.cycles[0].ended - room.cycles[0].began, room.cycles[0].steps[1].kind) == (LONGEST, "ambiguous")
    room.run("reload", 5)
    room.stages.rest(5, "ok")
    assert room.traced()[1:] == [(5, "ok", ["reload"])]


def test_a_failure_without_a_time_of_its_own_began_when_the_stage_before_it_ended(room: Room) -> None:
    room.run("publish", 5, takes=1.0)
    room.clock.at += 7
    room.stages.failed("find", "absent", 5)
    room.stages.rest(5, "failed")
    assert room.cycles[0].steps[1].ended - room.cycles[0].steps[1].began == 7


def test_what_is_under_way_at_the_end_is_handed_over(room: Room) -> None:
    room.change(5)
    room.stages.rest(5, None)
    room.stages.close()
    room.stages.close()
    assert [(number, outcome) for number, outcome, _ in room.traced()] == [(5, "owed")]


def test_a_mistake_of_ours_does_not_take_the_next_change_along(room: Room) -> None:
    """It cuts a cycle short, so that nobody says how that ended."""
    room.stages.failed("cycle", "internal error: KeyError", 0)
    room.change(5)
    room.stages.rest(5, "ok")
    assert room.traced() == [(5, "ok", ["cycle", "render", "publish", "reload"])]


def test_nothing_is_collected_where_nobody_wants_traces() -> None:
    stages = Stages("app", Metrics(Status(Clock()), "0"), Clock(), ())
    with stages.stage("publish", 1):
        pass
    stages.rest(1, "ok")
    stages.close()
    assert [event.stage for event in stages.events] == ["publish"]
