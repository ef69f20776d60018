"""The page that lists the rows names every test of this package, and none that does not exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/conformance.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## .+?`(tests/[\w/]+\.py)`(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("path", "section"), SECTIONS, ids=lambda value: Path(value).stem if value.startswith("tests/") else "")
def test_the_page_names_what_there_is(path: str, section: str):
    there = re.findall(r"^def (test_\w+)", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    named = set(re.findall(r"`(test_\w+)`", section))
    assert named == set(there) if path.startswith("tests/conformance/") else named <= set(there)


def test_no_file_is_left_out():
    here = {path.relative_to(ROOT).as_posix() for path in Path(__file__).parent.glob("test_*.py")} - {"tests/conformance/test_table.py"}
    assert here <= {path for path, _ in SECTIONS}
