"""The main job with a second program: HAProxy, whose master reads everything anew by executing itself on SIGUSR2."""

import json
import os
import random
import ssl
import time
from http.client import HTTPMessage
from pathlib import Path

import pytest

from tests.e2e.sidecar import Sidecar
from tests.e2e.traffic import Application, Torn, ask, load, plain_serial, serial_of
from tests.kubelet import KubeletVolume
from tests.servers.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.servers

CHANGES = 30
CERTIFICATES = 4
LIFETIME = "16s"
SEED = int(os.environ.get("TEST_SEED", "20"))

TEMPLATE = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend web
  bind 127.0.0.1:%(port)d ssl crt {{ generation }}/site.pem
  http-response set-header X-Serial {{ tls.serial_number }}
  http-response set-header X-Upstreams {{ web | map(attribute='port') | join(',') }}
  http-response set-header X-Greeting {{ site['greeting.txt'] | trim | tojson }}
  default_backend web
backend web
  {%% for instance in web %%}
  server {{ instance.id }} {{ instance.address }}:{{ instance.port }}
  {%% endfor %%}
"""

CONFIGURATION = """
vault:  {{address: {vault}, auth: {{token: {token}}}}}
consul: {{address: {consul}}}
sources:
  web:  {{kind: consul, service: web}}
  tls:  {{kind: vault, path: pki/issue/any, write: {{common_name: localhost, ttl: {lifetime}}}}}
  site: {{kind: files, path: {site}}}
volume:
  path: {live}
  files:
    haproxy.cfg: {{template: {site}/haproxy.cfg.j2}}
    site.pem:    {{content: "{{{{ tls | fullchain }}}}\\n{{{{ tls.private_key }}}}\\n"}}
  check: {{command: {check}, builtin: [keypair]}}
target:
  match: {{cmdline: {live}/haproxy\\.cfg}}
  signal: USR2
  verify: {{workers: true, within: 5s}}
timing: {{min_interval: 500ms}}
"""


class Site:
    """All that HAProxy's configuration comes from, the three kinds of change to it, and the processes that take it."""

    def __init__(self, folder: Path, openbao, consul, haproxy, applications: list[Application], *, lifetime: str = LIFETIME) -> None:
        self.openbao, self.consul, self.applications = openbao, consul, applications
        ca_file = folder / "ca.pem"
        ca_file.write_text(openbao.pki("pki", "tests root").ca)
        self.ca_file, self.port = ca_file, free_port()
        self.context = ssl.create_default_context(cafile=str(ca_file))
        self.live = folder / "live"
        self.server = haproxy(folder / "haproxy", self.live / "haproxy.cfg")
        self.kubelet = KubeletVolume(folder / "site")
        self.greeting, self.count, self.up = "hello 0", 0, {applications[0].port}
        self.swap()
        consul.register("web", port=applications[0].port)
        configuration = folder / "web.yaml"
        configuration.write_text(self._configuration(lifetime))
        self.sidecar = Sidecar(folder / "sidecar", configuration, env=self.server.env)

    def _configuration(self, lifetime: str) -> str:
        token = self.openbao.policy_token('path "pki/issue/any" { capabilities = ["create", "update"] }')
        check = json.dumps(self.server.test_command("{staged}/haproxy.cfg"))
        addresses = {"vault": self.openbao.address, "consul": self.consul.address, "token": token, "lifetime": lifetime}
        return CONFIGURATION.format(**addresses, site=self.kubelet.path, live=self.live, check=check)

    def start(self) -> None:
        """Start the sidecar and, once there is a set, HAProxy on it."""
        self.sidecar.start()
        eventually(self.sidecar.ready, within=20, what="the first publish")
        self.server.start()
        eventually(self.sidecar.settled, what="the start of HAProxy to be verified")

    def swap(self, *, template: str = TEMPLATE) -> None:
        self.kubelet.swap({"haproxy.cfg.j2": template % {"port": self.port}, "greeting.txt": self.greeting + "\n"})

    def reloads(self) -> int:
        """Return how often HAProxy was asked, by its own account."""
        return self.server.log.read_text().count("Reloading HAProxy")

    def asked(self) -> HTTPMessage:
        return ask(self.port, self.context)

    def change_config(self) -> None:
        self.count += 1
        self.greeting = f"hello {self.count}"
        self.swap()
        self._served(lambda: self.asked()["X-Greeting"] == self.greeting)

    def change_upstream(self) -> None:
        spare = [each.port for each in self.applications if each.port not in self.up]
        if spare and (len(self.up) == 1 or random.random() < 0.5):
            self.consul.register("web", port=spare[0])
            self.up.add(spare[0])
        else:
            gone = max(self.up)
            self.consul.deregister(f"web-{gone}")
            self.up.discard(gone)
        self._served(lambda: {int(port) for port in self.asked()["X-Upstreams"].split(",")} == self.up)

    def change_certificate(self) -> None:
        """Wait until the next certificate is issued; the moment it is known at the PKI is the cause."""
        before = self.issued()
        eventually(lambda: self.issued() - before, within=30, every=0.05, what="a new certificate at the PKI")
        (newest, *_more) = self.issued() - before
        self._served(lambda: plain_serial(self.asked()["X-Serial"]) == newest)

    def issued(self) -> set[str]:
        return {plain_serial(serial) for serial in self.openbao.client().list("pki/certs")["data"]["keys"]}

    def _served(self, shown) -> None:
        """Every change is served within 2 s of its cause."""
        eventually(shown, within=2.0, every=0.01, what="the change being served")


def serials(directory: Path) -> set[str]:
    """Return the serial numbers that the files of one set speak of."""
    configuration, bundle = ((directory / name).read_text() for name in ("haproxy.cfg", "site.pem"))
    return {serial_of(bundle), plain_serial(configuration.split("X-Serial ")[1].split()[0])}


@pytest.fixture
def applications():
    started = [Application() for _ in range(3)]
    yield started
    for each in started:
        each.stop()


@pytest.fixture
def site(tmp_path, openbao, consul_server, haproxy, applications):
    site = Site(tmp_path, openbao, consul_server, haproxy, applications)
    yield site
    site.sidecar.stop()


@pytest.mark.timeout(300)
def test_every_change_of_every_source_is_served_under_load(site):
    """30 changes of three kinds: each served within 2 s, no failed request, one SIGUSR2 a generation, no mix of generations."""
    print(f"seed {SEED}")
    random.seed(SEED)
    site.start()
    first, master = site.sidecar.pipeline()["generations"]["published"], site.server.pid
    torn = Torn(site.live, serials)
    torn.start()
    with load(site.port, site.ca_file) as summary:
        for number, kind in enumerate(random.sample(kinds(), CHANGES), 1):
            began = time.monotonic()
            getattr(site, f"change_{kind}")()
            print(f"change {number}: {kind} after {time.monotonic() - began:.3f} s")
        eventually(site.sidecar.settled, what="the last change to be confirmed")
    torn.stop()
    published = site.sidecar.pipeline()["generations"]["published"]

    assert summary["failures"] == []
    assert summary["mismatches"] == []
    assert summary["requests"] > 100
    assert torn.mixed == []
    assert len(torn.seen) > CERTIFICATES
    assert site.reloads() == published - first == site.sidecar.metric("reloader_reloads_total")
    assert site.sidecar.pipeline()["target"]["pid"] == master
    assert site.sidecar.metric("reloader_reloads_failed_total") == 0


def kinds() -> list[str]:
    return (["certificate"] * CERTIFICATES + ["config", "upstream"] * CHANGES)[:CHANGES]
