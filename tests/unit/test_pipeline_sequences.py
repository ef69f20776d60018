"""Random courses of events through a real pipeline on a real volume, in virtual time: what it tells and serves is what it may."""

import logging
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings, strategies as st
from hypothesis.stateful import run_state_machine_as_test

from tests.scale import SEED, rounds
from tests.unit.events import KINDS_OF_EVENTS, Events, Setup, setups

COURSES, STEPS = rounds(100, 1000), 30
TWINS = rounds(40, 500)

HOW = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(rounds(900, 7200))  # what fails is shrunk for 5 min at most
def test_no_course_of_events_leads_out_of_the_failure_table():
    """Sources, clocks, disks, restarts, the application and people do what they want; afterwards it always heals."""
    run_state_machine_as_test(seed(SEED)(Events), settings=settings(max_examples=COURSES, stateful_step_count=STEPS, **HOW))


BY_WALL_CLOCK = ("the_machine_reboots", "the_wall_clock_is_set")
"""What ages continue over by the wall clock, and its steps."""


BY_CALLS = ("the_sidecar_is_killed_amid_its_next_changes", "a_change_of_the_disk_will_fail_once")
"""Come at a call of the disk by its number; after a step of the wall clock the ages are written down once more, which moves it."""


def events() -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    names = st.sampled_from([name for name in KINDS_OF_EVENTS if name not in {*BY_WALL_CLOCK, *BY_CALLS}])
    return names.flatmap(lambda name: st.tuples(st.just(name), st.fixed_dictionaries(KINDS_OF_EVENTS[name])))


STEPS_OF_THE_WALL_CLOCK = KINDS_OF_EVENTS["the_wall_clock_is_set"]["seconds"]


@pytest.mark.timeout(rounds(900, 7200))  # what fails is shrunk for 5 min at most
def test_steps_of_the_wall_clock_change_nothing():
    """Two pipelines live through the same, but for the wall clock of one; within a boot nobody can tell them apart.

    Leases and the retries of refused content go on by the wall clock when the sidecar restarts, so there are none here.
    """

    @seed(SEED)
    @settings(max_examples=TWINS, **HOW)
    @given(setups(leases=(None,), retries=(inf,)), st.lists(st.tuples(events(), STEPS_OF_THE_WALL_CLOCK), min_size=5, max_size=25))
    def holds(setup: Setup, course: list[tuple[tuple[str, dict[str, Any]], float]]) -> None:
        steady, stepped = Events(), Events()
        try:
            for twin in (steady, stepped):
                twin.begin(setup)
            for (name, given_), seconds in course:
                stepped.machine.ahead += seconds
                for twin in (steady, stepped):
                    getattr(twin, name)(**given_)
                before, after = alike(steady, stepped)
                assert before == after, f"{before} but with steps {after}"
        finally:
            for twin in (steady, stepped):
                twin.end()

    holds()


def alike(*twins: Events) -> list[dict[str, Any]]:
    """Return what anybody but a clock can see of each.

    After a step the ages are written down anew, so that one of them may notice sooner that the disk is full; that is left out.
    """
    each = [seen(twin) for twin in twins]
    unwritten = [[reason for reason in one["why"] if "/record.json" in reason] for one in each]
    for one, reasons in zip(each, unwritten, strict=True):
        one["why"] = [reason for reason in one["why"] if reason not in reasons]
        if any(unwritten):
            del one["degraded"]
    return each


def seen(pod: Events) -> dict[str, Any]:
    """Return what can be seen of one."""
    assert pod.sidecar is not None
    report, app = pod.sidecar.report, pod.app
    return {
        "served": pod.served,
        "told": (report.ready, report.closed, report.closed_by, report.owed, report.published, report.confirmed),
        "degraded": report.degraded,
        "why": [reason.replace(str(pod.folder), "FOLDER") for reason in report.reasons],
        "application": (app.reads, app.asked, app.stops),
    }
