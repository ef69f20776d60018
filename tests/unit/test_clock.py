"""Times of files, as times of the boot clock, on a machine whose wall clock is set."""

import pytest

from reloader.world.clock import Clock


class Set(Clock):
    """Clocks that stand where a test put them."""

    boot_clock, wall_clock = 1000.0, 5000.0

    def now(self) -> float:
        return self.boot_clock

    def wall(self) -> float:
        return self.wall_clock


@pytest.fixture
def clock() -> Set:
    return Set()


def test_a_time_of_a_file_is_a_time_of_the_boot_clock(clock: Set) -> None:
    clock.boot_clock, clock.wall_clock = 1100.0, 5100.0

    assert clock.dated(5040.0) == 1040.0


def test_what_is_later_than_now_is_now(clock: Set) -> None:
    assert clock.dated(6000.0) == 1000.0


def test_a_file_from_before_the_clock_was_set_forward_keeps_its_time(clock: Set) -> None:
    clock.boot_clock, clock.wall_clock = 1100.0, 8700.0

    assert clock.dated(4990.0) == 990.0


def test_a_file_from_before_the_clock_was_set_back_counts_as_new(clock: Set) -> None:
    """Nobody can tell how old it is; when it was is not known any better than that."""
    clock.boot_clock, clock.wall_clock = 1100.0, 1500.0

    assert clock.dated(4990.0) == 1100.0
    assert clock.dated(1450.0) == 1050.0


def test_how_the_clocks_stood_before_this_run_counts(clock: Set) -> None:
    """Set forward by an hour since."""
    clock.learn([(500.0, 900.0), (600.0, 4600.0)])

    assert clock.dated(1200.0) == 800.0
