"""Watch and signal with `state.path`: over restarts of the sidecar and of the target, no reload is lost, and none is done twice."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.sidecar import Sidecar
from tests.kubelet import KubeletVolume
from tests.waiting import eventually

READING = Path(__file__).parents[1] / "targets" / "reading.py"

CONFIGURATION = """
sources:
  site: {{kind: files, path: {mounted}}}
target:
  match: {{pidfile: {pidfile}}}
  verify: {{alive: true, within: 50ms}}
timing: {{min_interval: 0s}}
state: {{path: {state}}}
"""


class Pod:
    """A mounted directory that the target reads itself, and the sidecar that only signals."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.pidfile, self.notes = folder, folder / "state", folder / "pid", folder / "notes"
        self.mounted = KubeletVolume(folder / "mounted")
        self.swap(1)
        self.configuration = folder / "app.yaml"
        self.configuration.write_text(CONFIGURATION.format(mounted=self.mounted.path, pidfile=self.pidfile, state=self.state))
        self.sidecar = Sidecar(folder / "sidecar", self.configuration)
        self.process: subprocess.Popen[bytes] | None = None

    def swap(self, number: int) -> None:
        self.mounted.swap({"one.conf": str(number), "two.conf": str(number)})

    def run(self) -> None:
        """Start the target, in the place of the one before."""
        self.end()
        self.pidfile.unlink(missing_ok=True)
        self.process = subprocess.Popen([sys.executable, str(READING), str(self.mounted.path), str(self.pidfile), str(self.notes)])
        eventually(self.pidfile.exists, what="the target")

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def signals(self) -> int:
        return self.notes.read_text().count('"signalled": true')

    def settled(self) -> bool:
        return self.sidecar.settled()

    def restart(self) -> None:
        """Kill the sidecar and start it again, and wait until nothing is owed."""
        self.sidecar.stop(kill=True)
        self.sidecar.start()
        eventually(self.settled, what="the new run")

    def close(self) -> None:
        self.sidecar.stop()
        self.end()


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    """The target runs, and has confirmed its first signal: without a record it may be older than the files."""
    pod = Pod(tmp_path)
    pod.run()
    pod.swap(2)
    pod.sidecar.start()
    eventually(pod.settled, what="the first confirmation")
    yield pod
    pod.close()


def test_confirmed_content_is_not_signalled_again(pod: Pod) -> None:
    assert pod.signals() == 1

    for _ in range(3):
        pod.restart()

    assert pod.signals() == 1
    assert pod.sidecar.metric("reloader_reloads_total") == 0


def test_a_change_while_nobody_looked_is_signalled_once(pod: Pod) -> None:
    pod.sidecar.stop(kill=True)
    pod.swap(3)
    pod.sidecar.start()
    eventually(lambda: pod.signals() == 2, what="the signal")
    eventually(pod.settled, what="its confirmation")

    pod.restart()

    assert pod.signals() == 2


def test_an_owed_reload_is_done_by_the_next_run(pod: Pod) -> None:
    """The target was away when the content came, and another one that is older than it is there after the restart."""
    pidfile = pod.pidfile.read_text()
    pod.pidfile.unlink()
    pod.swap(3)
    eventually(lambda: pod.sidecar.pipeline()["generations"]["published"] == 2, what="the content to be seen")
    pod.sidecar.stop(kill=True)
    pod.pidfile.write_text(pidfile)

    pod.sidecar.start()

    eventually(lambda: pod.signals() == 2, what="the owed signal")
    eventually(pod.settled, what="its confirmation")


def test_a_target_that_started_since_is_verified_and_not_signalled(pod: Pod) -> None:
    pod.sidecar.stop(kill=True)
    pod.run()
    signals = pod.signals()

    pod.sidecar.start()
    eventually(pod.settled, what="the verification")

    assert pod.signals() == signals


def test_what_was_there_for_a_while_is_not_taken_for_read(pod: Pod) -> None:
    """The target started while other content was mounted, and nobody looked; the content that was confirmed is back."""
    pod.sidecar.stop(kill=True)
    pod.swap(3)
    pod.run()
    pod.swap(2)
    signals = pod.signals()

    pod.sidecar.start()

    eventually(lambda: pod.signals() == signals + 1, what="the signal")
    eventually(pod.settled, what="its confirmation")


def test_a_second_sidecar_with_the_same_state_leaves_with_3(pod: Pod, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Sidecar(tmp_path / "second", pod.configuration).start()
    assert "is held by another reloader" in (tmp_path / "second" / "reloader.log").read_text()


def test_a_state_directory_that_cannot_be_made_is_no_crash_loop(tmp_path: Path) -> None:
    """It is not ready, says why, and takes it once it can."""
    pod = Pod(tmp_path)
    pod.state.write_text("in the way")
    pod.run()
    try:
        pod.sidecar.start()
        eventually(lambda: "in the way" in " ".join(pod.sidecar.pipeline()["reasons"]), what="the reason")
        assert not pod.sidecar.ready()
        pod.state.unlink()
        assert pod.sidecar.pid
        pod.sidecar.stop()
        pod.sidecar.start()
        eventually(pod.settled, what="the confirmation")
    finally:
        pod.close()
