"""A pipeline without a volume."""

import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reloader.record import Record
from reloader.volume import Mounted, VolumeLocked
from reloader.world import World
from tests import volumes


@pytest.fixture
def mounted() -> Mounted:
    """Nothing adopted yet."""
    return Mounted(World())


def test_content_is_published_when_it_changed(mounted: Mounted) -> None:
    published = mounted.adopt("a", 12.5)

    assert mounted.published == published
    assert (published.number, published.fingerprint, published.at) == (1, "a", 12.5)
    assert mounted.adopt("b", 13.5).number == 2 < mounted.next_number()


@pytest.mark.parametrize("changed", [None, 1e12])
def test_content_whose_change_is_unknown_or_to_come_is_published_now(mounted: Mounted, changed: float | None) -> None:
    before = volumes.os_time()

    assert before <= mounted.adopt("a", changed).at <= volumes.os_time()


def test_a_confirmation_is_of_one_content_by_one_instance(mounted: Mounted) -> None:
    mounted.adopt("a", None)
    mounted.confirm(1, [{"pid": 4}])

    assert mounted.confirmed_by(1, {"pid": 4})
    assert not mounted.confirmed_by(1, {"pid": 5})
    assert not mounted.confirmed_by(2, {"pid": 4})
    assert mounted.last_confirmed == 1


def test_fingerprints_tell_plain_data_apart(mounted: Mounted) -> None:
    values = [
        {"a": "1"},
        {"a": 1},
        {"a": b"1"},
        {"a": True},
        {"a": ["1"]},
        {"a": [["1"]]},
        {"a": {"1": None}},
        {"a": "1", "b": ""},
        {"a": ["1", "b"]},
    ]

    assert len({mounted.fingerprint(value) for value in values}) == len(values)
    assert mounted.fingerprint({"a": 1, "b": 2}) == mounted.fingerprint({"b": 2, "a": 1})
    assert mounted.fingerprint({}) != Mounted(World()).fingerprint({})


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Callable[[], Mounted]]:
    """Begins another run on the same record, and ends the one before."""
    runs: list[Mounted] = []

    def begin() -> Mounted:
        for run in runs:
            run.close()
        runs.append(Mounted(World(), tmp_path / "state" / "pipelines" / "app"))
        runs[-1].open()
        return runs[-1]

    yield begin
    runs[-1].close()


def test_the_next_run_knows_what_is_published_and_confirmed(kept: Callable[[], Mounted]) -> None:
    first = kept()
    published = first.adopt(first.fingerprint({"a": 1}), 12.5)
    first.confirm(1, [{"pid": 4}])

    second = kept()

    assert second.published == published
    assert second.fingerprint({"a": 1}) == published.fingerprint
    assert second.confirmed_by(1, {"pid": 4})


def test_the_record_is_private_and_one_run_at_a_time_has_it(kept: Callable[[], Mounted], tmp_path: Path) -> None:
    kept()

    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").rglob("*") if path.is_dir()] == [0o700, 0o700]
    with pytest.raises(VolumeLocked):
        Mounted(World(), tmp_path / "state" / "pipelines" / "app").open()


def test_the_same_content_since_later_is_published_later_and_stays_confirmed(kept: Callable[[], Mounted]) -> None:
    """Another content may have been there in between, and a target that started then has read that."""
    first = kept()
    first.adopt("a", 12.5)
    first.confirm(1, [{"pid": 4}])
    second = kept()

    second.meet_again(15.0)

    assert second.published is not None
    assert (second.published.number, second.published.at) == (1, 15.0)
    assert second.confirmed_by(1, {"pid": 4})


def test_what_cannot_tell_when_it_changed_is_published_when_it_is_met_again(kept: Callable[[], Mounted]) -> None:
    kept().adopt("a", 12.5)
    before = volumes.os_time()
    second = kept()

    second.meet_again(None)
    at = second.published and second.published.at
    second.meet_again(None)

    assert at is not None
    assert at >= before
    assert second.published is not None
    assert second.published.at == at


def test_another_boot_publishes_at_its_start(kept: Callable[[], Mounted], tmp_path: Path) -> None:
    kept().adopt("a", 12.5)
    file = tmp_path / "state" / "pipelines" / "app" / "record.json"
    file.write_bytes(replace(Record.from_json(file.read_bytes()), boot="another").to_json())

    published = kept().published

    assert published is not None
    assert (published.number, published.at) == (1, 0.0)


def test_a_record_that_cannot_be_written_is_said_and_written_later(kept: Callable[[], Mounted], tmp_path: Path) -> None:
    run = kept()
    home = tmp_path / "state" / "pipelines" / "app"
    (home / "record.json.tmp").mkdir()
    run.adopt("a", 12.5)
    assert run.unsaved
    (home / "record.json.tmp").rmdir()

    run.confirm(1, [{"pid": 4}])

    assert run.unsaved is None
    assert kept().confirmed_by(1, {"pid": 4})
