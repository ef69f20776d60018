"""A program that the sidecar runs as its child: it starts on the first set, and the sidecar leaves when it does, with its status."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.sidecar import Sidecar, reloader
from tests.kubelet import KubeletVolume
from tests.waiting import eventually

RUN_BY_US = Path(__file__).parents[1] / "targets" / "run_by_us.py"

CONFIGURATION = """
sources:
  site: {{kind: files, path: {site}}}
volume:
  path: {live}
  files:
    app.conf: {{content: "{{{{ site.text }}}}"}}
target:
  kind: exec
  command: [{python}, {program}, {live}/app.conf, {notes}]
  timeout: {timeout}
  verify: {{within: {within}}}
timing: {{min_interval: 0s}}
"""


class Pod:
    """A mounted directory, the program's notes, and the sidecar."""

    def __init__(self, folder: Path, *, timeout: str = "30s", within: str = "300ms") -> None:
        self.live, self.notes = folder / "live", folder / "notes"
        self.site = KubeletVolume(folder / "site")
        self.configuration = folder / "app.yaml"
        self.configuration.write_text(
            CONFIGURATION.format(
                site=self.site.path,
                live=self.live,
                python=sys.executable,
                program=RUN_BY_US,
                notes=self.notes,
                timeout=timeout,
                within=within,
            )
        )
        self.sidecar = Sidecar(folder / "sidecar", self.configuration)

    def begin(self, text: str = "good-1") -> "Pod":
        self.site.swap({"text": text})
        self.sidecar.start()
        self.heard(f"started {text}")
        eventually(self.sidecar.settled, what="the first confirmation")
        return self

    def said(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def heard(self, line: str) -> None:
        eventually(lambda: line in self.said(), what=f"{line!r}")

    def left(self) -> int:
        """Return the exit status of the sidecar, once it has left."""
        eventually(lambda: not self.sidecar.running, what="the end of the sidecar")
        status = self.sidecar.status
        assert status is not None
        return status

    def child(self) -> int:
        return int(next(line for line in self.said() if line.startswith("pid")).split()[1])

    def close(self) -> None:
        self.sidecar.stop()
        for line in self.said():
            if line.startswith("pid"):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(int(line.split()[1]), signal.SIGKILL)


@pytest.fixture
def pod(tmp_path, closing):
    return lambda **options: closing(Pod(tmp_path, **options))


def test_the_program_starts_on_the_first_set_and_not_before(pod):
    pod = pod()
    pod.sidecar.start()
    eventually(lambda: pod.sidecar.pipeline()["rejected"], what="a set that cannot be rendered")
    assert pod.said() == []

    pod.site.swap({"text": "good-1"})

    pod.heard("started good-1")
    eventually(pod.sidecar.settled, what="the confirmation")
    assert pod.sidecar.metric("reloader_reloads_total") == 0, "it read the set at its start"
    assert "signal SIGHUP good-1" not in pod.said()


def test_a_change_reaches_it_by_the_signal(pod):
    pod = pod().begin()
    pod.site.swap({"text": "good-2"})

    pod.heard("signal SIGHUP good-2")
    eventually(pod.sidecar.settled, what="the confirmation")
    assert pod.sidecar.metric("reloader_reloads_total") == 1


@pytest.mark.parametrize(("text", "status"), [("exit 0", 0), ("exit 7", 7), ("kill 9", 137), ("kill 15", 143)])
def test_the_sidecar_leaves_with_the_status_of_the_program(pod, text, status):
    pod = pod().begin()
    pod.site.swap({"text": text})

    assert pod.left() == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_asked_to_end_and_waited_for(pod, number):
    """It takes longer than the sidecar itself has for its own end."""
    pod = pod().begin()
    pod.site.swap({"text": "slow"})
    pod.heard("signal SIGHUP slow")
    os.kill(pod.sidecar.pid, number)

    pod.heard(f"asked {signal.Signals(number).name}")
    assert pod.sidecar.get("/healthz").ok
    Path(f"{pod.notes}.go").touch()
    assert pod.left() == 5


def test_one_that_does_not_end_is_killed(pod):
    pod = pod(timeout="100ms").begin()
    pod.site.swap({"text": "slow"})
    pod.heard("signal SIGHUP slow")
    os.kill(pod.sidecar.pid, signal.SIGTERM)

    assert pod.left() == 137


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGWINCH, signal.SIGRTMIN + 3])
def test_other_signals_are_passed_on(pod, number):
    pod = pod().begin()
    os.kill(pod.sidecar.pid, number)

    pod.heard(f"passed {int(number)}")
    assert pod.sidecar.running


def test_a_hangup_asks_for_a_look_and_is_not_passed_on(pod):
    pod = pod().begin()
    os.kill(pod.sidecar.pid, signal.SIGHUP)
    os.kill(pod.sidecar.pid, signal.SIGUSR1)

    pod.heard(f"passed {int(signal.SIGUSR1)}")
    assert not [line for line in pod.said() if line.startswith("signal")]


def test_a_set_on_which_it_ends_is_taken_back_for_the_next_start(pod):
    """The sidecar leaves with it; started again, it runs on the set before, and does not try the refused one."""
    pod = pod(within="5s").begin()
    pod.site.swap({"text": "exit 7"})
    assert pod.left() == 7
    assert (pod.live / "app.conf").read_text() == "good-1"

    pod.notes.unlink()
    pod.sidecar.start()

    pod.heard("started good-1")
    assert pod.sidecar.pipeline()["rejected"]
    pod.site.swap({"text": "good-2"})
    pod.heard("signal SIGHUP good-2")


def test_a_first_set_on_which_it_ends_stays(pod):
    """There is nothing to go back to, and the next start may do better: what it lacked may be elsewhere."""
    pod = pod(within="5s")
    pod.site.swap({"text": "exit 3"})
    pod.sidecar.start()

    assert pod.left() == 3
    assert (pod.live / "app.conf").read_text() == "exit 3"


def test_with_something_published_it_starts_at_once(pod):
    pod = pod().begin()
    pod.sidecar.stop()
    pod.notes.unlink()
    pod.site.path.rename(pod.site.path.with_name("gone"))
    pod.sidecar.start()

    pod.heard("started good-1")


def test_a_new_configuration_keeps_it_running(pod):
    pod = pod().begin()
    child = pod.child()
    pod.configuration.write_text(pod.configuration.read_text() + "failure: {mode: closed}\n")
    eventually(lambda: pod.sidecar.pipeline()["mode"] == "closed", what="the new configuration")

    pod.site.swap({"text": "good-2"})
    pod.heard("signal SIGHUP good-2")
    assert pod.child() == child


def test_another_command_needs_a_restart(pod):
    pod = pod().begin()
    pod.configuration.write_text(pod.configuration.read_text().replace("/app.conf, ", "/other.conf, "))

    eventually(lambda: "target.command of app" in str(pod.sidecar.get("/status").json()["configuration"]["mistakes"]), what="the refusal")
    assert pod.sidecar.running


@pytest.mark.parametrize(("mode", "status"), [(None, 127), (0o644, 126)])
def test_a_program_that_cannot_be_started_is_told_as_a_shell_does(tmp_path, mode, status):
    program = tmp_path / "program"
    if mode is not None:
        program.write_text("#!/bin/sh\n")
        program.chmod(mode)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "text").write_text("a")
    file = tmp_path / "app.yaml"
    file.write_text(
        f"sources: {{site: {{kind: files, path: {tmp_path}/site}}}}\n"
        f"volume: {{path: {tmp_path}/live, files: {{app.conf: {{content: a}}}}}}\n"
        f"target: {{kind: exec, command: [{program}]}}\n"
    )

    ended = reloader("run", file, "--listen", "off")

    assert ended.returncode == status
    assert f"{program} cannot be started" in ended.stderr


def test_once_does_not_start_it(pod):
    pod = pod()
    pod.site.swap({"text": "good-1"})

    assert reloader("once", pod.configuration).returncode == 0
    assert (pod.live / "app.conf").read_text() == "good-1"
    assert pod.said() == []


def test_as_pid_1_it_reaps_what_nobody_waits_for(pod):
    """The program's own status stays its own, and so does that of a check which fails meanwhile."""
    if subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False, capture_output=True).returncode:
        pytest.skip("may make no pid namespace")
    pod = pod()
    pod.site.swap({"text": "orphans"})
    command = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        sys.executable,
        "-m",
        "reloader",
        "run",
        str(pod.configuration),
    ]
    with subprocess.Popen([*command, "--listen", "off"], stderr=subprocess.PIPE, text=True) as sidecar:
        try:
            pod.heard("no zombies")
            pod.site.swap({"text": "exit 7"})
            assert sidecar.wait(timeout=20) == 7
        finally:
            sidecar.kill()
