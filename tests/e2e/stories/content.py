"""What would be published is refused, the first of all or a later one; or a person holds an earlier one."""

from itertools import count

from tests.e2e.failing import House, Moment
from tests.e2e.scenes import (
    BY_HAND,
    FALLBACK,
    FALLBACK_REFUSED,
    REFUSED_FIRST,
    REJECTED,
    STARTING,
    WELL,
    Cases,
    Scene,
    Story,
    refuse_by_check,
)
from tests.e2e.sidecar import reloader
from tests.e2e.stories.sources import directory_missing
from tests.waiting import eventually

CASES = Cases()


@CASES.case(REFUSED_FIRST, STARTING)
def the_check_refuses_the_first_set(scene: Scene) -> Story:
    house = scene.house
    refuse_by_check(house)
    house.fail(startup_grace="4s")
    house.say("bad")
    house.application.start()
    house.start()
    yield Moment(STARTING, ("nothing is published yet", "grep"), target="nothing", started=False)
    yield Moment(REFUSED_FIRST, ("grep",), target="nothing", started=False)


@CASES.case(REFUSED_FIRST, STARTING)
def the_target_refuses_the_first_set(scene: Scene) -> Story:
    """It is withdrawn again."""
    house = scene.house
    house.fail(startup_grace="4s")
    house.say("refuse")
    house.application.start()
    house.start()
    yield Moment(STARTING, ("nothing is published yet", "no new workers"), target="nothing")
    yield Moment(REFUSED_FIRST, ("no new workers",), target="nothing")


@CASES.case(FALLBACK)
def a_fallback(scene: Scene) -> Story:
    """One that an `open` run published closes a `closed` one."""
    failing = directory_missing(scene)
    failing.fail()
    fall_back(scene)
    yield Moment(FALLBACK, ("failure.fallback is published",), volume="fallback")
    failing.mend()


def fall_back(scene: Scene) -> None:
    """Let the fallback be published, and taken by the target; then let the mode be that of the scene."""
    house = scene.house
    house.have_fallback()
    house.fail(mode="open", startup_grace="1s")
    house.application.start()
    house.start()
    eventually(lambda: house.reads() == house.application.runs_on() == "fallback", what="the fallback")
    eventually(lambda: house.sidecar.pipeline()["fallback"] and house.sidecar.pipeline()["owed"] is None, what="its confirmation")
    if not scene.is_open:
        house.sidecar.stop()
        house.fail(mode="closed")
        house.start()


@CASES.case(FALLBACK_REFUSED, varies=True)
def a_fallback_where_the_check_refused_the_first_set(scene: Scene) -> Story:
    refuse_by_check(scene.house)
    scene.house.say("bad")
    fall_back(scene)
    yield Moment(
        FALLBACK_REFUSED,
        ("failure.fallback is published, because the first set was refused", "check" if scene.is_open else "the check refused it before"),
        volume="fallback",
    )


@CASES.case(FALLBACK_REFUSED, varies=True)
def a_fallback_where_the_target_refused_the_first_set(scene: Scene) -> Story:
    scene.house.say("refuse")
    fall_back(scene)
    yield Moment(FALLBACK_REFUSED, ("failure.fallback is published, because the first set was refused",), volume="fallback")


@CASES.case(REJECTED)
def rendering_rejects(scene: Scene) -> Story:
    house = scene.house
    house.fail(max_staleness="3s")
    house.begin()
    house.mounted.swap({"other": "x"})
    yield Moment(REJECTED, ("rejected: ", "app.conf"), volume="one")
    yield Moment(REJECTED, ("rejected: ", "app.conf"), volume="one", lasts=True)


@CASES.case(REJECTED)
def the_check_rejects(scene: Scene) -> Story:
    """Content after content: what waits has waited since the first."""
    house = scene.house
    refuse_by_check(house)
    house.fail(max_staleness="3s")
    house.begin()
    house.say("bad")
    yield Moment(REJECTED, ("rejected: ", "grep"), volume="one")
    says = (f"bad {number}" for number in count())
    eventually(lambda: house.say(next(says)) or house.sidecar.metric("reloader_closed") or scene.is_open, every=0.2, what="it to close")
    yield Moment(REJECTED, ("rejected: ", "grep"), volume="one", lasts=True)


@CASES.case(BY_HAND, WELL)
def a_generation_that_is_held(scene: Scene) -> Story:
    house = scene.house
    house.begin()
    house.say("two")
    yield Moment(WELL, volume="two")
    by_hand(house, "rollback")
    yield Moment(BY_HAND, ("was put back by hand, and is held",), volume="one")
    by_hand(house, "resume")


def by_hand(house: House, command: str) -> None:
    done = reloader(command, "--config", house.file)
    assert done.returncode == 0, done.stderr
