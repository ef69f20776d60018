"""dockerd as users of Docker have it: a bridge, healthchecks, restarts. It is fetched, not installed, and has namespaces of its own."""

import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode

from tests.servers import UnavailableError, apart
from tests.servers.daemon import Daemon
from tests.servers.debian import cache, cache_locked, program, run
from tests.servers.podman import Podman
from tests.waiting import eventually

_NEEDED = ("ip", "iptables", "unshare")
_BRIDGED = "ip link add name probe type bridge && iptables --table=nat --list"
_NAME_SERVER = "10.0.2.3"
"""What slirp4netns answers for this machine's own, which a network of its own may not reach."""


class Docker:
    """dockerd with its bridge, its rules, its mounts and its processes in namespaces of its own; its files are in the cache of the tests.

    Whatever it made is gone when it is stopped, and when this process is killed. It reaches what this machine reaches, and nobody reaches it
    but by `inside`.

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
        self._folder = _folder(cache() / "docker")
        self._group = _group(self._folder)
        self._daemon, self._uplink = Daemon(log, death_signal="TERM"), Daemon(log.with_suffix(".uplink.log"))
        self._socket = self._folder / "sock"

    @property
    def address(self) -> str:
        """What `DOCKER_HOST` is for its clients."""
        return f"unix://{self._socket}"

    @property
    def inside(self) -> list[str]:
        """The words before a command that is to have its network."""
        return ["nsenter", f"--target={self._daemon.pid}", "--net"]

    def start(self) -> None:
        """Return when it answers."""
        self._folder.mkdir(parents=True)
        options = {
            "host": self.address,
            "data-root": self._folder / "data",
            "cgroup-parent": f"/{self._group}",
            "exec-opt": "native.cgroupdriver=cgroupfs",  # whatever starts services here
            "dns": _NAME_SERVER,
        }
        words = [sys.executable, apart.__file__, self._folder, self._group, *(f"--{name}={value}" for name, value in options.items())]
        path = os.pathsep.join((str(self._dockerd.path.parent), str(self._dockerd.path.parents[1] / "bin"), os.environ["PATH"]))
        self._daemon.start(["unshare", "--mount", "--net", *words], env={**self._dockerd.env, "PATH": path}, ready=lambda: self._ask("GET", "/_ping"))
        link = self._folder / "uplink"
        network = ("--configure", "--netns-type=path", f"--ready-fd=1", f"/proc/{self._daemon.pid}/ns/net", "tap0")
        self._uplink.start([self._slirp.path, *network], env=self._slirp.env, ready=lambda: "1" in self._uplink.tail())

    def load(self, images: Mapping[str, str], engine: Podman) -> None:
        """Have what podman built by other names: `images` is, by the name here, the name there."""
        words = ["podman", "save", "--quiet", "--multi-image-archive", *{*images.values()}]
        with subprocess.Popen(words, env=engine.env, stdout=subprocess.PIPE) as saving:
            assert saving.stdout
            self._ask("POST", "/images/load?quiet=1", saving.stdout)
        for here, there in images.items():
            repository, tag = here.split(":")
            self._ask("POST", f"/images/{there}/tag?{urlencode({'repo': repository, 'tag': tag})}")

    def restart(self) -> None:
        """End dockerd, and with it all containers, as a reboot does, and return when it answers again."""
        before = self._process()
        os.kill(before, signal.SIGTERM)
        eventually(lambda: self._process() != before and self._ask("GET", "/_ping"), within=60, what="dockerd back")

    def stop(self, *, kill: bool = False) -> None:
        """End it and take away what it made."""
        if self._daemon.running:
            os.kill(self._daemon.pid, signal.SIGKILL if kill else signal.SIGTERM)
            eventually(lambda: not self._daemon.running, within=120, what="dockerd and its files gone")
        self._daemon.stop()
        self._uplink.stop()

    def _process(self) -> int:
        """Who listens."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self._socket))
            process, _, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(process)

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
