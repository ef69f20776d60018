"""What a volume remembers, and how it is read back."""

import json
from dataclasses import replace

import pytest

from reloader.record import Confirmation, Damaged, Generation, Record

FULL = Record(
    boot="one",
    last=7,
    published=7,
    generations={
        5: Generation(fingerprint="e", at=10.0, wall=100.0, confirmed=True),
        6: Generation(fingerprint="f", at=20.0, wall=110.0),
        7: Generation(fingerprint="g", at=30.25, wall=120.0, expires=500.0, certified=400.5, certified_from=300.5),
    },
    confirmed=Confirmation(number=5, instances=({"pid": 4, "started": 0.1, "boot": "one"},)),
    ages={"routes": 99.5},
)


def test_a_record_is_read_back_as_it_was_written() -> None:
    assert Record.from_json(FULL.to_json()) == FULL
    assert Record.from_json(Record(boot="b").to_json()) == Record(boot="b")


def test_a_record_from_before_ends_of_certificates_were_known_is_read() -> None:
    plain = json.loads(FULL.to_json())
    for known in plain["generations"].values():
        del known["certified"], known["certified_from"]
    read = Record.from_json(json.dumps(plain).encode()).generations[7]
    assert read == replace(FULL.generations[7], certified=None, certified_from=None)


@pytest.mark.parametrize(
    ("expires", "certified", "ended"), [(None, None, False), (9, 11, True), (11, 9, True), (11, 11, False), (10, None, True)]
)
def test_what_expires_first_ends_it(expires: float | None, certified: float | None, ended: bool) -> None:
    assert Generation(fingerprint="", expires=expires, certified=certified).has_expired(10) is ended


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"version": 1}',
        b'{"version": 1, "boot": "b", "last": "x"}',
        FULL.to_json()[:-40],
        b"[" * 100_000,
    ],
)
def test_what_is_not_a_record_is_damaged_and_not_quoted(data: bytes) -> None:
    with pytest.raises(Damaged, match=r"^it is not a record$"):
        Record.from_json(data)


def test_another_version_says_so() -> None:
    with pytest.raises(Damaged, match="another version"):
        Record.from_json(json.dumps({**json.loads(FULL.to_json()), "version": 2}).encode())


def test_the_same_boot_changes_nothing() -> None:
    assert FULL.enter_boot("one", 7) is FULL


def test_in_another_boot_what_was_published_was_so_before_every_process() -> None:
    """Also where a crash lost the time; the confirmation stays, and names the boot that it means."""
    crashed = FULL.stage(8, "h")
    entered = crashed.enter_boot("two", 8)

    assert entered.boot == "two"
    assert entered.published == 8
    assert {known.at for known in entered.generations.values()} == {0.0}
    assert entered.confirmed == FULL.confirmed
    assert entered.ages == FULL.ages


def test_confirming_marks_the_generation_and_names_the_instance() -> None:
    record = FULL.confirm(7, [{"pid": 9}])

    assert record.generations[7].confirmed
    assert record.confirmed == Confirmation(number=7, instances=({"pid": 9},))


@pytest.mark.parametrize(("keep", "before", "superfluous"), [(0, 1e9, [6]), (1, 1e9, []), (0, 30.0, []), (0, 30.5, [6])])
def test_superfluous_is_neither_published_nor_confirmed_nor_just_replaced(keep: int, before: float, superfluous: list[int]) -> None:
    """6 was replaced when 7 was published, at 30.25."""
    assert FULL.superfluous(published=7, keep=keep, before=before) == superfluous


def test_the_oldest_are_superfluous_first() -> None:
    record = Record(boot="b", generations={n: Generation(fingerprint="", at=float(n)) for n in range(1, 7)})

    assert sorted(record.superfluous(published=6, keep=2, before=1e9)) == [1, 2, 3]


def test_the_fallback_is_kept_and_gone_back_to_until_something_is_confirmed() -> None:
    numbers = range(1, 7)
    record = Record(boot="b", generations={n: Generation(fingerprint="", at=float(n), fallback=n == 2) for n in numbers})

    assert record.rollback_target(6) == 2
    assert record.rollback_target(2) is None
    assert sorted(record.superfluous(published=6, keep=2, before=1e9)) == [1, 3]
    confirmed = record.confirm(3, [])
    assert confirmed.rollback_target(6) == 3
    assert sorted(confirmed.superfluous(published=6, keep=2, before=1e9)) == [1, 2]


def test_a_fallback_that_was_only_staged_is_not_gone_back_to() -> None:
    assert Record(boot="b").stage(1, "x", fallback=True).rollback_target(2) is None


def test_what_was_never_published_is_not_superfluous() -> None:
    """It is being checked."""
    assert Record(boot="b").stage(1, "x").superfluous(published=None, keep=0, before=1e9) == []
