"""Where the compose file is run: under podman, with what that lacks named in podman.yaml, and under dockerd, as it stands."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.examples.laptop import EXAMPLES, ROOT
from tests.servers import missing
from tests.servers.daemon import Daemon
from tests.servers.docker import Docker
from tests.servers.podman import Podman

EXAMPLE = EXAMPLES / "compose"


class Terminal:
    """Runs lines of the README, in the network that an engine has: `inside` are the words before a command to have that."""

    def __init__(self, folder: Path, inside: list[str], env: dict[str, str]) -> None:
        found = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        docker = folder / "bin/docker"
        docker.parent.mkdir()
        docker.write_text(f'#!/bin/sh\nshift\nexec {found or missing("this machine has no docker-compose")} "$@"\n')
        docker.chmod(0o755)
        self._inside = inside
        self._env = {
            **os.environ,
            **env,
            "PATH": f"{docker.parent}{os.pathsep}{os.environ['PATH']}",
            "COMPOSE_PROJECT_NAME": f"example-{os.getpid()}",
        }

    def run(self, line: str) -> str:
        """Return what a line prints; AssertionError with what it complained of if it failed."""
        quiet = line.replace("curl ", "curl --silent --show-error --fail ")
        words = [*self._inside, "bash", "-c", quiet]
        done = subprocess.run(words, cwd=EXAMPLE, env=self._env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{line}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        """Take away what the example left."""
        self.run("docker compose down --volumes --timeout 1")


@contextmanager
def on_podman(folder: Path, engine: Podman, images: dict[str, str]) -> Iterator[Terminal]:
    """A terminal on podman's socket, in a network that has the loopback alone, where no image is built: `images` has them by variable."""
    service, socket = Daemon(folder / "podman.log", death_signal="TERM"), folder / "podman.sock"
    env = {
        **engine.env,
        **images,
        "DOCKER_HOST": f"unix://{socket}",
        "COMPOSE_FILE": f"compose.yaml:{Path(__file__).with_name('podman.yaml')}",
    }
    command = f"ip link set lo up && exec podman system service --time=0 {shlex.quote(f'unix://{socket}')}"
    try:
        service.start(["unshare", "--net", "bash", "-c", command], env=env, ready=socket.exists)
        with _closed(Terminal(folder, ["nsenter", f"--target={service.pid}", "--net"], env)) as terminal:
            yield terminal
    finally:
        service.stop()


@contextmanager
def on_dockerd(folder: Path, docker: Docker) -> Iterator[Terminal]:
    """A terminal on a dockerd that has what `official` names."""
    with _closed(Terminal(folder, docker.inside, {"DOCKER_HOST": docker.address})) as terminal:
        yield terminal


def official(images: dict[str, str], base: str) -> dict[str, str]:
    """Return `images` by the names that the compose file has for those who set no variable, and what its build begins with."""
    named = dict(re.findall(r"\$\{(\w+):-([\w/.:]+:[\w.]+)\}", (EXAMPLE / "compose.yaml").read_text()))
    [begins] = re.findall(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return {begins: base, **{name: images[variable] for variable, name in named.items()}}


@contextmanager
def _closed(terminal: Terminal) -> Iterator[Terminal]:
    try:
        yield terminal
    finally:
        terminal.close()
