"""A whole sidecar as a Pod runs it, a user without capabilities beside a target of the same user: what that one gets of it."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.sidecar import Sidecar
from tests.everyone import folder_for_everyone
from tests.kubelet import KubeletVolume
from tests.unit.test_hardening import CANARY, NOBODY, needs_root, seen_by_another
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
PROGRAM = ("sh", "-c", 'umask 0; exec "$@"', "sh", *NOBODY, sys.executable, "-m", "reloader")
TARGET = "import signal, sys; signal.signal(signal.SIGHUP, lambda *_: print('HUP', flush=True)); print(flush=True); sys.stdin.read()"


class Pod:
    """A sidecar and a process of the same user."""

    def __init__(self, folder: Path) -> None:
        self.shared = folder / "shared"  # as an emptyDir: anyone's
        self.shared.mkdir()
        self.shared.chmod(0o777)
        self.site = KubeletVolume(folder / "site")
        self.configuration = folder / "app.yaml"
        self.marker = f"{folder.name}-target"
        self.configuration.write_text(
            f"sources: {{site: {{kind: files, path: {self.site.path}}}}}\n"
            f"volume: {{path: {self.shared}/live, files: {{app.conf: {{content: '{{{{ site.text }}}}'}}}}}}\n"
            f"target: {{match: {{cmdline: '{self.marker}', uid: 65534}}, verify: {{within: 300ms}}}}\n"
            f"state: {{path: {self.shared}/deep/state}}\ntiming: {{min_interval: 0s}}\n"
        )
        env = {"VAULT_TOKEN": CANARY, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
        self.env = {**os.environ, **env}
        self.site.path.chmod(0o755)
        self.target = subprocess.Popen(
            [*NOBODY, sys.executable, "-c", TARGET, self.marker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.env
        )
        assert self.target.stdout is not None
        self.target.stdout.readline()
        self.sidecar = Sidecar(folder / "sidecar", self.configuration, env=env, program=PROGRAM)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*NOBODY, sys.executable, "-m", "reloader", *arguments]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=False)

    def stop(self) -> None:
        self.sidecar.stop()
        self.target.kill()
        self.target.communicate()


@pytest.fixture
def pod() -> Iterator[Pod]:
    with folder_for_everyone() as folder:
        pod = Pod(folder)
        pod.site.swap({"text": "one"})
        try:
            pod.sidecar.start()
            eventually(pod.sidecar.settled, what="the first confirmation")
            yield pod
        finally:
            pod.stop()


@needs_root
def test_the_target_sees_nothing_of_a_sidecar_of_its_own_user_and_all_of_it_works(pod):
    """It watches, signals, verifies, serves and takes commands, closed as it is."""
    assert set(seen_by_another(pod.sidecar.pid).values()) == {False}
    pod.site.swap({"text": "two"})
    eventually(lambda: pod.target.stdout.readline() == "HUP\n", what="the signal")
    eventually(lambda: pod.sidecar.settled() and pod.sidecar.pipeline()["generations"]["published"] == 2, what="the second confirmation")

    done = pod.command("rollback", "--config", str(pod.configuration))
    assert done.returncode == 0, done.stderr
    assert (pod.shared / "live/app.conf").read_text() == "one"
    assert pod.command("resume", "--config", str(pod.configuration)).returncode == 0
    assert pod.command("status", str(pod.configuration)).returncode == 0
    assert "memory is open" not in pod.sidecar.log()
    assert {line["level"] for line in pod.sidecar.lines()} <= {"debug", "info"}


@needs_root
def test_what_the_target_can_see_is_known(pod):
    """Who shares the process namespace learns that there is a sidecar, how it was called, and nothing of its making."""
    script = f"""
import json, os
seen = {{}}
for name in os.listdir("/proc/{pod.sidecar.pid}"):
    try:
        seen[name] = len(open(f"/proc/{pod.sidecar.pid}/{{name}}", "rb").read())
    except OSError:
        pass
print(json.dumps(sorted(name for name, size in seen.items() if size)))
"""
    done = subprocess.run([*NOBODY, sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seen = set(json.loads(done.stdout))
    assert {"cmdline", "comm", "stat", "status"} <= seen
    assert seen.isdisjoint({"environ", "mem", "maps", "smaps", "auxv", "io", "stack", "syscall", "pagemap", "numa_maps", "smaps_rollup"})


@needs_root
def test_a_configuration_that_may_not_be_reached_is_a_mistake(pod):
    """It is told with its path, not as an error of ours."""
    hidden = pod.configuration.parent / "hidden"
    hidden.mkdir(0o700)
    (hidden / "app.yaml").write_text(pod.configuration.read_text())
    done = pod.command("check", str(hidden / "app.yaml"))
    assert done.returncode == 2
    assert f"{hidden}/app.yaml" in done.stderr
    assert "Permission denied" in done.stderr


@needs_root
def test_whatever_the_umask_nobody_else_may_write(pod):
    """With a umask of 0, every file has the mode that it is meant to have, and no directory is open to others."""
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in pod.shared.rglob("*") if not path.is_symlink()}
    named = {str(path.relative_to(pod.shared)): mode for path, mode in modes.items()}
    assert named.pop("live/..1/app.conf") == 0o640
    assert {named.pop("live"), named.pop("live/..1")} == {0o750}
    assert {named.pop(each) for each in ("deep", "deep/state", "live/..reloader")} == {0o700}
    assert named.pop("deep/state/control.sock") == 0o600
    assert set(named.values()) == {0o600}, named
