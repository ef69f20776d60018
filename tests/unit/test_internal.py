"""A mistake of ours is told by its kind and its line, and never by its text."""

import json
from collections.abc import Callable
from typing import Any

from reloader.internal import told
from reloader.written import parse_regex
from tests.bad_configs import CANARY


def raised(call: Callable[[str], Any], argument: str) -> Exception:
    """Return what a call raises."""
    try:
        call(argument)
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


def test_the_innermost_line_of_ours_is_told_and_no_value() -> None:
    said = told(raised(parse_regex, f"{CANARY}("))
    assert said.startswith("internal error: ValueError in written.py:")
    assert CANARY not in said


def test_a_mistake_elsewhere_is_told_by_its_kind() -> None:
    assert told(raised(json.loads, CANARY)) == "internal error: JSONDecodeError"
