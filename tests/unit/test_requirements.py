"""`requirements.txt`, which the image is built from, fits `pyproject.toml` and can be checked by its hashes."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DIRECT = [Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]
LINES = re.sub(r"\\\n", "", re.sub(r"^\s*#.*\n", "", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)).splitlines()
PINS = {canonicalize_name(line.split("==")[0]): line.split("==")[1].split()[0] for line in LINES}


def test_every_dependency_is_pinned_within_its_range():
    """Each direct dependency has a pin, and the range in `pyproject.toml` allows it."""
    assert [wanted for wanted in DIRECT if PINS.get(canonicalize_name(wanted.name), "0") not in wanted.specifier] == []


def test_every_pin_has_a_hash_and_no_line_names_an_index():
    """Each line is one exact version with at least one hash; where it comes from is for the machine that installs it."""
    assert [line for line in LINES if not re.fullmatch(r"[\w.-]+==\S+( ;[^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+", line)] == []
