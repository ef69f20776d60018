"""A pipeline without a volume."""

import pytest

from reloader.volume import Mounted
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
