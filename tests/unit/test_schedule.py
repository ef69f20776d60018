"""The schedule alone: bounds that hold for every time and every random number."""

import random
from math import inf

from hypothesis import given, strategies as st

from reloader.schedule import (
    ANSWER_INTERVAL,
    BLOCKING_WAIT,
    RESUMED_PER_SECOND,
    RESUMED_WITHIN,
    SUCCESSION,
    TURN_CYCLE,
    Backoff,
    Pace,
    after_outage,
    first_poll,
    last_renewal,
    next_poll,
    reissue,
    renewal,
    rotation,
    round_of_turns,
    splay,
    succession,
    turn,
)

SEEDS = st.integers(0, 2**32)
TIMES = st.floats(0, 1e7)


@given(st.integers(1, 10_000), SEEDS)
def test_a_retry_comes_neither_sooner_nor_later_than_its_bounds(failures, seed):
    backoff = Backoff()

    delay = backoff.delay(failures, random.Random(seed))

    assert backoff.floor(failures) <= delay <= backoff.ceiling(failures) <= backoff.cap


def test_backoff_grows_to_its_cap():
    backoff = Backoff(base=0.5, cap=60.0)

    assert [backoff.ceiling(failures) for failures in range(1, 10)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_what_is_polled_rarely_is_retried_rarely():
    assert Backoff().patient(0.0) == Backoff().patient(24.0) == Backoff()
    assert Backoff().patient(300.0) == Backoff(base=6.25, cap=750.0)


@given(TIMES, st.floats(0.01, 1e6), SEEDS)
def test_a_poll_is_a_tenth_early_or_late(now, interval, seed):
    wait = next_poll(now, interval, random.Random(seed)) - now

    assert 0.89 * interval <= wait <= 1.11 * interval


@given(TIMES, st.floats(0.01, 1e6), SEEDS)
def test_a_second_read_comes_anywhere_in_the_interval(now, interval, seed):
    assert now <= first_poll(now, interval, random.Random(seed)) <= now + interval


@given(TIMES, st.floats(1, 1e7), SEEDS)
def test_an_issue_is_repeated_between_85_and_95_percent_of_its_lifetime(now, lifetime, seed):
    wait = reissue(now, lifetime, random.Random(seed)) - now

    assert 0.849 * lifetime <= wait <= 0.951 * lifetime


@given(TIMES, st.integers(1, 10_000), SEEDS)
def test_what_waited_for_a_server_is_done_promptly_and_spread(now, reads, seed):
    wait = after_outage(now, reads, random.Random(seed)) - now

    assert -1e-6 <= wait <= min(RESUMED_WITHIN, (reads - 1) / RESUMED_PER_SECOND) + 1e-6


@given(TIMES, st.floats(1, 1e7), SEEDS)
def test_a_lease_is_renewed_at_about_two_thirds(now, left, seed):
    wait = renewal(now, left, random.Random(seed)) - now

    assert 0.599 * left <= wait <= 0.701 * left


@given(TIMES, st.floats(1, 1e6), st.floats(0, 1), SEEDS)
def test_a_lease_that_grows_no_more_is_issued_anew_while_it_lives(now, term, share, seed):
    left = share * term
    wait = last_renewal(now, left, term, random.Random(seed)) - now

    assert max(0.0, left - 0.151 * term) - 1e-6 <= wait <= max(0.0, left - 0.049 * term) + 1e-6


@given(TIMES, st.floats(0, 1e6), SEEDS)
def test_what_hangs_on_a_token_is_had_anew_in_the_first_half_of_what_is_left_of_it(now, left, seed):
    assert now <= succession(now, left, random.Random(seed)) <= now + left / 2 + 1e-6


@given(TIMES, SEEDS)
def test_what_hangs_on_a_token_is_had_anew_soon_where_its_end_is_not_known(now, seed):
    assert now <= succession(now, inf, random.Random(seed)) <= now + SUCCESSION + 1e-6


def test_a_token_that_has_ended_is_succeeded_now():
    assert succession(5.0, -3.0, random.Random(0)) == 5.0


def test_a_rotated_value_is_read_once_it_is_surely_rotated():
    assert rotation(5.0, 30.0) == 36.0


def test_a_lifetime_that_is_over_is_due_now():
    assert reissue(5.0, -3.0, random.Random(0)) == 5.0


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_every_read_has_its_turn_within_a_cycle(reads, connections):
    hold = turn(reads, connections)

    if reads <= connections:
        assert hold == BLOCKING_WAIT
    else:
        assert hold * -(-reads // connections) <= TURN_CYCLE + 1e-6 or hold == ANSWER_INTERVAL


def test_many_reads_are_slow_rather_than_a_storm():
    """Two thousand on four connections: 40 requests a second, and a minute until each had its turn."""
    assert turn(2000, 4) == ANSWER_INTERVAL
    assert round_of_turns(2000, 4) == 500 * ANSWER_INTERVAL * 17 / 16
    assert round_of_turns(5, 4) == TURN_CYCLE * 17 / 16
    assert round_of_turns(4, 4) == BLOCKING_WAIT * 17 / 16


@given(TIMES, st.floats(0, 100), SEEDS)
def test_a_splay_is_never_early_and_never_longer_than_asked(now, longest, seed):
    assert now <= splay(now, longest, random.Random(seed)) <= now + longest


def test_nothing_changed_is_never_due():
    assert Pace().due(None, None, whole=True, last_reload=None) == inf


def test_a_whole_change_needs_no_quiet_time():
    assert Pace(settle=5.0).due(10.0, 10.0, whole=True, last_reload=None) == 10.0


def test_a_change_in_pieces_waits_for_quiet_but_not_for_ever():
    pace = Pace(settle=0.1, settle_max=2.0)

    assert pace.due(10.0, 10.5, whole=False, last_reload=None) == 10.6
    assert pace.due(10.0, 11.99, whole=False, last_reload=None) == 12.0


def test_the_first_acts_at_once_and_later_ones_are_deferred():
    pace = Pace(min_interval=1.0)

    assert pace.due(10.0, 10.0, whole=True, last_reload=None) == 10.0
    assert pace.due(10.2, 10.2, whole=True, last_reload=10.0) == 11.0
    assert pace.due(20.0, 20.0, whole=True, last_reload=10.0) == 20.0
