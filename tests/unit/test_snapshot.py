"""What flows: readings and failures, and the mailbox between threads."""

import os
import threading
from math import inf

from reloader.snapshot import Failure, FailureKind, Mailbox, Reading, Standing

DOWN = Failure(kind=FailureKind.UNREACHABLE, reason="refused", at=50.0)


def reading(value: object = "x", at: float = 1.0, **kwargs) -> Reading:
    return Reading(value=value, at=at, **kwargs)


def test_no_repr_shows_a_value():
    standing = Standing(reading=reading("hunter2"))
    mailbox = Mailbox(["a"])
    mailbox.put({"a": reading("hunter2")})

    assert "hunter2" not in repr(standing) + repr(mailbox.take()) + repr(reading("hunter2"))


def test_a_failure_keeps_the_last_reading_and_starts_its_age():
    standing = Standing(reading=reading()).after(DOWN)

    assert standing.reading is not None
    assert standing.age(60.0) == 10.0


def test_a_timed_out_read_ages_from_when_it_was_sent():
    late = Failure(kind=FailureKind.UNREACHABLE, reason="timed out", at=50.0, current_until=20.0)

    assert Standing(reading=reading()).after(late).age(60.0) == 40.0


def test_repeated_failures_do_not_make_it_younger():
    standing = Standing(reading=reading()).after(DOWN)
    later = Failure(kind=FailureKind.UNREACHABLE, reason="refused", at=90.0)

    assert standing.after(later).age(100.0) == 50.0


def test_a_watched_source_is_current():
    assert Standing(reading=reading(current_until=inf)).age(1e9) == 0.0


def test_a_polled_source_is_current_until_its_next_read_is_due():
    assert Standing(reading=reading(current_until=30.0)).age(29.0) == 0.0
    assert Standing(reading=reading(current_until=30.0)).age(45.0) == 15.0


def test_a_reading_that_says_the_same_is_no_change():
    mailbox = Mailbox(["a"])
    mailbox.put({"a": reading("x", at=1.0)})
    mailbox.taken(mailbox.take())

    mailbox.put({"a": reading("x", at=2.0)})

    assert mailbox.take().first_change is None
    assert mailbox.take().standings["a"].reading.at == 2.0


def test_what_came_in_while_a_snapshot_was_used_stays_a_change():
    mailbox = Mailbox(["a"])
    mailbox.put({"a": reading("x", at=1.0)})
    snapshot = mailbox.take()
    mailbox.put({"a": reading("y", at=2.0)})

    mailbox.taken(snapshot)

    assert mailbox.take().last_change == 2.0


def test_a_change_is_whole_only_if_every_part_was():
    mailbox = Mailbox(["a", "b"])
    mailbox.put({"a": reading(whole=True)})
    assert mailbox.take().whole

    mailbox.put({"b": reading(whole=False)})

    assert not mailbox.take().whole


def test_sources_that_never_spoke_are_missing():
    mailbox = Mailbox(["a", "b"])
    mailbox.put({"a": reading(), "b": DOWN})

    assert mailbox.take().missing == ("b",)


def test_a_name_that_is_not_waited_for_is_dropped():
    mailbox = Mailbox(["a"])
    mailbox.put({"stranger": reading()})

    assert set(mailbox.take().standings) == {"a"}


def test_waiting_ends_when_something_is_put():
    mailbox = Mailbox(["a"])
    threading.Timer(0.05, mailbox.put, [{"a": reading()}]).start()

    mailbox.wait(30.0)

    assert mailbox.take().missing == ()


def test_waiting_ends_when_a_descriptor_is_readable():
    """A pidfd becomes readable when its process ends; a pipe stands for it here."""
    mailbox = Mailbox(["a"])
    readable, writable = os.pipe()
    threading.Timer(0.05, os.write, [writable, b"x"]).start()

    mailbox.wait(30.0, [readable])

    os.close(readable)
    os.close(writable)


def test_a_wait_that_was_answered_waits_again():
    mailbox = Mailbox(["a"])
    mailbox.nudge()
    mailbox.wait(30.0)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (mailbox.wait(30.0), done.set()))
    thread.start()

    assert not done.wait(0.05)

    mailbox.nudge()
    thread.join(10)
    assert done.is_set()


def test_a_wait_may_be_as_long_as_anybody_likes():
    """The kernel takes 24 days at most."""
    mailbox = Mailbox(["a"])
    for seconds in (30 * 86400.0, inf):
        mailbox.nudge()
        mailbox.wait(seconds)
