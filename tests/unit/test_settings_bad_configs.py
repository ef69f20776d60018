"""Every bad configuration is refused with all its mistakes, each at its place, and no value is ever told."""

import pytest

from reloader import settings
from tests.bad_configs import CANARY, BadConfig, bad_configs

BAD = pytest.mark.parametrize("bad", bad_configs(), ids=lambda bad: bad.path.stem)


def said_of(bad: BadConfig) -> str:
    with pytest.raises(settings.ConfigurationInvalid) as refused:
        settings.load([bad.path], {})
    return str(refused.value)


@BAD
def test_all_mistakes_are_told_and_no_others(bad):
    assert bad.expected
    assert bad.unexpected(said_of(bad).splitlines()[1:]) == ([], [])


@BAD
def test_no_secret_is_told(bad):
    assert CANARY not in said_of(bad)


def test_there_are_enough_of_them_and_some_hold_a_secret():
    texts = [bad.path.read_text(encoding="utf-8") for bad in bad_configs()]
    assert len(texts) >= 25
    assert sum(CANARY in text for text in texts) >= 4


def test_the_mistakes_of_all_files_are_told_at_once():
    first, second = bad_configs()[0], bad_configs()[-1]
    with pytest.raises(settings.ConfigurationInvalid) as refused:
        settings.load([first.path, second.path], {})
    told = {mistake.where.partition(":")[0] for mistake in refused.value.mistakes}
    assert told == {str(first.path), str(second.path)}


def test_an_expectation_that_is_not_met_and_a_mistake_that_is_not_expected_are_both_noticed():
    bad = bad_configs()[0]
    assert bad.unexpected(["other"]) == (list(bad.expected), ["other"])
