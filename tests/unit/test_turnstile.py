"""Turns at one process."""

import pytest

from reloader.pipeline.turnstile import Turnstile
from reloader.targets import Instance

ONE, OTHER = Instance(pid=4, started=1.0, boot="b"), Instance(pid=5, started=1.0, boot="b")


@pytest.fixture
def turnstile():
    turnstile = Turnstile()
    for name in ("a", "b"):
        turnstile.enter(name)
    return turnstile


def never() -> None:
    raise AssertionError("woken")


def test_one_at_a_time(turnstile):
    woken = []
    assert turnstile.take("a", [ONE], never)
    assert not turnstile.take("b", [ONE], lambda: woken.append("b"))

    turnstile.give("a")

    assert woken == ["b"]
    assert turnstile.take("b", [ONE], never)


def test_a_turn_is_kept_until_it_is_given(turnstile):
    assert turnstile.take("a", [ONE], never)
    assert turnstile.take("a", [ONE], never)
    assert not turnstile.take("b", [ONE, OTHER], lambda: None)


def test_other_processes_are_free(turnstile):
    assert turnstile.take("a", [ONE], never)
    assert turnstile.take("b", [OTHER], never)


def test_a_target_without_a_process_needs_no_turn(turnstile):
    assert turnstile.take("a", [Instance()], never)
    assert turnstile.take("b", [Instance()], never)


def test_leaving_gives_the_turn_and_waits_no_more(turnstile):
    woken = []
    turnstile.take("a", [ONE], never)
    turnstile.take("b", [ONE], lambda: woken.append("b"))
    turnstile.leave("a")
    assert woken == ["b"]
    assert not turnstile.is_shared

    turnstile.enter("a")
    turnstile.take("b", [ONE], never)
    turnstile.take("a", [ONE], never)
    turnstile.leave("a")
    turnstile.give("b")


def test_a_pipeline_alone_has_nobody_to_wait_for():
    turnstile = Turnstile()
    turnstile.enter("a")

    assert not turnstile.is_shared
