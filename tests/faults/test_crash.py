"""Killed at every call of `disk` and `processes`, on the first publish and on one update: the reload happens as due, and no set is torn."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kubelet import KubeletVolume
from tests.targets.reading import FILES, read
from tests.waiting import eventually

CONFIGURATION = """
sources:
  site: {{kind: files, path: {mounted}}}
volume:
  path: {live}
  files:
    one.conf: {{content: "{{{{ site.number }}}}"}}
    two.conf: {{content: "{{{{ site.number }}}}"}}
target:
  match: {{pidfile: {pidfile}}}
  verify: {{alive: true, within: 50ms}}
timing: {{min_interval: 0s}}
server: {{listen: "off"}}
"""


class Pod:
    """A mounted directory, an application, and a sidecar that can be told where to die."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live, self.notes, self.calls = folder / "live", folder / "notes", folder / "calls"
        self.mounted = KubeletVolume(folder / "mounted")
        self.configuration = folder / "app.yaml"
        pidfile = folder / "app.pid"
        self.configuration.write_text(CONFIGURATION.format(mounted=self.mounted.path, live=self.live, pidfile=pidfile))
        reading = Path(__file__).parents[1] / "targets" / "reading.py"
        self.application = subprocess.Popen([sys.executable, str(reading), str(self.live), str(pidfile), str(self.notes)])
        eventually(pidfile.exists, what="the application")
        self.sidecar: subprocess.Popen[bytes] | None = None

    def start(self, at: int = 0) -> None:
        self.calls.unlink(missing_ok=True)
        script = Path(__file__).with_name("crashing.py")
        log = (self.folder / "sidecar.log").open("ab")
        with log:
            command = [sys.executable, str(script), str(self.configuration), str(self.calls), str(at)]
            self.sidecar = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdout=log, stderr=log)

    def swap(self, number: int) -> None:
        self.mounted.swap({"number": str(number)})

    def died(self, number: int) -> bool:
        """Return whether it was killed at its call; a run that made fewer calls than the recorded one was not: ages are written by time."""
        sidecar = self.sidecar
        assert sidecar is not None
        eventually(lambda: sidecar.poll() is not None or self.confirmed(number), within=20, what="the crash")
        return sidecar.poll() == -signal.SIGKILL

    def kill(self) -> None:
        if self.sidecar is not None:
            self.sidecar.kill()
            self.sidecar.wait()

    def close(self) -> None:
        self.kill()
        self.application.kill()
        self.application.wait()

    def noted(self) -> list[dict]:
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    def record(self) -> dict:
        return json.loads((self.live / "..reloader" / "record.json").read_text())

    def confirmed(self, number: int) -> bool:
        """Return whether the application has read this content, and the record says so."""
        record = self.record()
        done = record["confirmed"] and record["confirmed"]["number"] == record["published"]
        return bool(done and self.set_of(number) == read(self.live) == self.noted()[-1]["read"])

    @staticmethod
    def set_of(number: int) -> dict[str, str]:
        return {name: str(number) for name in FILES}

    def check(self, number: int, *, at_most: int) -> None:
        """The last state arrived, nothing torn was ever read, and the application was signalled as often as due."""
        eventually(lambda: self.confirmed(number), within=20, what=f"number {number} to be confirmed")
        sets = [note["read"] for note in self.noted() if note["read"]]
        assert all(len(set(each.values())) == 1 for each in sets)
        signals = sum(note["signalled"] for note in self.noted())
        assert 1 <= signals <= at_most
        # A signal is repeated only where the crash fell between it and the record of it.
        left = {path.name for path in self.live.iterdir()} - {*FILES, "..data", "..reloader"}
        generations = set(self.record()["generations"])
        assert {name.removeprefix("..") for name in left} == generations


def first_publish(pod: Pod) -> int:
    """Prepare a first publish; return the number that is to be confirmed."""
    pod.swap(1)
    return 1


def update(pod: Pod) -> int:
    """Prepare an update of what an earlier run published."""
    pod.swap(1)
    pod.start()
    eventually(lambda: pod.confirmed(1), within=20, what="the first publish")
    pod.kill()
    pod.swap(2)
    return 2


def recorded(folder: Path, prepare: Callable[[Pod], int]) -> list[str]:
    """Return the names of the calls of one undisturbed run, in order: the matrix is made of them."""
    pod = Pod(folder)
    try:
        number = prepare(pod)
        pod.start()
        eventually(lambda: pod.confirmed(number), within=20, what="an undisturbed run")
        return pod.calls.read_text().splitlines()
    finally:
        pod.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("prepare", [first_publish, update])
def test_a_crash_at_every_call_loses_doubles_and_tears_nothing(tmp_path, prepare):
    """After the restart the last state arrives, signalled as often as due, and no reader saw a mix. After a call is before the next."""
    calls = recorded(_folder(tmp_path, 0), prepare)
    assert {"write_file", "rename", "sync_directory", "signal"} <= set(calls)
    reached = 0
    for at, name in enumerate(calls, 1):
        print(f"killed before call {at} of {len(calls)}: {name}")
        pod = Pod(_folder(tmp_path, at))
        try:
            number = prepare(pod)
            pod.start(at)
            reached += pod.died(number)
            pod.kill()
            pod.start()
            pod.check(number, at_most=number + 1)
        finally:
            pod.close()
    assert reached >= len(calls) - 6


def _folder(parent: Path, at: int) -> Path:
    folder = parent / str(at)
    folder.mkdir()
    return folder
