"""The files that the image is built from fit `pyproject.toml`, and what they name can be checked by its hashes."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = {"requirements.txt": PROJECT["project"]["dependencies"], "requirements-build.txt": PROJECT["build-system"]["requires"]}


def lines(file: str) -> list[str]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / file).read_text(), flags=re.MULTILINE)
    return re.sub(r"\\\n", "", text).splitlines()


def pinned(file: str) -> Iterator[Requirement]:
    return (Requirement(line.split(" --hash")[0]) for line in lines(file))


def pins(where: Mapping[str, str]) -> dict[str, str]:
    """Return the version of each package that is installed on a machine such as this one, but for what differs `where` that is."""
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pinned("requirements.txt")
        if pin.marker is None or pin.marker.evaluate(dict(where))
    }


@pytest.mark.parametrize("file", WANTED)
def test_every_dependency_is_pinned_within_its_range(file: str):
    """Each direct dependency has a pin, and the range in `pyproject.toml` allows it."""
    pins = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pinned(file)}

    assert [text for text in WANTED[file] if not allows(Requirement(text), pins)] == []


def allows(wanted: Requirement, pins: dict[str, str]) -> bool:
    return pins.get(canonicalize_name(wanted.name), "none") in wanted.specifier


@pytest.mark.parametrize("file", WANTED)
def test_every_pin_has_a_hash_and_no_line_names_an_index(file: str):
    """Each line is one exact version with at least one hash; where it comes from is for the machine that installs it."""
    assert [line for line in lines(file) if not re.fullmatch(r"[\w.-]+==\S+( ;[^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+", line)] == []


def test_what_builds_the_image_is_what_builds_the_package():
    """The file that the versions are looked up for says what `pyproject.toml` says."""
    assert lines("requirements-build.in") == WANTED["requirements-build.txt"]
