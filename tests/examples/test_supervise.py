"""A program that the sidecar runs itself."""

from pathlib import Path

import pytest

from tests.examples.laptop import Laptop
from tests.waiting import eventually

pytestmark = pytest.mark.servers


def test_the_sidecar_runs_the_program(tmp_path: Path):
    """Each answer of the README comes, nothing is wrong, and the sidecar ends with the program, with its status."""
    laptop = Laptop(tmp_path, "supervise", {})
    try:
        laptop.start(ready="curl localhost:8080")
        assert "no mistakes" in laptop.output("reloader check app.yaml")
        assert laptop.wrong("app.yaml") == []
        laptop.follow(laptop.steps[:-1])
        laptop.run(laptop.steps[-1])
        assert eventually(lambda: laptop.status, what="the end of the sidecar") == 3
    finally:
        laptop.stop()
