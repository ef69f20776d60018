"""How messages say things that several of them say."""

import pytest

from reloader.words import counted


@pytest.mark.parametrize(("number", "told"), [(0, "0 items"), (1, "1 item"), (2, "2 items")])
def test_a_count_has_its_noun_in_its_number(number: int, told: str):
    assert counted(number, "item") == told
