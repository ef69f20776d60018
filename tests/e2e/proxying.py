"""The main job: a proxy serves what Consul, Vault and a mounted ConfigMap say, while each of them changes."""

import json
import random
import ssl
import time
from collections.abc import Callable, Sequence
from http.client import HTTPMessage
from pathlib import Path
from typing import ClassVar, Self

from tests.e2e.sidecar import Sidecar
from tests.e2e.traffic import Application, Torn, ask, load, plain_serial, serial_of
from tests.kubelet import KubeletVolume
from tests.scale import SEED
from tests.servers.consul import Consul
from tests.servers.haproxy import Haproxy
from tests.servers.nginx import Nginx
from tests.servers.openbao import OpenBao
from tests.servers.ports import free_port
from tests.waiting import eventually

CHANGES = 30
CERTIFICATES = 4
LIFETIME = "16s"

CONFIGURATION = """
vault:  {{address: {vault}, auth: {{token: {token}}}}}
consul: {{address: {consul}}}
sources:
  web:  {{kind: consul, service: web}}
  tls:  {{kind: vault, path: pki/issue/any, write: {{common_name: localhost, ttl: {lifetime}}}}}
  site: {{kind: files, path: {site}}}{sources}
volume:
  path: {live}
  files: {files}
  check: {{command: {check}, builtin: [keypair]}}
target:
  match: {match}
  signal: {signal}
  verify: {{workers: true, within: 5s}}
timing: {{min_interval: 500ms}}
"""


class Site:
    """All that the proxy's configuration comes from, the changes to it, and the processes that take it.

    The proxy answers with the headers X-Serial (of its certificate), X-Greeting and X-Upstreams (the ports of its applications).
    """

    template: ClassVar[str]
    """The proxy's configuration, with its port to be filled in by `%`."""
    files: ClassVar[str]
    signal: ClassVar[str]
    sources: ClassVar[str] = ""
    """What the proxy has beside that."""

    def __init__(self, folder: Path, openbao: OpenBao, consul: Consul, make: Callable[[Path, Path], Nginx | Haproxy]) -> None:
        self.openbao, self.consul, self.applications = openbao, consul, [Application() for _ in range(3)]
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_text(openbao.pki("pki", "tests root").ca)
        self.context = ssl.create_default_context(cafile=str(self.ca_file))
        self.port, self.live = free_port(), folder / "live"
        self.server = make(folder / "server", self.live / "proxy.conf")
        self.kubelet = KubeletVolume(folder / "site")
        self.greeting, self.count, self.up = "hello 0", 0, {self.applications[0].port}
        self.swap()
        consul.register("web", port=self.applications[0].port)
        configuration = folder / "web.yaml"
        configuration.write_text(self._configuration())
        self.sidecar = Sidecar(folder / "sidecar", configuration, env=self.server.env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.sidecar.stop()
        for each in self.applications:
            each.stop()

    def match(self) -> str:
        """Return how the proxy is found."""
        raise NotImplementedError

    def reloads(self) -> int:
        """Return how often the proxy was asked, by its own account."""
        raise NotImplementedError

    def serials(self, directory: Path) -> set[str]:
        """Return the serial numbers that the files of one set speak of."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the sidecar and, once there is a set, the proxy on it."""
        self.sidecar.start()
        eventually(self.sidecar.ready, within=20, what="the first publish")
        self.server.start()
        eventually(self.sidecar.settled, what="the start of the proxy to be verified")

    def swap(self) -> None:
        self.kubelet.swap({"proxy.conf.j2": self.template % {"port": self.port}, "greeting.txt": self.greeting + "\n"})

    def asked(self) -> HTTPMessage:
        return ask(self.port, self.context)

    def published(self) -> int:
        return int(self.sidecar.pipeline()["generations"]["published"])

    def change_config(self) -> None:
        self.count += 1
        self.greeting = f"hello {self.count}"
        self.swap()
        self.served(lambda: self.asked()["X-Greeting"] == self.greeting)

    def change_upstream(self) -> None:
        spare = [each.port for each in self.applications if each.port not in self.up]
        if spare and (len(self.up) == 1 or random.random() < 0.5):
            self.consul.register("web", port=spare[0])
            self.up.add(spare[0])
        else:
            gone = max(self.up)
            self.consul.deregister(f"web-{gone}")
            self.up.discard(gone)
        self.served(lambda: {int(port) for port in self.asked()["X-Upstreams"].split(",")} == self.up)

    def change_certificate(self) -> None:
        """Wait until the next certificate is issued; the moment it is known at the PKI is the cause."""
        before = self.issued()
        eventually(lambda: self.issued() - before, within=30, every=0.05, what="a new certificate at the PKI")
        (newest, *_more) = self.issued() - before
        self.served(lambda: plain_serial(self.asked()["X-Serial"]) == newest)

    def issued(self) -> set[str]:
        return {plain_serial(serial) for serial in self.openbao.client().list("pki/certs")["data"]["keys"]}

    def served(self, shown: Callable[[], bool]) -> None:
        """Every change is served within 2 s of its cause."""
        eventually(shown, within=2.0, every=0.01, what="the change being served")

    def serials_in(self, directory: Path, *, before: str, certificate: str) -> set[str]:
        """Return the serial number behind a text in the configuration, and that of a certificate."""
        conf, pem = ((directory / name).read_text() for name in ("proxy.conf", certificate))
        return {plain_serial(conf.split(before)[1].split()[0].strip('"')), serial_of(pem)}

    def _configuration(self) -> str:
        token = self.openbao.policy_token('path "pki/issue/any" { capabilities = ["create", "update"] }')
        servers = {"vault": self.openbao.address, "consul": self.consul.address, "token": token, "lifetime": LIFETIME}
        check = json.dumps(self.server.test_command("{staged}/proxy.conf"))
        proxy = {
            "sources": self.sources,
            "files": self.files % {"site": self.kubelet.path},
            "match": self.match(),
            "signal": self.signal,
            "check": check,
        }
        return CONFIGURATION.format(**servers, **proxy, site=self.kubelet.path, live=self.live)


def serve_every_change(site: Site, others: Sequence[str], certificates: int = CERTIFICATES) -> None:
    """Make 30 changes under load: each is served within 2 s, no request fails, one signal a generation, no mix of generations."""
    random.seed(SEED)
    site.start()
    first, master = site.published(), site.server.pid
    torn = Torn(site.live, site.serials)
    torn.start()
    with load(site.port, site.ca_file) as summary:
        for number, kind in enumerate(random.sample((["certificate"] * certificates + [*others] * CHANGES)[:CHANGES], CHANGES), 1):
            began = time.monotonic()
            getattr(site, f"change_{kind}")()
            print(f"change {number}: {kind} after {time.monotonic() - began:.3f} s")
        eventually(site.sidecar.settled, what="the last change to be confirmed")
    torn.stop()

    assert (summary["failures"], summary["mismatches"], torn.mixed) == ([], [], [])
    assert summary["requests"] > 100
    assert len(torn.seen) > certificates
    assert len(site.issued()) <= len(torn.seen) + 2  # the PKI's own, and one that came as the test ended
    assert site.reloads() == site.published() - first == site.sidecar.metric("reloader_reloads_total")
    assert site.sidecar.metric("reloader_reloads_failed_total") == 0
    assert site.sidecar.pipeline()["target"]["pid"] == master
    assert not [line for line in site.sidecar.lines() if line.get("outcome") == "failed"]
