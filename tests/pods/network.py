"""The network between a node and a Pod: what is asked from outside comes by an interface of the Pod, and not by its loopback."""

import ctypes
import http.client
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.servers import UnavailableError

NODE, POD = "192.0.2.1", "192.0.2.2"
"""Of a range that is for documentation (RFC 5737)."""
_NEW_NETWORK = 0x40000000
"""CLONE_NEWNET, linux/sched.h."""


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    status: int
    text: str


class Network:
    """A node's network namespace, which no process but this one has: it ends with it, and this machine's own network is not touched.

    Raises:
        UnavailableError: this machine cannot have one.

    """

    def __init__(self) -> None:
        if not shutil.which("ip"):
            raise UnavailableError("this machine has no ip (Debian's package iproute2)")
        with ThreadPoolExecutor(1) as first:
            self._namespace = first.submit(_unshared).result()
        self._inside = ThreadPoolExecutor(8, "node", initializer=_entered, initargs=(self._namespace,))

    def join(self, process: int) -> None:
        """Connect the network that a process has."""
        self._inside.submit(_connected, process).result()

    def get(self, port: int, path: str, timeout: float = 5) -> Answer:
        """Ask the Pod; OSError where nobody answers within `timeout` seconds."""
        return self._inside.submit(_asked, port, path, timeout).result()

    def close(self) -> None:
        """Leave it, which ends it."""
        self._inside.shutdown()
        os.close(self._namespace)


def _unshared() -> int:
    """Give this thread a network of its own, and return what holds it."""
    _system("unshare", _NEW_NETWORK)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _entered(namespace: int) -> None:
    _system("setns", namespace, _NEW_NETWORK)


def _system(name: str, *arguments: int) -> None:
    """Call what `os` has from Python 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise UnavailableError(f"{name}: {os.strerror(ctypes.get_errno())}")


def _connected(process: int) -> None:
    inside = ("nsenter", f"--net=/proc/{process}/ns/net", "ip")
    for words in (
        ("ip", "link", "add", "name", "pod", "type", "veth", "peer", "name", "eth0", "netns", str(process)),
        ("ip", "address", "add", f"{NODE}/30", "dev", "pod"),
        ("ip", "link", "set", "pod", "up"),
        (*inside, "address", "add", f"{POD}/30", "dev", "eth0"),
        (*inside, "link", "set", "eth0", "up"),
        (*inside, "link", "set", "lo", "up"),
    ):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


def _asked(port: int, path: str, timeout: float) -> Answer:
    connection = http.client.HTTPConnection(POD, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"User-Agent": "kube-probe/1.34"})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode())
    finally:
        connection.close()
