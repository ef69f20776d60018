"""Never fatal: programs that install their handler late are asked right at their start, and none dies of it."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.sidecar import Sidecar
from tests.kubelet import KubeletVolume
from tests.scale import SEED, rounds
from tests.servers import UnavailableError, missing
from tests.servers.debian import program
from tests.waiting import eventually

LATENESS = (0, 5, 50, 500, 3000)
"""How many milliseconds after its start a program installs its handler."""
NEVER = -1
ROUNDS = rounds(2, 8)
TARGETS = Path(__file__).parents[1] / "targets"

CONFIGURATION = """
sources: {{site: {{kind: files, path: {mounted}}}}}
volume:
  path: {live}
  files:
    app.conf: {{content: "{{{{ site.text }}}}"}}
target:
  match: {{cmdline: {notes}}}
  verify: {{alive: true, within: 200ms}}{more}
timing: {{min_interval: 0s, settle: 0s}}
"""


def c(folder: Path) -> list[str]:
    subprocess.run(["cc", "-o", folder / "late-c", TARGETS / "late.c"], check=True)
    return [str(folder / "late-c")]


def python(_folder: Path) -> list[str]:
    return [sys.executable, str(TARGETS / "late.py")]


def wrapped(_folder: Path) -> list[str]:
    """Return a shell that stays above the program."""
    return ["sh", "-c", f'{sys.executable} {TARGETS / "late.py"} "$@"; exit 1', "sh"]


def node(_folder: Path) -> list[str]:
    return ["setpriv", "--pdeathsig", "KILL", "node", str(TARGETS / "late.js")]


def go(folder: Path) -> list[str]:
    compiler = program("go", "golang-go")
    root = next(iter(sorted(compiler.path.parents[1].glob("lib/go-*"))), None)
    environment = {"GOCACHE": str(folder / "go"), "GO111MODULE": "off", "CGO_ENABLED": "0", **({"GOROOT": str(root)} if root else {})}
    command = [compiler.path, "build", "-o", folder / "late-go", TARGETS / "late.go"]
    subprocess.run(command, env={**os.environ, **compiler.env, **environment}, check=True)
    return ["setpriv", "--pdeathsig", "KILL", str(folder / "late-go")]


LANGUAGES = {"cc": c, "python": python, "sh": wrapped, "node": node, "go": go}


def command_of(language: str, folder: Path) -> list[str]:
    """Return the command of a program in that language, or skip: this machine cannot build or run it."""
    if language in ("cc", "node") and shutil.which(language) is None:
        missing(f"this machine has no {language}")
    try:
        return LANGUAGES[language](folder)
    except UnavailableError as reason:
        missing(reason)


class Late:
    """One program that is late, and the pipeline that asks it."""

    def __init__(self, folder: Path, command: list[str], name: str, milliseconds: int, more: str = "") -> None:
        self.name, self.milliseconds = name, milliseconds
        self._command = command
        self._mounted = KubeletVolume(folder / f"{name}-mounted")
        self.notes, self.file, self.count = folder / f"{name}.notes", folder / f"{name}.yaml", 0
        names = {"mounted": self._mounted.path, "live": folder / f"{name}-live", "notes": re.escape(str(self.notes))}
        self.file.write_text(CONFIGURATION.format(**names, more=more))
        self.change()
        self.process: subprocess.Popen[bytes] | None = None
        self.began = 0.0

    def change(self) -> None:
        self.count += 1
        self._mounted.swap({"text": str(self.count)})

    def start(self) -> None:
        """Start it, and change what it reads in the next milliseconds."""
        self.notes.unlink(missing_ok=True)
        self.began = time.monotonic()
        self.process = subprocess.Popen([*self._command, str(self.milliseconds), str(self.notes)], start_new_session=True)
        time.sleep(random.uniform(0, 0.02))
        self.change()

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signals(self) -> int:
        return self.notes.read_text().count("hup") if self.notes.exists() else 0

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class House:
    """All programs of one language, and one sidecar for them."""

    def __init__(self, folder: Path, lates: list[Late]) -> None:
        self.lates = lates
        self.sidecar = Sidecar(folder / "sidecar", *(late.file for late in lates))

    def asked(self, late: Late) -> bool:
        """Return whether it is known to run on its last change; AssertionError if it was killed."""
        return late.signals() > 0 and self.sidecar.pipeline(late.name)["owed"] is None

    def close(self) -> None:
        for late in self.lates:
            late.stop()
        self.sidecar.stop()


@pytest.fixture
def house(tmp_path):
    random.seed(SEED)
    made: list[House] = []

    def make(lates: list[Late]) -> House:
        made.append(House(tmp_path, lates))
        made[0].sidecar.start()
        return made[0]

    yield make
    for each in made:
        each.close()


@pytest.mark.servers
@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", list(LANGUAGES))
def test_a_program_whose_handler_comes_late_is_asked_once_and_lives(house, tmp_path, language):
    """40 runs of each language in the long suite: none is killed, and each gets the signal that is due, when it can take it."""
    command = command_of(language, tmp_path)
    house = house([Late(tmp_path, command, f"{language}-{late}", late) for late in LATENESS])
    eventually(house.sidecar.ready, what="the first publishes")
    for _ in range(ROUNDS):
        for late in house.lates:
            late.start()
        for late in house.lates:
            eventually(lambda late=late: not late.lives or house.asked(late), within=30, what=f"{late.name} to be asked")
        assert [late.name for late in house.lates if not late.lives] == []
        assert {late.name: late.signals() for late in house.lates} == {late.name: 1 for late in house.lates}
        for late in house.lates:
            late.stop()


@pytest.mark.servers
def test_a_go_program_that_never_installs_one_is_not_asked_before_its_probe_answers(house, tmp_path):
    """Without a probe it gets the benefit of the doubt once it is 5 s old, and dies of that; with one it is left alone for ever."""
    command = command_of("go", tmp_path)
    bare = Late(tmp_path, command, "bare", NEVER)
    probed = Late(tmp_path, command, "probed", NEVER, more=f"\n  ready: {{file: {tmp_path / 'ready'}}}")
    house = house([bare, probed])
    eventually(house.sidecar.ready, what="the first publishes")
    probed.start()
    bare.start()

    eventually(lambda: not bare.lives, within=20, what="the one without a probe to be asked")
    assert time.monotonic() - bare.began > 4.9  # ticks are 10 ms
    assert probed.lives
    assert house.sidecar.pipeline("probed")["owed"] is not None
    assert house.sidecar.metric("reloader_reloads_total", pipeline="probed") == 0
