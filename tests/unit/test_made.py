"""Of which readings a set was made, and until when it holds."""

from reloader.pipeline.made import Made
from reloader.snapshot import Reading, Snapshot, Standing


def snapshot(**readings: Reading) -> Snapshot:
    return Snapshot(standings={name: Standing(reading=reading) for name, reading in readings.items()})


def test_a_set_is_made_of_the_newest_reading_of_each_source_but_of_none_that_is_held():
    made, now = Made(), snapshot(db=Reading(value="new", at=5.0), routes=Reading(value="bad", at=6.0))
    made.note(1, {"db": "new", "routes": "good"}, now, {1})

    assert made.at(1) == {"db": 5.0}


def test_a_held_source_keeps_the_reading_that_the_set_was_made_of():
    made = Made()
    made.note(1, {"routes": "good"}, snapshot(routes=Reading(value="good", at=1.0)), {1})
    made.note(1, {"routes": "good"}, snapshot(routes=Reading(value="bad", at=2.0)), {1})

    assert made.at(1) == {"routes": 1.0}


def test_sets_that_nobody_needs_are_forgotten():
    made, now = Made(), snapshot(db=Reading(value="a", at=1.0))
    for number in range(1, 4):
        made.note(number, {"db": "a"}, now, {number, 1})

    assert [bool(made.at(number)) for number in range(1, 4)] == [True, False, True]


def test_a_set_holds_until_the_first_of_its_readings_ends_and_longer_when_that_is_renewed():
    made = Made()
    first = snapshot(db=Reading(value="a", at=1.0, expires=10.0), tls=Reading(value="b", at=1.0, expires=30.0))
    made.note(1, {"db": "a", "tls": "b"}, first, {1})
    assert made.follow(first) == {1: 10.0}
    renewed = snapshot(db=Reading(value="a", at=1.0, expires=20.0), tls=Reading(value="b", at=1.0, expires=30.0))
    assert made.follow(renewed) == {1: 20.0}


def test_a_reading_that_was_replaced_does_not_prolong_the_set_that_was_made_of_it():
    made = Made()
    made.note(1, {"db": "a"}, snapshot(db=Reading(value="a", at=1.0, expires=10.0)), {1})

    assert made.follow(snapshot(db=Reading(value="b", at=9.0, expires=99.0))) == {1: 10.0}


def test_what_does_not_end_has_no_end():
    made, now = Made(), snapshot(db=Reading(value="a", at=1.0))
    made.note(1, {"db": "a"}, now, {1})

    assert made.follow(now) == {}
