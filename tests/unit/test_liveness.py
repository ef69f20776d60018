"""Who is late, and who only had no time to report: deterministic, by a clock that the test sets."""

from collections.abc import Iterator

from reloader.backends.reads import Heartbeat
from reloader.liveness import PATIENCE, Liveness
from reloader.world.clock import Clock


class Stepped(Clock):
    """Stands still until it is set."""

    time, slept = 1000.0, 0.0

    def now(self) -> float:
        return self.time

    def suspended(self) -> float:
        return self.slept


class House:
    def __init__(self) -> None:
        self.clock = Stepped()
        self.due = {"one": 1060.0, "two": 1100.0}
        self.liveness = Liveness(self.clock, self._beats)

    def _beats(self) -> Iterator[Heartbeat]:
        return (Heartbeat(name, due) for name, due in self.due.items())

    def pass_(self, seconds: float, *, slept: float = 0.0) -> tuple[str, ...]:
        self.clock.time += seconds
        self.clock.slept += slept
        return self.liveness.stuck()


def test_who_reports_in_time_is_alive() -> None:
    assert House().pass_(59.0) == ()


def test_who_is_late_is_stuck_once_that_is_known_for_a_moment() -> None:
    house = House()
    assert house.pass_(61.0) == ()
    assert house.pass_(PATIENCE) == ("one",)
    assert house.pass_(60.0) == ("one",)
    assert house.pass_(PATIENCE) == ("one", "two")


def test_who_reports_again_is_alive() -> None:
    house = House()
    house.pass_(61.0)
    assert house.pass_(PATIENCE) == ("one",)
    house.due["one"] = 2000.0
    assert house.pass_(0.0) == ()


def test_after_sigcont_everybody_is_late_for_a_moment_and_nobody_stuck() -> None:
    """A process that was stopped for an hour: all of them report as soon as they run."""
    house = House()
    assert house.pass_(3600.0) == ()
    house.due = dict.fromkeys(house.due, house.clock.time + 60)
    assert house.pass_(PATIENCE) == ()


def test_a_thread_that_is_late_again_and_again_is_given_its_moment_each_time() -> None:
    """What was late and reported since is not counted on."""
    house = House()
    house.pass_(61.0)
    house.due["one"] = house.clock.time + 1.0
    assert house.pass_(PATIENCE + 0.5) == ()


def test_hours_of_suspension_make_nobody_late() -> None:
    house = House()
    assert house.pass_(36_000.0, slept=36_000.0) == ()
    assert house.pass_(30.0) == ()
    house.pass_(31.0)
    assert house.pass_(PATIENCE) == ("one",)


def test_the_clock_of_the_machine_knows_what_it_slept() -> None:
    """Here it has not, or not since the clocks began: both clocks go on alike."""
    clock = Clock()
    before = clock.suspended()
    assert abs(clock.suspended() - before) < 1.0
    assert abs(clock.awake() + before - clock.now()) < 1.0
