"""Believing nothing: a set that the target refuses is taken back, remembered, and does not hold up the rest."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from reloader.certificates import certificate_end
from tests.e2e.sidecar import Sidecar
from tests.kubelet import KubeletVolume
from tests.servers.certificates import Authority
from tests.waiting import eventually

PICKY = Path(__file__).parents[1] / "targets" / "picky.py"

CONFIGURATION = """
sources:
  routes: {{kind: files, path: {routes}}}
  tls: {{kind: files, path: {tls}}}
volume:
  path: {live}
  in_place: {in_place}
  files: {files}
target:
  match: {{pidfile: {pidfile}}}
  verify: {{workers: true, within: 700ms}}
timing: {{min_interval: 0s}}
failure: {{mode: {mode}, startup_grace: 2s, max_staleness: 3s, retry_refused: {retry}}}
"""


TOGETHER = """{app.conf: {content: "{{ routes.text }} {{ tls.text }}"}}"""
APART = """{app.conf: {content: "{{ routes.text }}"}, tls.crt: {content: "{{ tls.text }}"}}"""


class Pod:
    """Two mounted directories, a target that takes only some configurations, and the sidecar."""

    def __init__(self, folder: Path, *, mode: str = "open", retry: str = "never", files: str = TOGETHER, in_place: str = "false") -> None:
        self.live, self.pidfile, self.notes = folder / "live", folder / "pid", folder / "notes"
        self.routes, self.tls = KubeletVolume(folder / "routes"), KubeletVolume(folder / "tls")
        configuration = folder / "app.yaml"
        given = {"mode": mode, "retry": retry, "files": files, "in_place": in_place}
        configuration.write_text(
            CONFIGURATION.format(routes=self.routes.path, tls=self.tls.path, live=self.live, pidfile=self.pidfile, **given)
        )
        self.sidecar = Sidecar(folder / "sidecar", configuration)
        self.process: subprocess.Popen[bytes] | None = None
        self.set("good-1", "cert-1")

    def set(self, routes: str | None = None, tls: str | None = None) -> None:
        if routes is not None:
            self.routes.swap({"text": routes})
        if tls is not None:
            self.tls.swap({"text": tls})

    def run(self) -> None:
        """Start the target, and wait until it has its configuration."""
        self.pidfile.unlink(missing_ok=True)
        self.process = subprocess.Popen([sys.executable, str(PICKY), str(self.live / "app.conf"), str(self.pidfile), str(self.notes)])
        eventually(self.pidfile.exists, what="the target")

    def begin(self) -> "Pod":
        """Bring the first set to the target."""
        self.sidecar.start()
        eventually(self.published, what="the first publish")
        self.run()
        eventually(self.sidecar.settled, what="the first confirmation")
        return self

    def published(self) -> str | None:
        file = self.live / "app.conf"
        return file.read_text() if file.exists() else None

    def taken(self) -> list[str]:
        return self.notes.read_text().splitlines()

    def status(self) -> dict:
        return self.sidecar.pipeline()

    def refusals(self) -> float:
        return self.sidecar.metric("reloader_refusals_total", stage="verify")

    def close(self) -> None:
        self.sidecar.stop()
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def pod(tmp_path, closing):
    return lambda **options: closing(Pod(tmp_path, **options))


def rolled_back(pod: Pod, to: str) -> None:
    eventually(lambda: pod.refusals() == 1, what="the refusal")
    eventually(lambda: pod.published() == to, what="the last confirmed set on the volume")
    eventually(lambda: pod.status()["owed"] is None, what="the rollback to be confirmed")


def test_a_refused_set_is_taken_back_and_the_next_good_one_goes_through(pod):
    """One refusal is reported, nothing is owed, and it is ready but degraded."""
    pod = pod().begin()
    pod.set(routes="refuse")

    rolled_back(pod, "good-1 cert-1")
    status = pod.status()
    assert (status["ready"], status["degraded"]) == (True, True)
    assert "verify" in status["rejected"]
    assert pod.sidecar.metric("reloader_rollbacks_total") == 1

    pod.set(routes="good-2")
    eventually(lambda: pod.taken()[-1] == "signalled good-2 cert-1", what="the next good set")
    eventually(lambda: not pod.status()["degraded"], what="nothing to be wrong")
    assert pod.refusals() == 1


def test_in_place_the_same_files_get_back_what_was_confirmed(pod):
    """A mount of one of them sees the rollback too, and the next good set."""
    pod = pod(in_place="true").begin()
    with (pod.live / "app.conf").open() as mounted:
        pod.set(routes="refuse")
        rolled_back(pod, "good-1 cert-1")
        assert mounted.read() == "good-1 cert-1"
        assert pod.taken()[-1] == "signalled good-1 cert-1"

        pod.set(routes="good-2")
        eventually(lambda: pod.taken()[-1] == "signalled good-2 cert-1", what="the next good set")
        eventually(lambda: not pod.status()["degraded"], what="nothing to be wrong")
        mounted.seek(0)
        assert mounted.read() == "good-2 cert-1"
    assert pod.refusals() == 1


def test_one_bad_source_does_not_hold_up_the_rest(pod):
    """While the routes are refused, a new certificate is delivered with the routes that were good."""
    pod = pod().begin()
    pod.set(routes="refuse")
    rolled_back(pod, "good-1 cert-1")

    pod.set(tls="cert-2")

    eventually(lambda: pod.taken()[-1] == "signalled good-1 cert-2", what="the certificate")
    eventually(lambda: pod.status()["owed"] is None, what="its confirmation")
    held = {source["name"]: source["held"] for source in pod.status()["sources"]}
    assert held == {"routes": True, "tls": False}
    assert pod.status()["degraded"]

    pod.set(routes="good-3")
    eventually(lambda: pod.taken()[-1] == "signalled good-3 cert-2", what="the mended routes")
    eventually(lambda: not pod.status()["degraded"], what="nothing to be wrong")


def test_content_that_ends_the_target_is_taken_back_and_not_tried_again_at_its_restart(pod):
    """A restart that the content itself caused is no reason to try it again: no crash loop."""
    pod = pod().begin()
    pod.set(routes="die")
    assert pod.process is not None
    assert pod.process.wait(10) == 1

    eventually(lambda: pod.published() == "good-1 cert-1", what="the rollback")
    pod.run()
    eventually(lambda: pod.status()["owed"] is None, what="the restarted target to be verified")

    assert pod.taken()[-1].endswith(" good-1 cert-1")  # signalled too, if it started in the tick of the rollback
    assert pod.refusals() == 1
    assert pod.process.poll() is None


def test_the_first_publish_of_all_is_withdrawn_when_it_is_refused(pod):
    """Nothing is left that the target could start on, and it is not ready; a good set heals it."""
    pod = pod()
    pod.set(routes="refuse")
    pod.run()
    pod.sidecar.start()
    eventually(lambda: pod.refusals() == 1, what="the refusal")
    eventually(lambda: pod.published() is None, what="the withdrawal")
    eventually(lambda: not pod.sidecar.ready(), what="it not to be ready")
    assert not (pod.live / "app.conf").exists()

    pod.set(routes="good-2")
    eventually(lambda: pod.taken()[-1] == "signalled good-2 cert-1", what="a good set")
    eventually(pod.sidecar.ready, what="readiness")


def test_refused_content_is_remembered_over_a_restart_of_the_sidecar(pod):
    pod = pod().begin()
    pod.set(routes="refuse")
    rolled_back(pod, "good-1 cert-1")
    taken = pod.taken()

    pod.sidecar.stop()
    pod.sidecar.start()

    eventually(lambda: pod.status()["rejected"], what="the refusal to be known")
    assert pod.published() == "good-1 cert-1"
    assert pod.sidecar.metric("reloader_reloads_total") == 0
    assert pod.taken() == taken


def test_refused_content_is_tried_again_after_a_while(pod):
    """What made it refused may have passed by then; that it has not is no news."""
    pod = pod(retry="1s").begin()
    pod.set(routes="refuse")

    eventually(lambda: pod.sidecar.metric("reloader_rollbacks_total") == 2, within=20, what="the second try")
    assert pod.refusals() == 1


def test_refused_content_is_tried_again_when_the_target_restarts(pod):
    """A new version of the program may take what the old one refused."""
    pod = pod().begin()
    pod.set(routes="refuse")
    rolled_back(pod, "good-1 cert-1")
    assert pod.process is not None
    pod.process.kill()
    pod.process.wait()

    pod.run()

    eventually(lambda: pod.refusals() == 2, what="the second try")


@pytest.mark.parametrize("mode", ["open", "closed"])
def test_nobody_goes_back_to_a_certificate_that_has_ended(pod, tmp_path, mode):
    """What was refused stays and is owed, or it closes; the next certificate is delivered with the routes that were good."""
    authority = Authority(tmp_path / "authority")
    certificate = authority.issue("web", days=3 / 86400)[0].read_text()
    pod = pod(mode=mode, files=APART)
    pod.set(tls=certificate)
    pod.begin()
    eventually(lambda: time.time() > certificate_end(certificate), what="the end of the certificate")

    pod.set(routes="refuse")
    eventually(lambda: pod.refusals() == 1, what="the refusal")
    eventually(lambda: pod.status()["closed"] if mode == "closed" else pod.status()["degraded"], what="the status to say so")
    status = pod.status()
    assert (pod.published(), status["ready"]) == ("refuse", mode == "open")
    assert status["owed"] is not None
    assert pod.sidecar.metric("reloader_rollbacks_total") == 0

    pod.set(tls=authority.issue("web")[0].read_text())
    eventually(lambda: pod.published() == "good-1", what="the new certificate, with the routes that were good")
    eventually(lambda: pod.status()["owed"] is None, what="its confirmation")
    assert pod.status()["ready"]


def test_closed_closes_when_refused_content_has_waited_for_long(pod):
    pod = pod(mode="closed").begin()
    pod.set(routes="refuse")
    rolled_back(pod, "good-1 cert-1")
    assert pod.sidecar.ready()

    eventually(lambda: pod.status()["closed"], what="max_staleness")

    pod.set(routes="good-2")
    eventually(pod.sidecar.ready, what="readiness")
