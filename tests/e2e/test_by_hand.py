"""`reloader rollback` and `resume`: through the control socket, and by a wish left on the volume."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reloader import control
from tests.e2e.sidecar import Sidecar, reloader
from tests.e2e.test_rollback import PICKY
from tests.kubelet import KubeletVolume
from tests.waiting import eventually

CONFIGURATION = """
sources:
  site: {{kind: files, path: {site}}}
volume:
  path: {live}
  files:
    app.conf: {{content: "{{{{ site.text }}}}"}}
target:
  match: {{pidfile: {pidfile}}}
  verify: {{workers: true, within: 1500ms}}
timing: {{min_interval: 0s}}
{state}
"""


class Pod:
    """A mounted directory, a target, and a sidecar; with or without a place for a control socket."""

    def __init__(self, folder: Path, name: str = "app", state: Path | None = None) -> None:
        self.name, self.state = name, state
        self.live, self.pidfile, self.notes = (folder / f"{name}-{part}" for part in ("live", "pid", "notes"))
        self.site = KubeletVolume(folder / f"{name}-site")
        self.configuration = folder / f"{name}.yaml"
        self.configuration.write_text(
            CONFIGURATION.format(
                site=self.site.path, live=self.live, pidfile=self.pidfile, state=f"state: {{path: {state}}}" if state else ""
            )
        )
        self.sidecar = Sidecar(folder / f"{name}-sidecar", self.configuration)
        self.process: subprocess.Popen[bytes] | None = None
        self.say("one")

    def say(self, text: str) -> None:
        self.site.swap({"text": text})

    def run(self) -> None:
        """Start the target; the first set must be there."""
        self.process = subprocess.Popen([sys.executable, str(PICKY), str(self.live / "app.conf"), str(self.pidfile), str(self.notes)])
        eventually(self.pidfile.exists, what="the target")

    def begin(self) -> "Pod":
        """Bring three generations to the target: one, two and three."""
        self.sidecar.start()
        eventually(lambda: self.published() == "one", what="the first publish")
        self.run()
        self.settle()
        for text in ("two", "three"):
            self.say(text)
            eventually(lambda text=text: self.published() == text, what=text)
            self.settle()
        return self

    def settle(self) -> None:
        eventually(lambda: self.status()["owed"] is None, what="nothing owed")

    def status(self) -> dict:
        return self.sidecar.pipeline()

    def published(self) -> str | None:
        file = self.live / "app.conf"
        return file.read_text() if file.exists() else None

    def runs_on(self, text: str) -> bool:
        """Return whether it is published, confirmed, and what the target took last."""
        taken = self.notes.read_text().splitlines()[-1].split(" ")[-1]
        return self.published() == text == taken and self.status()["owed"] is None

    def refusals(self) -> float:
        return self.sidecar.metric("reloader_refusals_total", stage="verify")

    def hand(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command, *rest = arguments
        return reloader(command, "--config", self.configuration, *rest)

    def close(self) -> None:
        self.sidecar.stop()
        if self.process is not None:
            self.process.kill()
            self.process.wait()


Make = Callable[..., Pod]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Pod] = []

    def pod(**options) -> Pod:
        made.append(Pod(tmp_path, **options))
        return made[-1]

    yield pod
    for each in made:
        each.close()


@pytest.fixture(params=["socket", "wish"])
def pod(request: pytest.FixtureRequest, make: Make, tmp_path: Path) -> Pod:
    """Three generations, confirmed; the person is heard in either way."""
    return make(state=tmp_path / "state" if request.param == "socket" else None).begin()


def test_an_earlier_generation_is_put_back_and_held_until_it_is_let_go(pod: Pod) -> None:
    done = pod.hand("rollback")

    assert (done.returncode, done.stderr) == (0, "")
    assert "generation 2 is" in done.stdout
    eventually(lambda: pod.runs_on("two"), what="the earlier set at the target")
    status = pod.status()
    assert (status["ready"], status["degraded"], status["held"]) == (True, True, 2)
    pod.say("four")
    assert pod.hand("rollback").returncode == 0, "goes back one more"
    eventually(lambda: pod.runs_on("one"), what="the first set at the target")

    assert pod.hand("resume").returncode == 0

    eventually(lambda: pod.runs_on("four"), what="the newest set at the target")
    assert pod.status()["held"] is None


def test_the_generation_can_be_named_and_one_that_is_not_there_is_told_with_those_that_are(pod: Pod) -> None:
    refused = pod.hand("rollback", "7")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "there is no generation 7; there are 1, 2, 3" in refused.stderr
    assert pod.published() == "three"

    assert pod.hand("rollback", "1").returncode == 0
    eventually(lambda: pod.runs_on("one"), what="the first set at the target")


def test_what_is_held_stays_held_over_a_restart_of_the_sidecar(pod: Pod) -> None:
    assert pod.hand("rollback").returncode == 0
    eventually(lambda: pod.runs_on("two"), what="the earlier set at the target")
    taken = pod.notes.read_text()
    pod.sidecar.stop(kill=True)
    pod.say("four")

    pod.sidecar.start()

    eventually(lambda: pod.status()["held"] == 2, what="the hold")
    eventually(lambda: pod.status()["generations"]["desired"] > 2, what="the newer content to be seen")
    assert pod.runs_on("two")
    assert pod.notes.read_text() == taken, "nothing was owed"
    shown = reloader("status", "--address", f"127.0.0.1:{pod.sidecar.port}").stdout
    assert "held     generation 2, by hand" in shown


def test_without_a_sidecar_the_wish_is_taken_at_the_next_start(make: Make) -> None:
    pod = make().begin()
    pod.sidecar.stop()
    pod.say("four")

    left = pod.hand("rollback")
    assert left.returncode == 0
    assert "done at the next start" in left.stdout
    pod.sidecar.start()

    eventually(lambda: pod.runs_on("two"), what="the earlier set at the target")
    assert pod.status()["held"] == 2
    assert not (pod.live / "..reloader" / "wish.json").exists()


def test_a_wish_that_cannot_be_left_is_told_with_what_mends_that(make: Make) -> None:
    """Another user would not help where something is in the way."""
    pod = make().begin()
    pod.sidecar.stop()
    (pod.live / "..reloader" / "wish.json.tmp").mkdir()

    refused = pod.hand("rollback")

    assert refused.returncode == 1
    assert "wish.json.tmp: Is a directory\n" in refused.stderr


def test_a_held_generation_that_the_target_refuses_goes_back_to_the_confirmed_one_which_is_held(make: Make, tmp_path: Path) -> None:
    pod = make(state=tmp_path / "state").begin()
    pod.say("refuse")
    eventually(lambda: pod.status()["rejected"], what="the refusal")
    eventually(lambda: pod.runs_on("three"), what="the last confirmed set")

    before = pod.refusals()

    assert pod.hand("rollback", "4").returncode == 0

    eventually(lambda: pod.refusals() > before, what="the second refusal")
    eventually(lambda: pod.status()["held"] == 3, what="the confirmed one to be held")
    eventually(lambda: pod.runs_on("three"), what="the last confirmed set")


def test_of_two_pipelines_one_is_named(make: Make, tmp_path: Path) -> None:
    one, two = make(name="one", state=tmp_path / "state"), make(name="two", state=tmp_path / "state")
    one.sidecar = sidecar = Sidecar(tmp_path / "both", one.configuration, two.configuration)
    sidecar.start()
    both = ("--config", one.configuration, "--config", two.configuration)
    for pod in (one, two):
        eventually(lambda pod=pod: pod.published() == "one", what="the first publish")
        pod.run()
        eventually(lambda pod=pod: sidecar.settled(pod.name), what="the first confirmation")
        pod.say("two")
        eventually(lambda pod=pod: pod.published() == "two" and sidecar.settled(pod.name), what="the second")

    asked = reloader("rollback", *both)
    assert asked.returncode == 1
    assert "which of them? --pipeline one, two" in asked.stderr
    assert reloader("rollback", *both, "--pipeline", "two").returncode == 0

    eventually(lambda: two.published() == "one", what="the earlier set of the one")
    assert one.published() == "two"
    assert reloader("resume", *both).stdout.count("\n") == 2
    eventually(lambda: two.published() == "two", what="the newest set again")
    assert "there is no pipeline three" in reloader("rollback", *both, "--pipeline", "three").stderr


def test_status_asks_over_the_socket(make: Make, tmp_path: Path) -> None:
    pod = make(state=tmp_path / "state")
    pod.sidecar.start()
    eventually(lambda: pod.published() == "one", what="the first publish")

    asked = reloader("status", pod.configuration, "--json", env={"RELOADER_SERVER__LISTEN": "off"})

    assert json.loads(asked.stdout)["pipelines"][0]["name"] == "app"


def test_the_socket_is_private_and_replaced_after_a_crash(make: Make, tmp_path: Path) -> None:
    pod = make(state=tmp_path / "state")
    for _ in range(2):
        pod.sidecar.start()
        path = tmp_path / "state" / control.NAME
        eventually(lambda: control.ask(tmp_path / "state", {"do": "status"}), what="the socket")
        assert path.stat().st_mode & 0o777 == 0o600
        pod.sidecar.stop(kill=True)
    assert path.exists()
    assert control.ask(tmp_path / "state", {"do": "status"}) is None


def asked_as(uid: int, path: Path) -> str:
    """Return what the socket answers to that user, who is all that the kernel tells of a client."""
    os.seteuid(uid)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b'{"do": "status"}\n')
            return client.makefile().read()
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user_is_refused_by_the_kernels_word(make: Make) -> None:
    """Even where somebody opened the file to all."""
    with tempfile.TemporaryDirectory() as folder:  # below it, unlike below pytest's own, another user may look
        state = Path(folder) / "state"
        pod = make(state=state)
        pod.sidecar.start()
        path = state / control.NAME
        eventually(path.exists, what="the socket")
        with pytest.raises(PermissionError):
            asked_as(65534, path)
        Path(folder).chmod(0o755)
        state.chmod(0o755)
        with pytest.raises(PermissionError):
            asked_as(65534, path)
        path.chmod(0o666)

        said = json.loads(asked_as(65534, path))

        assert said == {"done": False, "said": ["uid 65534 may not; run as uid 0, which reloader runs as, or as root"]}
        assert json.loads(asked_as(0, path))["done"]
        pod.sidecar.stop()


def test_sighup_has_refused_content_tried_again(make: Make) -> None:
    pod = make().begin()
    pod.say("refuse")
    eventually(lambda: pod.status()["rejected"], what="the refusal")
    eventually(lambda: pod.runs_on("three"), what="the last confirmed set")
    before = pod.refusals()

    os.kill(pod.sidecar.pid, signal.SIGHUP)

    eventually(lambda: pod.refusals() > before, what="another try")
