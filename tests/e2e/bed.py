"""A Pod with a reloader and its target in it, in which nothing is wrong until a test plants something; and the doctor at its side."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.e2e.mending import configured, patched
from tests.e2e.small_pod import ROOT, SmallPod
from tests.targets.started import PRINT_SIGNALS, unique

SCHEMA = json.loads((ROOT / "docs/doctor.schema.json").read_text())
DROPPED = {
    "runAsUser": 10001,
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
IDLE = "import signal; signal.pause()"
DOCTOR = (sys.executable, "-m", "reloader", "doctor")


class Examined:
    """What the doctor said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stdout, done.stderr
        self.status = done.returncode
        self.document: dict[str, Any] = json.loads(done.stdout)
        jsonschema.validate(self.document, SCHEMA)
        self.findings: list[dict[str, Any]] = self.document["findings"]

    def of(self, check: str) -> list[dict[str, Any]]:
        return [finding for finding in self.findings if finding["check"] == check]

    def wrong(self) -> dict[str, str]:
        """Return the worst state of each check that found something wrong."""
        found: dict[str, str] = {}
        for finding in self.findings:
            if finding["state"] in ("warning", "failed"):
                found[finding["check"]] = max(found.get(finding["check"], ""), finding["state"], key=("", "warning", "failed").index)
        return found

    def finding(self, check: str, seen: str) -> dict[str, Any]:
        """Return what is wrong by a check, with this in its evidence."""
        wrong = [finding for finding in self.of(check) if finding["state"] in ("warning", "failed")]
        found = [each for each in wrong if any(seen in f"{one['where']} {one['seen']}" for one in each["evidence"])]
        assert found, wrong
        return found[0]


class Bed:
    """One Pod; `start` brings up what its manifest and its configuration say now."""

    def __init__(self, pod: SmallPod) -> None:
        self.pod, self.folder = pod, pod.folder
        self.name = unique()
        self.file = self.folder / "app.yaml"
        self.live = self.folder / "live"
        self.site = self.folder / "site"
        self.site.mkdir()
        self.say(greeting="hello")
        self.options: tuple[str | Path, ...] = ()
        self.env: dict[str, str] = {}
        self.around: Sequence[str] = ()
        """What the doctor is started by, in the reloader's container."""
        self.inside: Sequence[str] = ()
        """The same, as the reloader's user."""
        self.ready: Callable[[], object] = lambda: True
        """Whether what is planted can be seen, and whether what mends it had its effect."""
        self.mended: Callable[[], object] = lambda: True
        self.apply: dict[str, Callable[[str], object]] = {"command": self.shell}
        """How mends of other kinds than `pod` and `configuration` are followed."""
        self.configure(
            sources={"site": {"kind": "files", "path": str(self.site)}},
            volume={"path": str(self.live), "files": {"app.conf": {"content": "{{ site.greeting }}"}}},
            target={"match": {"name": self.name}},
        )
        self.manifest = self._usual()

    def say(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.site / name).write_text(text)

    def configure(self, **sections: Any) -> None:
        """Lay sections over the configuration."""
        known = yaml.safe_load(self.file.read_text()) if self.file.exists() else {}
        self.file.write_text(yaml.safe_dump({**known, **sections}, sort_keys=False))

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self.manifest["spec"])

    @property
    def ours(self) -> dict[str, Any]:
        return self.container("reloader")

    @property
    def app(self) -> dict[str, Any]:
        return self.container("app")

    def container(self, name: str) -> dict[str, Any]:
        return next(each for each in self.spec["containers"] if each["name"] == name)

    def volume(self, name: str) -> dict[str, Any]:
        return next(each for each in self.spec["volumes"] if each["name"] == name)

    def target(self, *options: str, name: str | None = None) -> list[str]:
        """Return a command whose process has the target's name, or another."""
        link = self.folder / (name or self.name)
        if not link.exists():
            link.symlink_to(Path(sys.executable).resolve())
        return [str(link), str(PRINT_SIGNALS), *options]

    def run_reloader(self) -> None:
        """Let the reloader's container run one, and no bystander in its place."""
        self.ours["command"] = [sys.executable, "-m", "reloader", "run", str(self.file), "--listen", "off"]

    def start(self) -> None:
        self.pod.start(self.manifest)

    def examine(self) -> Examined:
        return Examined(self.doctor("--json"))

    def doctor(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = (*self.inside, *DOCTOR, self.file, *self.options, *options)
        return self.pod.run("reloader", *command, env=self.env, before=self.around)

    def shell(self, text: str) -> None:
        """Run a command where the reloader's container is, as root of the node."""
        self.pod.in_mounts("sh", "-ec", text)

    def follow(self, mend: Mapping[str, str]) -> None:
        """Do what a mend says, with nothing but its text."""
        if mend["kind"] == "pod":
            self.manifest = patched(self.manifest, mend["text"])
            self.start()
        elif mend["kind"] == "configuration":
            configured(self.file, mend["text"])
        else:
            self.apply[mend["kind"]](mend["text"])

    def _usual(self) -> dict[str, Any]:
        app = {
            "name": "app",
            "command": self.target(),
            "securityContext": {**DROPPED},
            "volumeMounts": [{"name": "live", "mountPath": str(self.live), "readOnly": True}],
        }
        ours = {
            "name": "reloader",
            "command": [sys.executable, "-c", IDLE],
            "securityContext": {**DROPPED},
            "volumeMounts": [{"name": "live", "mountPath": str(self.live)}],
        }
        volumes = [{"name": "live", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]
        spec = {"shareProcessNamespace": True, "enableServiceLinks": False, "containers": [app, ours], "volumes": volumes}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}
