"""A Pod of namespaces on this machine, from its manifest: what a kubelet does with it, as far as the doctor can tell the difference.

Real are the process and mount namespaces, tmpfs volumes with their size, mounts read-only and by subPath, users, capabilities (those that a
container adds come into effect for root alone, as in Kubernetes and unlike podman), memory limits, and the variables of Services. The root
file system and the network are this machine's.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e import measured
from tests.waiting import eventually

CONTAINED = Path(__file__).with_name("contained.py")
ROOT = Path(__file__).parents[2]
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
_DEFAULT_CAPABILITIES = ("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service")
"""What container engines leave to root."""
_MEMORY = Path("/sys/fs/cgroup/memory")
_UNITS = {"Ki": 2**10, "Mi": 2**20}


def lacking() -> str:
    """Return why there can be no such Pod here; nothing where there can be one."""
    if os.getuid() != 0:
        return "namespaces, mounts and other users need root"
    become = ["setpriv", "--reuid=65532", "--clear-groups", sys.executable, "-c", "import reloader"]
    command, env = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", *become], {**os.environ, "PYTHONPATH": str(ROOT)}
    tried = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, env=env)
    return "" if tried.returncode == 0 else f"no namespaces here, or other users may not read this checkout: {tried.stderr.strip()[-200:]}"


def lacking_memory_groups() -> str:
    """Return why no memory limit can be set here."""
    return "" if os.access(_MEMORY / "memory.limit_in_bytes", os.W_OK) else "no memory control group of the first version can be made here"


class SmallPod:
    """Started from a manifest, and started anew from a changed one; `folder` is where its volumes and mount points are."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="small-pod-", dir="/tmp"))
        self.folder.chmod(0o755)
        self._sandbox: subprocess.Popen[bytes] | None = None
        self._containers: dict[str, subprocess.Popen[bytes]] = {}
        self._beside: list[subprocess.Popen[bytes]] = []
        self._groups: list[Path] = []
        self._in_memory: list[str] = []
        self._manifest: Mapping[str, Any] = {}
        self.services: tuple[str, ...] = ()
        """The names of the Services in its namespace."""
        self.mode = 0o777
        """Of a volume; the kubelet's is for everyone."""

    def start(self, manifest: Mapping[str, Any]) -> "SmallPod":
        """Start all containers, the init containers that stay among them, in the place of those that run."""
        self.stop()
        self._manifest = manifest
        self._start_sandbox()
        for volume in self._spec.get("volumes", ()):
            self._make_volume(volume)
        for container in (*self._spec.get("initContainers", ()), *self._spec["containers"]):
            self._start(container)
        return self

    def run(
        self, name: str, *command: str | Path, env: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container, as `kubectl exec` does; `before` starts it as root."""
        container = self._container(name)
        words = self._entering(container, command, before)
        environ = {**self._environ(container), **(env or {})}
        return subprocess.run(words, capture_output=True, text=True, timeout=100, env=environ, cwd="/", check=False)

    def start_in(self, name: str, *command: str | Path) -> None:
        """Start a command in a container, and leave it there."""
        container = self._container(name)
        words = [_program("setpriv"), "--pdeathsig", "KILL", *self._entering(container, command)]
        self._beside.append(subprocess.Popen(words, env=self._environ(container), cwd="/", start_new_session=True))

    def in_mounts(self, *command: str | Path) -> None:
        """Run a command as root where the volumes are."""
        assert self._sandbox is not None
        subprocess.run(["nsenter", f"--mount=/proc/{self._pid('')}/ns/mnt", *map(str, command)], check=True, capture_output=True)

    def stop(self) -> None:
        """End all of it; the volumes are gone then."""
        for process in (*self._beside, *self._containers.values(), *((self._sandbox,) if self._sandbox else ())):
            for pid in (*_children(process.pid), process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            process.wait()
        self._containers, self._sandbox, self._beside = {}, None, []
        for group in self._groups:
            eventually(lambda group=group: group.rmdir() or True, what=f"the end of {group}")
        self._groups, self._in_memory = [], []

    def close(self) -> None:
        """End it, and remove its folder."""
        self.stop()
        measured.fetch(self.folder / "coverage")
        shutil.rmtree(self.folder)

    @property
    def _spec(self) -> Mapping[str, Any]:
        return self._manifest["spec"]

    def _container(self, name: str) -> Mapping[str, Any]:
        every = (*self._spec.get("initContainers", ()), *self._spec["containers"])
        return next(container for container in every if container["name"] == name)

    def _start_sandbox(self) -> None:
        """Start what is PID 1 of the shared namespace, and holds the volumes; the kubelet's is called /pause."""
        pause = ["bash", "-c", "exec -a /pause sleep infinity"]
        flags = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._sandbox = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", *flags, *pause], cwd="/", start_new_session=True)
        eventually(lambda: Path(f"/proc/{self._pid('')}/cmdline").read_bytes().startswith(b"/pause"), what="the sandbox")

    def _make_volume(self, volume: Mapping[str, Any]) -> None:
        place = self._place(volume["name"])
        place.mkdir(parents=True, exist_ok=True)
        empty = volume["emptyDir"] or {}
        group = self._spec.get("securityContext", {}).get("fsGroup")
        if empty.get("medium") == "Memory":
            size = f"size={_bytes(empty['sizeLimit'])}" if "sizeLimit" in empty else "size=50%"
            self.in_mounts("mount", "-t", "tmpfs", "-o", f"{size},mode={self.mode:o}", "tmpfs", place)
            self._in_memory.append(str(place))
        else:
            place.chmod(self.mode)
        if group:
            self.in_mounts("chgrp", str(group), place)
            self.in_mounts("chmod", "2775", place)

    def _place(self, volume: str) -> Path:
        return self.folder / "volumes" / volume

    def _start(self, container: Mapping[str, Any]) -> None:
        shared = bool(self._spec.get("shareProcessNamespace"))
        sandbox = self._pid("")
        enter = ["nsenter", f"--mount=/proc/{sandbox}/ns/mnt", *([f"--pid=/proc/{sandbox}/ns/pid"] if shared else []), "--"]
        unshare = ["unshare", "--mount", "--propagation", "private", *([] if shared else ["--pid", "--fork", "--kill-child"])]
        spec = {
            "group": self._limit(container),
            "own_processes": not shared,
            "mounts": [self._mount(mount) for mount in container.get("volumeMounts", ())],
            "hidden": self._in_memory,
            "writable": [str(path) for path in (self.folder / "coverage",) if path.is_dir()],
            "read_only_root": bool(container.get("securityContext", {}).get("readOnlyRootFilesystem")),
            "become": self._become(container),
            "command": list(map(str, container["command"])),
            "env": self._environ(container),
        }
        command = ["setpriv", "--pdeathsig", "KILL", *enter, *unshare, sys.executable, str(CONTAINED), json.dumps(spec)]
        with (self.folder / f"{container['name']}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, start_new_session=True)
        self._containers[container["name"]] = process
        eventually(lambda: self._runs(container), what=f"container {container['name']}: {self._log(container)}")

    def _runs(self, container: Mapping[str, Any]) -> bool:
        running = Path(f"/proc/{self._pid(container['name'])}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return list(map(os.fsdecode, running)) == list(map(str, container["command"]))

    def _log(self, container: Mapping[str, Any]) -> str:
        return (self.folder / f"{container['name']}.log").read_text()[-2000:]

    def _mount(self, mount: Mapping[str, Any]) -> tuple[str, str, bool]:
        source, point = self._place(mount["name"]), Path(mount["mountPath"])
        if mount.get("subPath"):
            source /= mount["subPath"]
            self.in_mounts("touch", source)
            point.parent.mkdir(parents=True, exist_ok=True)
            point.touch()
        else:
            point.mkdir(parents=True, exist_ok=True)
        return str(source), str(point), bool(mount.get("readOnly"))

    def _limit(self, container: Mapping[str, Any]) -> str:
        written = container.get("resources", {}).get("limits", {}).get("memory")
        if lacking_memory_groups():
            assert written is None, "see lacking_memory_groups"
            return ""
        group = _MEMORY / f"small-pod-{uuid.uuid4().hex[:8]}"
        group.mkdir()
        self._groups.append(group)
        if written is not None:
            (group / "memory.limit_in_bytes").write_text(str(_bytes(written)))
        return str(group)

    def _entering(self, container: Mapping[str, Any], command: Sequence[str | Path], before: Sequence[str] = ()) -> list[str]:
        pid = self._pid(container["name"])
        enter = [_program("nsenter"), f"--mount=/proc/{pid}/ns/mnt", f"--pid=/proc/{pid}/ns/pid", "--"]
        return [*enter, *before, *self._joining(container), *self._become(container), *map(str, command)]

    def _joining(self, container: Mapping[str, Any]) -> Sequence[str]:
        """Return what puts a command into the control group of its container."""
        group = self._pid_group(container["name"])
        return ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', group] if group else []

    def _pid_group(self, name: str) -> str:
        lines = Path(f"/proc/{self._pid(name)}/cgroup").read_text().splitlines()
        found = next((line.split(":", 2)[2] for line in lines if line.split(":")[1] == "memory"), "")
        return f"{_MEMORY}{found}" if found.startswith("/small-pod-") else ""

    def _become(self, container: Mapping[str, Any]) -> list[str]:
        security = {**self._spec.get("securityContext", {}), **container.get("securityContext", {})}
        uid, wanted = security.get("runAsUser", 0), security.get("capabilities", {})
        kept = () if "ALL" in wanted.get("drop", ()) else _DEFAULT_CAPABILITIES
        bound = ",".join(["-all", *(f"+{name.lower()}" for name in dict.fromkeys((*kept, *map(str.lower, wanted.get("add", ())))))])
        group = security.get("fsGroup")
        groups = f"--groups={group}" if group else "--clear-groups"
        privileges = [] if security.get("allowPrivilegeEscalation", True) else ["--no-new-privs"]
        return [_program("setpriv"), f"--bounding-set={bound}", "--inh-caps=-all", f"--reuid={uid}", f"--regid={uid}", groups, *privileges]

    def _environ(self, container: Mapping[str, Any]) -> dict[str, str]:
        links = {} if self._spec.get("enableServiceLinks") is False else _links(self.services)
        own = {each["name"]: each["value"] for each in container.get("env", ())}
        inherited = {name: text for name, text in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "COVERAGE_CORE")}
        return {
            **inherited,
            **measured.environ(self.folder / "coverage"),
            "PYTHONPATH": str(ROOT),
            "HOME": "/",
            **KUBERNETES,
            **links,
            **own,
        }

    def _pid(self, name: str) -> int:
        """Return the process that a container runs; of the sandbox without a name. What enters or makes a pid namespace forks once."""
        process = self._containers[name] if name else self._sandbox
        assert process is not None
        return (_children(process.pid) or [process.pid])[0]


def _program(name: str) -> str:
    """Return the whole path of a program: the PATH of a container is its own affair."""
    return shutil.which(name) or name


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def _links(services: Sequence[str]) -> dict[str, str]:
    """Return the variables that the kubelet sets for Services."""
    found = {}
    for service in services:
        name = service.upper().replace("-", "_")
        found |= {f"{name}_SERVICE_HOST": "10.0.0.7", f"{name}_SERVICE_PORT": "9533", f"{name}_PORT": "tcp://10.0.0.7:9533"}
    return found


def _bytes(written: str) -> int:
    return int(written[:-2]) * _UNITS[written[-2:]]
