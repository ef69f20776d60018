"""Several runs on one machine, each with the same example, do not meet."""

from pathlib import Path

import pytest

from tests.examples.laptop import Laptop

pytestmark = pytest.mark.servers


def test_another_run_takes_nothing_away(tmp_path: Path):
    """What one has in the place of the example stays while another one comes and goes; the last one leaves nothing."""
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    laptop = Laptop(folders[0], "supervise", {})
    try:
        laptop.start(ready="curl localhost:8080")
        Laptop(folders[1], "supervise", {}).stop()
        assert "app.conf" in laptop.output("ls /tmp/reloader-supervise/live")
    finally:
        laptop.stop()
