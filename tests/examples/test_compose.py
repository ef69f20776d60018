"""The compose file: valid for Compose itself, and put together as its README says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reloader import settings
from tests.e2e.sidecar import reloader
from tests.examples.laptop import EXAMPLES, commands
from tests.servers import missing

EXAMPLE = EXAMPLES / "compose"
SHARING = ("nginx", "reloader")


@pytest.fixture(scope="module")
def compose() -> str:
    """The program itself."""
    found = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return found or missing("this machine has no docker-compose")


@pytest.fixture(scope="module")
def services(compose: str) -> dict[str, Any]:
    """What Compose makes of the file."""
    done = subprocess.run(
        [compose, "config", "--format=json"], cwd=EXAMPLE, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    return dict(json.loads(done.stdout))


def mounted(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["source"]: each for each in service.get("volumes", ()) if each["type"] == "volume"}


def test_restarts_of_either_leave_the_other_one(services: dict[str, Any]):
    """Both live in the process namespace of a third, and whatever ends is started again."""
    each = services["services"]
    assert {each[name]["pid"] for name in SHARING} == {"service:pod"}
    assert "pid" not in each["pod"]
    assert {name: service["restart"] for name, service in each.items() if service["restart"] != "unless-stopped"} == {"first": "on-failure"}


def test_the_signal_gets_through(services: dict[str, Any]):
    """One user that is not root, and no capability."""
    each = services["services"]
    assert {each[name]["user"] for name in (*SHARING, "first", "pod")} == {"10001:10001"}
    assert all(each[name]["cap_drop"] == ["ALL"] and each[name]["read_only"] for name in SHARING)


def test_nginx_never_starts_without_a_configuration(services: dict[str, Any]):
    """It waits for the first publish, and that for servers that answer; the volumes in memory are held meanwhile."""
    each = services["services"]
    for name in SHARING:
        assert each[name]["depends_on"]["first"]["condition"] == "service_completed_successfully"
    waits = {name: how["condition"] for name, how in each["first"]["depends_on"].items()}
    assert waits == {"pod": "service_started", "consul": "service_healthy", "openbao": "service_healthy"}
    assert {"live", "state"} <= mounted(each["pod"]).keys()
    assert all(each[name]["healthcheck"]["test"] for name in ("consul", "openbao", *SHARING))


def test_the_target_reads_the_volume_and_nothing_else(services: dict[str, Any]):
    each = services["services"]
    assert set(mounted(each["nginx"])) == {"live"}
    assert mounted(each["nginx"])["live"]["read_only"]
    assert {services["volumes"][name]["driver_opts"]["o"] for name in ("live", "state")} == {"mode=0777"}


def test_the_configuration_is_valid_and_lies_where_it_is_mounted(services: dict[str, Any]):
    """`reloader check` finds nothing, and the paths of the pipeline are those of the volumes."""
    done = reloader("check", EXAMPLE / "web.yaml", env={"VAULT_TOKEN": "web-example"})
    assert done.returncode == 0, done.stderr
    (pipeline,) = settings.load([EXAMPLE / "web.yaml"], {"VAULT_TOKEN": "web-example"}).pipelines
    volumes = mounted(services["services"]["reloader"])
    assert pipeline.volume is not None
    assert str(pipeline.volume.path) == volumes["live"]["target"] == mounted(services["services"]["nginx"])["live"]["target"]


def test_the_commands_of_the_readme_name_services_that_there_are(services: dict[str, Any]):
    told = [line.split() for line in commands(EXAMPLE / "README.md") if line.startswith("docker compose")]
    named = {words[3] for words in told if words[2] in {"exec", "restart", "kill"}}
    assert named
    assert named <= services["services"].keys()
