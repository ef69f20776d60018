"""The examples do what their README says, by its own words."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import missing
from tests.servers.daemon import Daemon
from tests.servers.nginx import Nginx
from tests.servers.ports import free_port
from tests.waiting import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.servers


def commands(readme: Path) -> list[str]:
    """Return the lines of the README's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_nginx_follows_a_configmap(tmp_path: Path, nginx: Callable[[Path, Path], Nginx]):
    """Each command of the README works, and each answer that it shows comes, also after content that NGINX refuses."""
    if not shutil.which("curl"):
        missing("this machine has no curl")
    example = EXAMPLES / "nginx-configmap"
    start, *steps = commands(example / "README.md")
    port = str(free_port())
    program = nginx(tmp_path, tmp_path).program
    path = os.pathsep.join((str(Path(sys.executable).parent), str(program.path.parent), os.environ["PATH"]))
    env = {**program.env, "PATH": path, "PORT": port, "LISTEN": f"127.0.0.1:{free_port()}", "WORK": str(tmp_path / "work")}

    def answer(command: str) -> str:
        line = command.replace("8080", port).replace("curl", "curl --silent --fail")
        return subprocess.run(
            ["bash", "-c", line], cwd=example, env={**os.environ, **env}, capture_output=True, text=True, check=True
        ).stdout

    run = Daemon(tmp_path / "run.log", death_signal="TERM")
    try:
        run.start(["bash", "-c", start], env=env, cwd=example, ready=lambda: answer("curl localhost:8080"))
        for step in steps:
            command, _, shown = step.partition("#")
            if command.startswith("curl"):
                eventually(lambda command=command, shown=shown: answer(command).strip() == shown.strip(), what=step)
            else:
                answer(command)
    finally:
        run.stop()
