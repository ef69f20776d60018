"""A proxy that is given what it cannot use, without a check before it: two mounted directories, the proxy on them, and the sidecar."""

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from cryptography import x509

from tests.e2e.sidecar import Sidecar
from tests.kubelet import KubeletVolume
from tests.servers.certificates import Authority
from tests.servers.haproxy import Haproxy
from tests.servers.nginx import Nginx
from tests.servers.ports import free_port
from tests.servers.resolver import Resolver
from tests.waiting import eventually

WITHIN = 1.5
"""How long a verification takes at most, in seconds."""

CONFIGURATION = """
sources:
  site: {{kind: files, path: {site}}}
  tls:  {{kind: files, path: {tls}}}
volume:
  path: {live}
  files: {files}
target:
  match: {match}
  signal: {signal}
  verify: {{workers: true, within: {within}s}}
timing: {{min_interval: 0s}}
failure: {{retry_refused: {retry}}}
"""


class House:
    """What all proxies have in common; a text and a certificate are served."""

    files: ClassVar[str]
    signal: ClassVar[str]
    through: tuple[str, ...] = ()
    """The command that executes the proxy, where there is one."""

    def __init__(self, folder: Path, make: Callable[[Path, Path], Nginx | Haproxy], *, retry: str = "never") -> None:
        self.folder, self.live, self.port = folder, folder / "live", free_port()
        self.authority = Authority(folder / "authority")
        self.context = ssl.create_default_context(cafile=str(self.authority.ca_file))
        self.site, self.tls = KubeletVolume(folder / "site"), KubeletVolume(folder / "tls")
        self.server = make(folder / "server", self.live / "proxy.conf")
        self.expected = ("", 0)
        self.say("one")
        self.certify()
        configuration = folder / "proxy.yaml"
        given = {"files": self.files, "signal": self.signal, "within": WITHIN, "retry": retry}
        configuration.write_text(CONFIGURATION.format(site=self.site.path, tls=self.tls.path, live=self.live, match=self.match(), **given))
        self.sidecar = Sidecar(folder / "sidecar", configuration, env=self.server.env)

    def match(self) -> str:
        """Return how the proxy is found."""
        raise NotImplementedError

    def conf(self, text: str, *, main: str, http: str) -> str:
        """Return a configuration with something more at its beginning, and where HTTP is spoken of."""
        raise NotImplementedError

    def begin(self) -> "House":
        """Bring the first set to the proxy."""
        self.sidecar.start()
        eventually(self.sidecar.ready, what="the first publish")
        self.start_server()
        eventually(self.sidecar.settled, what="the start of the proxy to be verified")
        assert self.served() == self.expected
        return self

    def start_server(self) -> None:
        """Start the proxy."""
        self.server.start(through=self.through)

    def say(self, text: str, *, main: str = "", http: str = "") -> None:
        """Change the configuration; with something more it is one that the proxy does not take."""
        self.site.swap({"proxy.conf": self.conf(text, main=main, http=http)})
        if not main and not http:
            self.expected = (text, self.expected[1])

    def certify(self, *, key_of_another: bool = False) -> None:
        """Change the certificate."""
        (certificate, key), (_, other) = self.authority.issue("localhost"), self.authority.issue("localhost")
        self.tls.swap({"tls.crt": certificate.read_text(), "tls.key": (other if key_of_another else key).read_text()})
        if not key_of_another:
            self.expected = (self.expected[0], x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number)

    def served(self) -> tuple[str, int]:
        """Return the text and the serial number of the certificate, both of one new connection."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain,
            self.context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
            certificate = connection.getpeercert(binary_form=True)
        assert certificate is not None
        return answer.rpartition("\r\n\r\n")[2].strip(), x509.load_der_x509_certificate(certificate).serial_number

    def delivered(self) -> bool:
        """Return whether what is expected is served, and nothing is owed."""
        return self.served() == self.expected and self.sidecar.pipeline()["owed"] is None

    def master(self) -> int:
        """Return the pid of the process that the sidecar asks."""
        return self.sidecar.pipeline()["target"]["pid"]

    def published(self) -> str:
        """Return the name of the generation that is published."""
        return str((self.live / "..data").readlink())

    def signals(self) -> int:
        """Return how often the proxy was asked, by its own account."""
        raise NotImplementedError

    def refusals(self) -> float:
        return self.sidecar.metric("reloader_refusals_total", stage="verify")

    def refusals_told(self) -> int:
        """Return how many lines of the log say that a set was refused."""
        return sum(line["level"] == "warning" and line["message"] == "verify" for line in self.sidecar.lines())

    def spoil(self, spoil: Callable[[], None]) -> None:
        """Publish what the proxy does not take, and see what was confirmed back in time."""
        good = self.published()
        spoil()
        eventually(lambda: self.published() != good, every=0.005, what="the broken set on the volume")
        eventually(lambda: self.published() == good, within=WITHIN + 1, what="what was confirmed last, back on the volume")

    def goes_on(self) -> None:
        """See that both sources are delivered, after one refusal."""
        self.certify()
        eventually(self.delivered, what="the certificate")
        self.say("mended")
        eventually(self.delivered, what="the mended configuration")
        assert self.refusals() == 1

    def close(self) -> None:
        self.sidecar.stop()


class Asking(threading.Thread):
    """Asks the proxy over and over, each time on a new connection, and notes every failure."""

    def __init__(self, house: House) -> None:
        super().__init__(daemon=True)
        self._house = house
        self._stopped = threading.Event()
        self.failures: list[str] = []
        self.requests = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        while not self._stopped.wait(0.02):
            self.requests += 1
            try:
                self._house.served()
            except (OSError, AssertionError) as problem:
                self.failures.append(repr(problem))


def another_key(house: House) -> None:
    house.certify(key_of_another=True)


def check_that_it_is_taken_back(house: House, spoil: Callable[[House], None]) -> None:
    """Spoil one source of a proxy whose master says no: it serves on, the other source is delivered, and the next good change at once."""
    signals, master, certificate = house.signals(), house.master(), spoil is another_key
    with Asking(house) as asking:
        house.spoil(lambda: spoil(house))
        eventually(house.delivered, what="the rollback to be confirmed")

        house.say("meanwhile") if certificate else house.certify()
        eventually(house.delivered, what="the change of the other source")
        status = house.sidecar.pipeline()
        assert {source["name"]: source["held"] for source in status["sources"]} == {"site": not certificate, "tls": certificate}
        assert (status["ready"], status["degraded"]) == (True, True)

        house.certify() if certificate else house.say("mended")
        eventually(house.delivered, what="the mended source")
        eventually(lambda: not house.sidecar.pipeline()["degraded"], what="nothing to be wrong")
    assert asking.failures == []
    assert asking.requests > 10
    assert house.refusals() == 1
    assert house.signals() - signals == 4
    assert house.master() == master


def check_a_restart_after(house: House, spoil: Callable[[House], None]) -> None:
    """Spoil it so that the master ends: one that is restarted starts on what was confirmed, and the rest goes on."""
    house.spoil(lambda: spoil(house))
    assert not house.server.running
    house.server.stop()
    house.start_server()
    eventually(house.delivered, what="the restarted proxy to be verified")
    house.goes_on()


def check_a_name_that_resolves_late(house: House, resolver: Resolver, unknown_name: Callable[[House], None]) -> None:
    """Give it a name that nobody answers for, and then somebody does: nothing is blamed for the deafness of the master meanwhile."""
    house.through = resolver.through
    master = house.begin().master()
    with Asking(house) as asking:
        house.spoil(lambda: unknown_name(house))
        house.certify()
        # Nothing is owed for no more than a moment: what is held is tried again at once then.
        eventually(lambda: house.served() == house.expected, within=15, what="the certificate")
        assert not resolver.speaks

        text, certificate = "broken", house.expected[1]
        eventually(lambda: house.served() == (text, certificate), within=40, what="the same content, once the name is known")
        eventually(house.sidecar.settled, what="its confirmation")
        eventually(lambda: not house.sidecar.pipeline()["degraded"], what="nothing to be wrong")

        house.say("mended")
        eventually(house.delivered, what="the next good change")
    assert asking.failures == []
    assert (house.refusals(), house.refusals_told()) == (1, 1)
    assert house.master() == master
