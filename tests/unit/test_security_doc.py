"""The threat model names tests that there are."""

import re

import pytest

from tests.unit.test_docs import ROOT, defined_in

SECTIONS = re.split(r"^## ", (ROOT / "docs/security.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
DEFENDED = [each for each in SECTIONS if "**Not defended.**" in each]


@pytest.mark.parametrize("section", DEFENDED, ids=lambda section: section.splitlines()[0])
def test_what_is_defended_names_the_tests_that_attack_it(section: str):
    named = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", section)
    assert len(named) >= 3
    assert [f"{path}::{test}" for path, test in named if test not in defined_in(ROOT / path)] == []


def test_each_kind_of_attack_says_what_is_left():
    assert len(DEFENDED) >= 6
