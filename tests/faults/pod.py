"""A Pod on this machine: a mounted directory, an application that notes what it reads, a sidecar whose disk and clock fail on request."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.sidecar import Sidecar
from tests.kubelet import KubeletVolume
from tests.servers.daemon import Daemon
from tests.targets.reading import FILES, read
from tests.waiting import eventually

HERE = Path(__file__).parent

CONFIGURATION = """
sources:
  site: {{kind: files, path: {mounted}}}
volume:
  path: {live}
  {volume}
target:
  match: {{pidfile: {pidfile}}}
  verify: {{alive: true, within: 50ms}}
timing: {{min_interval: {min_interval}, resync: {resync}}}
failure: {failure}
"""
USUAL = {"volume": "copy: site", "min_interval": "0s", "resync": "60s", "failure": "{mode: open}"}


class Mounts:
    """A mount namespace: what is mounted in it is gone with the test, however that ends."""

    def __init__(self, folder: Path) -> None:
        script = "import signal; print('here', flush=True); signal.pause()"
        self._holder = Daemon(folder / "mounts.log")
        unshared = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", script]
        self._holder.start(unshared, ready=lambda: "here" in self._holder.log.read_text())
        self.enter = ("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt")

    def run(self, *command: str | Path) -> None:
        subprocess.run([*self.enter, *command], check=True, capture_output=True)

    def seen(self, path: Path) -> Path:
        """Return where this process sees what is at that path in there."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def close(self) -> None:
        self._holder.stop(kill=True)


class Pod:
    """All of it; `mounts` is where the application and the sidecar run, if not where the test does."""

    def __init__(self, folder: Path, mounts: Mounts | None = None, **configured: str) -> None:
        self.folder, self.enter = folder, mounts.enter if mounts else ()
        self.path = folder / "live"
        self.live = mounts.seen(self.path) if mounts else self.path
        self.pidfile, self._notes, self._control = folder / "app.pid", folder / "notes", folder / "control"
        self.mounted = KubeletVolume(folder / "mounted")
        configuration = folder / "app.yaml"
        options = {**USUAL, **configured}
        configuration.write_text(CONFIGURATION.format(mounted=self.mounted.path, live=self.path, pidfile=self.pidfile, **options))
        self.control()
        program = [*self.enter, sys.executable, HERE / "faulty.py", self._control]
        self.sidecar = Sidecar(folder / "sidecar", configuration, program=program)
        self.application = Daemon(folder / "application.log")
        self.set_of: Callable[[int], Mapping[str, str]] = lambda number: dict.fromkeys(FILES, str(number))
        """The files of a set; each holds nothing but its number."""

    def control(self, *fails: Mapping[str, Any], wall: float = 0) -> None:
        """Say what fails from now on, and how far the wall clock is ahead; see faulty.py."""
        new = self._control.with_suffix(".new")
        new.write_text(json.dumps({"fails": fails, "wall": wall}))
        new.rename(self._control)

    def start(self) -> "Pod":
        """Start the application and the sidecar, and return when the application runs on set 1."""
        self.swap(1)
        self.start_application()
        self.sidecar.start()
        self.arrived(1)
        return self

    def start_application(self) -> None:
        self.pidfile.unlink(missing_ok=True)
        script = HERE.parent / "targets" / "reading.py"
        command: Sequence[str | Path] = [*self.enter, sys.executable, script, self.path, self.pidfile, self._notes]
        self.application.start(command, ready=self.pidfile.exists)

    def swap(self, number: int) -> None:
        self.mounted.swap(self.set_of(number))

    def served(self) -> int | None:
        """Return the number of the set that a reader gets; AssertionError if it is torn."""
        found = read(self.live)
        if found is None:
            return None
        assert len(set(found.values())) == 1, found
        return int(found["one.conf"].split()[0])

    def arrived(self, number: int, *, within: float = 15) -> None:
        """Wait until the application has read this set, and everything says that it did and that nothing is wrong."""
        eventually(lambda: self._is_at(number), within=within, what=f"set {number} to be confirmed")

    def _is_at(self, number: int) -> bool:
        state = self.sidecar.pipeline()
        assert self.served() == number, self.served()
        assert self.noted()[-1]["read"] == {name: self.set_of(number)[name] for name in FILES}
        assert self.sidecar.settled(), state
        assert (state["ready"], state["degraded"], state["closed"], state["owed"]) == (True, False, False, None), state
        return self.record()["confirmed"]["number"] == self.record()["published"]

    def told(self, *texts: str, ready: bool = True) -> dict[str, Any]:
        """Wait until status, readiness and log say that the volume has a fault, with these words; return the status of the pipeline."""
        return eventually(lambda: self._tells(("volume: ", *texts), ready=ready), what=f"the sidecar to tell {texts}")

    def told_nothing_is_published(self, *texts: str) -> dict[str, Any]:
        """Wait until they say that there is no set, and why."""
        texts = ("nothing is published", *texts)
        return eventually(lambda: self._tells(texts, ready=False), what=f"the sidecar to tell {texts}")

    def _tells(self, texts: Sequence[str], *, ready: bool) -> dict[str, Any]:
        state, reasons = self.sidecar.pipeline(), " ".join(self.sidecar.pipeline()["reasons"])
        assert all(text in reasons for text in texts), (reasons, texts)
        assert (state["degraded"], state["ready"], self.sidecar.ready()) == (True, ready, ready), state
        warnings = [line.get("reason", "") for line in self.sidecar.lines() if line.get("level") == "warning"]
        assert any(all(text in warning for text in texts[1:]) for warning in warnings), warnings
        return state

    def noted(self) -> list[dict[str, Any]]:
        """Return what the application read, each time it started or was signalled."""
        return [json.loads(line) for line in self._notes.read_text().splitlines()]

    @property
    def signals(self) -> int:
        assert all(len(set(note["read"].values())) == 1 for note in self.noted() if note["read"]), "a torn set was read"
        return sum(note["signalled"] for note in self.noted())

    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.live / "..reloader" / "record.json").read_text()))

    def close(self) -> None:
        self.sidecar.stop(kill=True)
        self.application.stop(kill=True)
