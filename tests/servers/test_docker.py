"""dockerd takes everything with it that it made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scale import rounds
from tests.servers import apart, missing
from tests.servers.podman import ROOT, Podman
from tests.waiting import eventually

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(900),
    pytest.mark.skipif(rounds(0, 1) == 0, reason="fetches 60 MB and needs 700 MB while it runs: LONG_TESTS"),
]
RUNNING = """
import signal, sys
from pathlib import Path
from tests.servers import UnavailableError
from tests.servers.debian import cache
from tests.servers.docker import Docker
from tests.servers.podman import Podman
try:
    docker = Docker(Path(sys.argv[1]))
except UnavailableError as reason:
    sys.exit(print("unavailable:", reason))
docker.start()
docker.load({"base:tests": sys.argv[2]}, Podman(cache() / "podman"))
print(docker.address, docker.process, docker.group, flush=True)
signal.pause()
"""


def processes(namespace: int) -> list[Path]:
    """Return those of a process namespace."""
    return [each for each in Path("/proc").glob("[0-9]*") if inode(each) == namespace]


def inode(process: Path) -> int:
    try:
        return (process / "ns/pid").stat().st_ino
    except OSError:  # it has ended, or is closed to us
        return 0


def test_nothing_is_left_of_a_test_that_was_killed(tmp_path: Path, engine: Podman, base_image: str):
    """No process, no control group and no file, with a container that ran."""
    compose = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    compose = compose or missing("this machine has no docker-compose")
    (tmp_path / "compose.yaml").write_text("services: {one: {image: base:tests, command: [sleep, infinity]}}\n")
    test = [sys.executable, "-c", RUNNING, str(tmp_path / "dockerd.log"), base_image]
    with subprocess.Popen(test, cwd=ROOT, stdout=subprocess.PIPE, text=True) as killed:
        try:
            assert killed.stdout
            told = killed.stdout.readline()
            if told.startswith("unavailable"):
                pytest.skip(told)
            address, process, group = told.split()
            namespace = inode(Path(f"/proc/{process}"))
            subprocess.run([compose, "up", "--detach"], cwd=tmp_path, env={**os.environ, "DOCKER_HOST": address}, check=True)
            assert processes(namespace)
            assert apart.groups(group)
        finally:
            killed.kill()

    folder = Path(address.removeprefix("unix://")).parent
    eventually(lambda: not processes(namespace) and not apart.groups(group) and not folder.exists(), within=120, what="all gone")
