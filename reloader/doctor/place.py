"""Where this process runs, and what that machine says of itself: `/proc`, `/sys` and the environment."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from reloader.doctor.finding import Evidence

_IN_MEMORY = ("tmpfs", "ramfs")
_MARKS = ("/.dockerenv", "/run/.containerenv")
_CGROUPS = re.compile(r"docker|libpod|containerd|crio|lxc")
SANDBOXES = ("/pause", "/catatonit")
"""What PID 1 is called where the containers of a Pod share one process namespace: the kubelet's, and podman's."""


class Place(StrEnum):
    """What kind of place it is; the mends differ."""

    POD = "pod"
    CONTAINER = "container"
    """Docker, podman or compose."""
    HOST = "host"


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One line of a mountinfo, proc(5)."""

    line: str
    device: str
    root: str
    """Which part of the file system is mounted: `/` for all of it."""
    point: str
    options: frozenset[str]
    kind: str

    @property
    def is_in_memory(self) -> bool:
        """Return whether what is written there never reaches a disk."""
        return self.kind in _IN_MEMORY

    def inside(self, path: str) -> str:
        """Return where a path below the mount point is in the file system itself."""
        rest = path.removeprefix(self.point.rstrip("/")).strip("/")
        return f"{self.root.rstrip('/')}/{rest}".rstrip("/") or "/"


@dataclass(frozen=True)
class Machine:
    """What can be seen of the machine; `root` is where it is seen."""

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    def text(self, path: str) -> str | None:
        """Return what a file says, or None where it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """Return the number that a file says, or None where it says none."""
        text = (self.text(path) or "").strip()
        return int(text) if text.isdecimal() else None

    def status(self, pid: int | str = "self") -> dict[str, str]:
        """Return the fields of a process's status; none where there is no such process."""
        lines = (line.partition(":") for line in (self.text(f"/proc/{pid}/status") or "").splitlines())
        return {key: value.strip() for key, _, value in lines}

    def mounts(self, pid: int | str = "self") -> tuple[Mount, ...]:
        """Return what a process sees mounted; nothing where that cannot be read."""
        return tuple(map(_mount, (self.text(f"/proc/{pid}/mountinfo") or "").splitlines()))

    def container(self, pid: int | str = "self") -> tuple[str, str]:
        """Return in which container a process is, as a mount namespace and as a control group; empty where that may not be seen."""
        try:
            namespace = str((self.root / f"proc/{pid}/ns/mnt").readlink())
        except OSError:
            namespace = ""
        return namespace, self.text(f"/proc/{pid}/cgroup") or ""

    def beside(self, pid: int) -> bool:
        """Return whether a process is in this container."""
        (namespace, group), (own_namespace, own_group) = self.container(pid), self.container()
        if namespace and own_namespace:
            return namespace == own_namespace
        return group == own_group


def covering(mounts: tuple[Mount, ...], path: str) -> Mount | None:
    """Return the mount that a path is on: the deepest, and of several at one point the last."""
    found = [mount for mount in mounts if path == mount.point or path.startswith(mount.point.rstrip("/") + "/")]
    return max(enumerate(found), key=lambda item: (len(item[1].point), item[0]))[1] if found else None


def place_of(machine: Machine) -> tuple[Place, Evidence]:
    """Return where this is, and what shows it."""
    return next(_shown(machine))


def _shown(machine: Machine) -> Iterator[tuple[Place, Evidence]]:
    if "KUBERNETES_SERVICE_HOST" in machine.environ:
        yield Place.POD, Evidence("environment", "KUBERNETES_SERVICE_HOST is set")
    first = (machine.text("/proc/1/cmdline") or "").split("\0")[0]
    if first == SANDBOXES[0]:
        yield Place.POD, Evidence("/proc/1/cmdline", f"PID 1 is {first}")
    groups = machine.text("/proc/self/cgroup") or ""
    if "kubepods" in groups:
        yield Place.POD, Evidence("/proc/self/cgroup", groups.strip())
    for mark in _MARKS:
        if (machine.root / mark.lstrip("/")).exists():
            yield Place.CONTAINER, Evidence(mark, "is there")
    if _CGROUPS.search(groups):
        yield Place.CONTAINER, Evidence("/proc/self/cgroup", groups.strip())
    yield Place.HOST, Evidence("/proc", "nothing of a Pod or a container is to be seen")


def _mount(line: str) -> Mount:
    fields = line.split(" ")
    end = fields.index("-")  # proc(5): a variable number of fields comes before the hyphen
    return Mount(
        line=line,
        device=fields[2],
        root=_unescaped(fields[3]),
        point=_unescaped(fields[4]),
        options=frozenset((*fields[5].split(","), *fields[end + 3].split(","))),
        kind=fields[end + 1],
    )


def _unescaped(path: str) -> str:
    return re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), path)
