"""dockerd as users of Docker have it: a bridge, healthchecks, restarts. It is fetched, not installed, and has namespaces of its own."""

import http.client
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import urlencode

from tests.servers import UnavailableError, apart
from tests.servers.daemon import Daemon
from tests.servers.debian import Program, cache, cache_locked, program, run
from tests.servers.podman import Podman
from tests.waiting import eventually

_NEEDED = ("bash", "ip", "iptables", "unshare", "nsenter")
_BRIDGED = "ip link add name probe type bridge && iptables --table=nat --list"
_NAME_SERVER = "10.0.2.3"
"""What slirp4netns answers for this machine's own, which a network of its own may not reach."""


class Docker:
    """dockerd with its bridge, its rules, its mounts and its processes in namespaces of its own; its files are in the cache of the tests.

    Whatever it made is gone when it is stopped, and when this process is killed, which has one at a time. It reaches what this machine
    reaches, by slirp4netns, so that images can be built; nobody reaches what it publishes but by `inside`.

    Raises:
        UnavailableError: it cannot be had, or this machine does not let it have what it needs.

    """

    def __init__(self, log: Path) -> None:
        if os.getuid() != 0:
            raise UnavailableError("dockerd needs root")
        if lacking := [name for name in _NEEDED if not shutil.which(name)]:
            raise UnavailableError(f"this machine has no {', '.join(lacking)}")
        run("unshare", "--mount", "--net", "--pid", "--fork", "sh", "-ec", _BRIDGED)
        self._dockerd, self._slirp = program("dockerd", "docker.io"), program("slirp4netns", "slirp4netns")
        _remove_of_the_dead()
        self._folder = _folder() / str(os.getpid())
        self._socket = self._folder / "sock"
        self.group = _group(self._folder)
        self._daemon, self._uplink = Daemon(log, death_signal="TERM"), Daemon(log.with_suffix(".uplink.log"))

    @property
    def address(self) -> str:
        """What `DOCKER_HOST` is for its clients."""
        return f"unix://{self._socket}"

    @property
    def inside(self) -> list[str]:
        """The words before a command that is to have its network."""
        return ["nsenter", f"--target={self._daemon.pid}", "--net"]

    @property
    def process(self) -> int:
        """The process id of who listens, as the kernel tells it to a client."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self._socket))
            process, _, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(process)

    def start(self) -> None:
        """Return when it answers."""
        self._folder.mkdir()
        options = {
            "host": self.address,
            "data-root": self._folder / "data",
            "cgroup-parent": f"/{self.group}",
            "exec-opt": "native.cgroupdriver=cgroupfs",  # systemd is not in there
            "dns": _NAME_SERVER,
        }
        command = ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
        alone = ["unshare", "--mount", "--net", sys.executable, apart.__file__, self._folder, self.group, *command]
        self._daemon.start(alone, env=_with_its_programs(self._dockerd), ready=lambda: not self._ask("HEAD", "/_ping"))
        network = ("--configure", "--ready-fd=1", "--netns-type=path", f"/proc/{self._daemon.pid}/ns/net", "tap0")
        self._uplink.start([self._slirp.path, *network], env=self._slirp.env, ready=lambda: "1" in self._uplink.tail())

    def load(self, images: Mapping[str, str], engine: Podman) -> None:
        """Have what podman built: `images` has its names there, by the names that it is to have here."""
        words = ["podman", "save", "--quiet", "--multi-image-archive", *{*images.values()}]
        with subprocess.Popen(words, env=engine.env, stdout=subprocess.PIPE) as saving:
            assert saving.stdout
            self._ask("POST", "/images/load?quiet=1", saving.stdout)
        for here, there in images.items():
            repository, tag = here.split(":")
            self._ask("POST", f"/images/{there}/tag?{urlencode({'repo': repository, 'tag': tag})}")

    def stop(self, *, kill: bool = False) -> None:
        """End it, and take away what it made; with `kill` too, which is no other way for containers that are thrown away."""
        if self._daemon.running:
            os.kill(self._daemon.pid, signal.SIGTERM)
            eventually(lambda: not self._daemon.running, within=120, what="dockerd and its files gone")
        self._daemon.stop(kill=kill)
        self._uplink.stop(kill=kill)

    def _ask(self, method: str, path: str, body: IO[bytes] | None = None) -> str:
        connection = _Connection(self._socket)
        try:
            connection.request(method, path, body, {"Content-Type": "application/x-tar"} if body else {})
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status < 300, f"{method} {path}: {answer.status} {text}"
            return text
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over dockerd's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("docker")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def _with_its_programs(dockerd: Program) -> dict[str, str]:
    """Return an environment in which it finds containerd and the others, which are in two folders beside each other."""
    sbin = dockerd.path.parent
    return {**dockerd.env, "PATH": os.pathsep.join((str(sbin), str(sbin.with_name("bin")), os.environ["PATH"]))}


def _folder() -> Path:
    """Return what has a folder for each test process, by its number: short enough for the address of a socket."""
    folder = cache() / "docker"
    folder.mkdir(exist_ok=True)
    return folder


def _group(folder: Path) -> str:
    return f"config-reloader-tests-{folder.name}"


def _remove_of_the_dead() -> None:
    """Remove what is left where not only the test process was killed but also what takes away."""
    with cache_locked():
        for each in _folder().iterdir():
            if not Path(f"/proc/{each.name}").exists():
                apart.remove(each, _group(each))
