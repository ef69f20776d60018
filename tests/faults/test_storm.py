"""Everything at random times: changes, kills of the sidecar, restarts of the application; no set is torn and the last state arrives."""

import json
import random
import signal
import subprocess
import sys
import time
from math import inf
from pathlib import Path

import pytest

from tests.faults.checker import Checker
from tests.kubelet import KubeletVolume
from tests.scale import SEED, rounds
from tests.targets.reading import FILES, read
from tests.waiting import eventually

CHANGES = 2000
SECONDS = rounds(20, inf)
"""How long the storm lasts at most, once there were `PUBLISHED`: a slow machine needs longer for these."""
PUBLISHED = 20

CONFIGURATION = """
sources:
  site: {{kind: files, path: {mounted}}}
volume:
  path: {live}
  files:
    one.conf: {{content: "{{{{ site.text }}}}"}}
    two.conf: {{content: "{{{{ site.text }}}}"}}
target:
  match: {{pidfile: {pidfile}}}
  verify: {{alive: true, within: 20ms}}
timing: {{min_interval: 0s, settle: 5ms, settle_max: 30ms}}
server: {{listen: "off"}}
log: {{format: json, level: info}}
"""


def text(number: int) -> str:
    """Return a content that takes a while to write and to read."""
    return f"{number} " * 2000


class Pod:
    """A mounted directory, an application and a sidecar, each of which can be ended at any time."""

    def __init__(self, folder: Path) -> None:
        self.live, self.notes, self.pidfile, self.log = folder / "live", folder / "notes", folder / "app.pid", folder / "sidecar.log"
        self.mounted = KubeletVolume(folder / "mounted")
        self.configuration = folder / "app.yaml"
        self.configuration.write_text(CONFIGURATION.format(mounted=self.mounted.path, live=self.live, pidfile=self.pidfile))
        self.number, self.kills, self.restarts = 0, 0, 0
        self.change()
        self.application, self.sidecar = self._application(), self._sidecar()
        self._published = 0
        eventually(self.publishes, what="the first publish")

    def change(self) -> None:
        self.number += 1
        self.mounted.swap({"text": text(self.number)})

    def kill(self) -> None:
        """Kill the sidecar, and start the next one."""
        self.kills += 1
        self.sidecar.kill()
        self.sidecar.wait()
        self._published = self.logged("publish")
        self.sidecar = self._sidecar()

    def publishes(self) -> bool:
        """Return whether the sidecar that runs now has published something."""
        return self.logged("publish") > self._published

    def restart(self) -> None:
        """Restart the application, as a container is restarted: gone at once, or when asked."""
        self.restarts += 1
        self.application.send_signal(random.choice([signal.SIGKILL, signal.SIGTERM]))
        self.application.wait()
        self.application = self._application()

    def close(self) -> None:
        for process in (self.sidecar, self.application):
            process.kill()
            process.wait()

    def noted(self) -> list[dict]:
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    def logged(self, stage: str) -> int:
        """Return how often the sidecars said that they did something; a line that a kill cut short is none."""
        lines = self.log.read_text(errors="replace").splitlines()
        return sum(f'"message": "{stage}"' in line and '"outcome": "ok"' in line for line in lines)

    def confirmed(self) -> bool:
        """Return whether the application has read the last content, and the record says so."""
        record = json.loads((self.live / "..reloader" / "record.json").read_text())
        done = record["confirmed"] and record["confirmed"]["number"] == record["published"]
        return bool(done and dict.fromkeys(FILES, text(self.number)) == read(self.live) == self.noted()[-1]["read"])

    def _application(self) -> subprocess.Popen[bytes]:
        reading = Path(__file__).parents[1] / "targets" / "reading.py"
        return subprocess.Popen([sys.executable, str(reading), str(self.live), str(self.pidfile), str(self.notes)])

    def _sidecar(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "reloader", "run", str(self.configuration)]
            return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdout=log, stderr=log)


def storm(pod: Pod) -> None:
    """Change, kill and restart; the last changes and kills find the application running."""
    until, kill_at, restart_at = time.monotonic() + SECONDS, 0.0, 0.0
    while pod.number < CHANGES and ((now := time.monotonic()) < until or pod.logged("publish") < PUBLISHED):
        if kill_at is None and pod.publishes():
            kill_at = now + random.uniform(0.0, 3.0)
        if kill_at is not None and now > kill_at:
            pod.kill()
            kill_at = random.choice([now + random.uniform(0.0, 3.0), None, None, None])  # most do something before
        if now > restart_at:
            restart_at = now + random.uniform(0.05, 2.0)
            pod.restart()
        pod.change()
        time.sleep(random.expovariate(1 / random.choice([0.003, 0.03, 0.1])))


@pytest.fixture
def pod(tmp_path):
    random.seed(SEED)
    pod = Pod(tmp_path)
    yield pod
    pod.close()


@pytest.mark.timeout(900)
def test_a_storm_tears_nothing_loses_nothing_and_signals_as_often_as_due(pod):
    """After it is quiet, what came last is published, read and confirmed, whatever was killed in between."""
    checker = Checker(pod.live)
    checker.start()
    try:
        storm(pod)
        eventually(pod.confirmed, within=30, what="the last state of the storm, or one that a restart made it take again")
        pod.change()
        pod.kill()
        eventually(pod.confirmed, within=30, what="the last state, over a kill")
    finally:
        checker.stop()
    published, signals = pod.logged("publish") + pod.logged("rollback"), sum(note["signalled"] for note in pod.noted())
    print(
        f"{pod.number} changes, {published} published, {pod.kills} kills, {pod.restarts} restarts, {signals} signals, {checker.reads} reads"
    )

    assert checker.torn == []
    assert len(checker.seen) > published / 10
    assert all(len(set(note["read"].values())) == 1 for note in pod.noted() if note["read"])
    # Each kill may come between a signal and the record of it. A process that starts in the tick of a publish may be signalled for it too.
    assert signals <= published + pod.kills + pod.restarts
    assert set(FILES) <= {path.name for path in pod.live.iterdir()}
