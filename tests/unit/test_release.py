"""The release workflow fits the repository; what it says itself is checked by linters."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import reloader

ROOT = Path(__file__).parents[2]
[JOB] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"].values()


def script(name: str) -> str:
    """Return the script of the step with this id."""
    steps: list[dict[str, Any]] = JOB["steps"]
    return next(str(step["run"]) for step in steps if step.get("id") == name)


def told(tag: str, output: Path) -> int:
    """Run the step that compares the tag with the version, and return its exit status."""
    env = {"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": tag, "GITHUB_OUTPUT": str(output)}
    return subprocess.run(["bash", "-e", "-c", script("version")], cwd=ROOT, env=env, capture_output=True, check=False).returncode


def test_the_version_of_the_package_is_the_version_of_the_image(tmp_path: Path):
    assert told(f"v{reloader.__version__}", tmp_path / "output") == 0
    assert (tmp_path / "output").read_text() == f"version={reloader.__version__}\n"


@pytest.mark.parametrize("tag", ["v0.0.0", reloader.__version__, "v"])
def test_a_tag_of_another_version_is_no_release(tag: str, tmp_path: Path):
    assert told(tag, tmp_path / "output") == 1
    assert not (tmp_path / "output").exists()


def test_all_that_the_build_is_told_is_asked_for():
    """The Dockerfile takes each argument; docker itself only warns of one that it does not."""
    taken = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))

    assert set(re.findall(r'--build-arg "(\w+)=', script("push"))) == taken
