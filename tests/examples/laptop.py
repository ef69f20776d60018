"""A machine on which somebody tries an example: its programs, its ports and paths, and the commands of the README, word for word."""

import contextlib
import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.servers import UnavailableError, missing
from tests.servers.daemon import Daemon
from tests.servers.debian import Program, program
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ALONE = Path(__file__).with_name("alone.py")
RELOADER = [sys.executable, "-m", "reloader"]
_QUIET = ("curl ", "curl --silent --show-error --fail ")


def debian(name: str, package: str = "", suite: str = "") -> Program:
    """Return a program of this machine or of Debian; the test is over where it cannot be had."""
    try:
        return program(name, package or name, suite=suite)
    except UnavailableError as reason:
        missing(reason)


def commands(readme: Path) -> list[str]:
    """Return the lines of the README's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


class Laptop:
    """Runs the example `name`, whose work is in /tmp/reloader-NAME, with `programs` beside this machine's own.

    Its network is its own, or `shared` with this machine, where it is to use servers that run already.
    """

    def __init__(self, folder: Path, name: str, programs: dict[str, Program], *, network: str = "own", **env: str) -> None:
        if os.getuid() != 0:
            missing("a network of its own needs root")
        self.example = EXAMPLES / name
        self.start_command, *self.steps = commands(self.example / "README.md")
        self.work = folder / "work"
        self.work.mkdir(mode=0o755)
        self._place = Place(Path(f"/tmp/reloader-{name}"))
        path = f"{_programs(folder / 'bin', programs)}{os.pathsep}{os.environ['PATH']}"
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, **env}
        self._apart = ["--mount", "--net"] if network == "own" else ["--mount"]
        self._daemon = Daemon(folder / "run.log", death_signal="TERM")

    def start(self, ready: str) -> None:
        """Run the README's first command, and return when the command `ready` succeeds beside it."""
        alone = ["unshare", *self._apart, sys.executable, ALONE, self.work, self._place.path, "bash", "-c", f"exec {self.start_command}"]
        self._daemon.start(alone, env=self._env, cwd=self.example, ready=lambda: self.run(ready).returncode == 0)

    def run(self, line: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a line in another terminal; `curl` fails where a server says no."""
        inside = [
            "nsenter",
            f"--target={self._daemon.pid}",
            "--net",
            "--mount",
            f"--wd={self.example}",
            "bash",
            "-c",
            line.replace(*_QUIET),
        ]
        return subprocess.run(inside, env=self._env, capture_output=True, text=True, timeout=timeout, check=False)

    def output(self, line: str, timeout: float = 60) -> str:
        """Return what a line that succeeds prints."""
        done = self.run(line, timeout)
        assert done.returncode == 0, f"{line}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def follow(self, steps: list[str]) -> None:
        """Do each step; of one that asks, wait for the answer that the README shows behind it, or for a status that has its words."""
        for step in steps:
            try:
                self._follow(*step.split(" # ", 1))
            except AssertionError as failed:
                status = self.run("reloader status").stdout
                failed.add_note(f"{step}\n{status}\n{self.log()}")
                raise

    def _follow(self, command: str, shown: str = "") -> None:
        if command.startswith("curl"):
            eventually(lambda: self.output(command).strip() == shown.strip(), what=command)
        elif command.startswith("reloader status"):
            eventually(lambda: shown.strip() in self.output(command), what=command)
        else:
            self.output(command)

    def wrong(self, configuration: str) -> list[dict[str, Any]]:
        """Return what the doctor finds wrong beside the running sidecar."""
        findings = json.loads(self.run(f"reloader doctor --json {configuration}").stdout)["findings"]
        return [each for each in findings if each["state"] == "failed"]

    @property
    def status(self) -> int | None:
        """The exit status of what was started, once it has ended."""
        return self._daemon.status

    def log(self) -> str:
        """Return what all that was started has said."""
        return self._daemon.log.read_text(errors="replace")

    def stop(self) -> None:
        """Press Ctrl-C in the first terminal."""
        self._daemon.stop()
        self._place.leave()


class Place:
    """A directory over which each run mounts its own; the last one of this machine removes it.

    To remove it takes away what others have mounted there too, each in a namespace of its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = self._hold()

    def _hold(self) -> int:
        while True:
            self.path.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                held = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(held, fcntl.LOCK_SH)
                if os.fstat(held).st_nlink:  # nobody has removed it meanwhile
                    return held
                os.close(held)

    def leave(self) -> None:
        """Let go of it."""
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.path.rmdir()
        os.close(self._held)


def _programs(folder: Path, programs: dict[str, Program]) -> Path:
    """Return a folder that has the programs as an installation would."""
    folder.mkdir(parents=True)
    _script(folder / "reloader", {}, RELOADER)
    _script(folder / "python3", {}, [sys.executable])
    for name, each in programs.items():
        _script(folder / name, each.env, [str(each.path)])
    return folder


def _script(path: Path, env: dict[str, str], words: list[str]) -> None:
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
    path.write_text(f'#!/bin/sh\nexec env {settings} {shlex.join(words)} "$@"\n')
    path.chmod(0o755)
