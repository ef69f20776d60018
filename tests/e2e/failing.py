"""A pipeline whose parts can be made to fail, and what is to be seen of it from outside; what it should be is in the README's table."""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reloader.policy import Effect
from tests.e2e.sidecar import PROGRAM, Sidecar
from tests.faults.pod import Mounts
from tests.kubelet import KubeletVolume
from tests.servers.daemon import Daemon
from tests.unit.test_docs import effects, rows, section
from tests.waiting import eventually

TARGETS = Path(__file__).parents[1] / "targets"
FAULTY = Path(__file__).parents[1] / "faults" / "faulty.py"
TOLD = {
    situation: {"open": when_open, "closed": when_closed}
    for situation, when_open, when_closed in rows(section("README.md", "When something fails"))
}
"""What the README says of each situation, by mode."""


SURELY_LATER = 0.05
"""After how many seconds a start is later than a publish, by clocks that tell hundredths."""


@dataclass(frozen=True)
class Moment:
    """What a situation of the README looks like from outside."""

    situation: str
    reasons: tuple[str, ...] = ()
    """What is found in the reasons."""
    volume: str | None = None
    """The text that readers see; None where there is no file."""
    target: str | None = "as the volume"
    """The text that the target runs on."""
    lasts: bool = False
    """Whether it is the later of the two moments of that situation."""
    started: bool | None = None
    """What `/startupz` says; None where what was before may have been relied on, unseen."""

    def effect(self, mode: str) -> Effect:
        """Return what the README says of it."""
        return effects(TOLD[self.situation][mode], 2)[self.lasts]


@contextmanager
def small_volume(folder: Path) -> Iterator[Mounts]:
    """Have a mount namespace with a tmpfs of 400 KiB where the volume of a house in this folder will be."""
    if os.geteuid() != 0:
        pytest.skip("needs root (mounts)")
    mounts = Mounts(folder)
    (folder / "live").mkdir()
    mounts.run("mount", "-t", "tmpfs", "-o", "size=400k,mode=0755", "volume", folder / "live")
    yield mounts
    mounts.close()


def make_read_only(mounts: Mounts, path: Path) -> None:
    """Mount a volume once more over itself, read-only: a mount that somebody writes on cannot become read-only."""
    mounts.run("mount", "--bind", path, path)
    mounts.run("mount", "-o", "remount,bind,ro", path)


@contextmanager
def read_only(mounts: Mounts, path: Path) -> Iterator[None]:
    """Have a volume read-only for a while."""
    make_read_only(mounts, path)
    yield
    mounts.run("umount", "--lazy", path)


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("ab", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            return


class Application:
    """The target: `picky.py`, which has workers and notes each text that it takes."""

    def __init__(self, folder: Path, file: Path, enter: Sequence[str] = ()) -> None:
        folder.mkdir(exist_ok=True)
        self._file, self._enter, self._notes = file, enter, folder / "notes"
        self.pidfile, self.refuses_all = folder / "app.pid", folder / "app.refuses"
        self._daemon = Daemon(folder / "app.log")

    def start(self, *options: str, through: Sequence[str] = ()) -> None:
        """Start it, by a command that executes it where given, and return when it has read its file."""
        self.pidfile.unlink(missing_ok=True)
        command = [*self._enter, *through, sys.executable, TARGETS / "picky.py", self._file, self.pidfile, self._notes, *options]
        self._daemon.start(command, ready=self.pidfile.exists)

    def stop(self) -> None:
        self._daemon.stop(kill=True)

    @property
    def pid(self) -> int:
        return int(self.pidfile.read_text())

    @property
    def running(self) -> bool:
        return self._daemon.running

    @property
    def status(self) -> int | None:
        return self._daemon.status

    def taken(self) -> list[str]:
        """Return how each text came to it that it took, and the text."""
        return self._notes.read_text().splitlines() if self._notes.exists() else []

    def runs_on(self) -> str:
        return self.taken()[-1].partition(" ")[2]


class House:
    """One pipeline named `app`: a mounted directory, a volume, a target; `config` is what the sidecar is given at its next start."""

    def __init__(self, folder: Path, mode: str, *, enter: Sequence[str] = (), seen_from: Path = Path("/")) -> None:
        self.folder, self.mode, self.path = folder, mode, folder / "live"
        self.live = seen_from / self.path.relative_to("/")
        self.enter = enter
        self.mounted = KubeletVolume(folder / "mounted")
        self.application = Application(folder / "application", self.path / "app.conf", enter)
        self.file, self._control = folder / "app.yaml", folder / "control"
        self.env: dict[str, str] = {}
        self.config: dict[str, Any] = {
            "sources": {"site": {"kind": "files", "path": str(self.mounted.path)}},
            "volume": {"path": str(self.path), "files": {"app.conf": {"content": "{{ site.text }}"}}},
            "target": {"match": {"pidfile": str(self.application.pidfile)}, "verify": {"workers": True, "within": "500ms"}},
            "timing": {"min_interval": "0s"},
            "failure": {"mode": mode, "startup_grace": "10m", "max_staleness": "10m", "retry_refused": "never"},
        }
        self.sidecar = Sidecar(folder / "sidecar", self.file, program=[*enter, *PROGRAM])
        self._relied_on = False
        self.say("one")

    def faulty(self) -> None:
        """Have a disk and a clock for the sidecar that `control` makes fail; before its start."""
        self.control()
        program = [*self.enter, sys.executable, FAULTY, self._control]
        self.sidecar = Sidecar(self.folder / "sidecar", self.file, program=program)

    def control(self, *fails: dict[str, Any], held: Sequence[dict[str, Any]] = (), wall: float = 0) -> None:
        """Say what fails or is held up from now on, and how far the wall clock is ahead; see faulty.py."""
        new = self._control.with_suffix(".new")
        new.write_text(json.dumps({"fails": fails, "held": held, "wall": wall}))
        new.rename(self._control)

    def say(self, text: str) -> None:
        """Have the source say this."""
        self.mounted.swap({"text": text})

    def fail(self, **settings: Any) -> None:
        """Set keys of `failure`."""
        self.config["failure"] |= settings

    def have_fallback(self) -> None:
        """Have a `failure.fallback`, which says so."""
        directory = self.folder / "fallback"
        directory.mkdir()
        (directory / "app.conf").write_text("fallback")
        self.fail(fallback=str(directory))

    def write(self) -> None:
        """Write the configuration."""
        new = self.folder / "app.new"
        new.write_text(yaml.safe_dump(self.config))
        new.rename(self.file)

    def start(self) -> None:
        """Start the sidecar on the configuration as it is now."""
        self.write()
        self._relied_on = False
        self.sidecar.start()

    def begin(self, *options: str) -> "House":
        """Bring the first set to the target, which gets these options."""
        self.start()
        eventually(lambda: self.reads() is not None, what="the first publish")
        # A start in the tick of the publish counts as one before it, and would be signalled.
        eventually(lambda: time.time() - self.sidecar.pipeline()["published_at"] > SURELY_LATER, what="a start to be later")
        self.application.start(*options)
        eventually(self.sidecar.settled, what="the first confirmation")
        self.sees(Moment("all is well", volume=self.reads()))
        return self

    def reads(self) -> str | None:
        """Return what a reader of the volume gets."""
        try:
            return (self.live / "app.conf").read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_well(self) -> bool:
        """Return whether what is published now is all that it should be, and the target runs on it."""
        return self._is(Moment("all is well", volume=self.reads())) and (not self.application.running or self.sidecar.settled("app"))

    def sees(self, moment: Moment) -> None:
        """Wait until everything that can be seen from outside is as the README says of this moment."""
        eventually(lambda: self._is(moment), what=f"{moment.situation}{', for long' if moment.lasts else ''}")

    def _is(self, moment: Moment) -> bool:
        effect = moment.effect(self.mode)
        state = self.sidecar.pipeline("app")
        said = {"ready": effect < Effect.NOT_READY, "degraded": effect > Effect.SERVE, "closed": effect is Effect.CLOSED}
        assert {name: state[name] for name in said} == said, state
        self._relied_on |= said["ready"]
        answers = {path: self.sidecar.get(path).ok for path in ("/readyz", "/readyz/app", "/startupz", "/healthz")}
        started = answers["/startupz"] if moment.started is None else moment.started
        assert answers == {"/readyz": said["ready"], "/readyz/app": said["ready"], "/startupz": started, "/healthz": True}
        assert state["started"] == started >= self._relied_on
        assert self.sidecar.metric("reloader_closed", pipeline="app") == said["closed"]
        self._tells(moment.reasons, state["reasons"], something=said["degraded"])
        assert self.reads() == moment.volume, (self.reads(), moment.volume)
        if self.application.running:
            target = moment.volume if moment.target == "as the volume" else moment.target
            assert self.application.runs_on() == target, (self.application.taken(), target)
        return True

    def _tells(self, texts: Sequence[str], reasons: Sequence[str], *, something: bool) -> None:
        """Be sure that the status and the endpoint give these reasons, and some whenever something is wrong."""
        assert bool(reasons) == something, reasons
        body = self.sidecar.get("/readyz").text
        assert all(text in "\n".join(reasons) and text in body for text in texts), (texts, reasons)

    def source_fails(self, *texts: str, name: str = "site") -> None:
        """Wait until the status says of a source why it fails, with these words."""

        def fails() -> bool:
            source = next(each for each in self.sidecar.pipeline("app")["sources"] if each["name"] == name)
            assert not source["up"]
            assert self.sidecar.metric("reloader_source_up", source=name) == 0
            assert all(text in source["failure"] for text in texts), source["failure"]
            return True

        eventually(fails, what=f"source {name} to fail with {texts}")

    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.live / "..reloader" / "record.json").read_text()))

    def generations(self) -> set[str]:
        """Return the directories of all generations that are there."""
        return {path.name for path in self.live.glob("..*") if path.name[2:].isdecimal()}

    def linked(self) -> str:
        return str((self.live / "..data").readlink())

    def close(self) -> None:
        self.sidecar.stop(kill=True)
        self.application.stop()
