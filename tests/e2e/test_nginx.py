"""The main job: an NGINX serves what Consul, Vault and a mounted ConfigMap say, and takes every change without a failed request."""

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
from tests.servers.nginx import HTTP_DEFAULTS
from tests.servers.ports import free_port
from tests.waiting import eventually

CHANGES = 30
CERTIFICATES = 4
LIFETIME = "16s"
SEED = int(os.environ.get("TEST_SEED", "20"))

TEMPLATE = """
events {}
http {
  %(defaults)s
  upstream web {
    {%% for instance in web %%}server {{ instance.address }}:{{ instance.port }};
    {%% endfor %%}
  }
  server {
    listen 127.0.0.1:%(port)d ssl;
    ssl_certificate {{ generation }}/tls.crt;
    ssl_certificate_key {{ generation }}/tls.key;
    add_header X-Serial {{ tls.serial_number | tojson }} always;
    add_header X-Upstreams "{{ web | map(attribute='port') | join(',') }}" always;
    add_header X-Greeting {{ site['greeting.txt'] | trim | tojson }} always;
    add_header X-Routes "{{ routes | sort | join(',') }}" always;
    location / { proxy_pass http://web; }
    {%% for name, text in routes | dictsort %%}location /{{ name }} { return 200 {{ text | tojson }}; }
    {%% endfor %%}
  }
}
"""

CONFIGURATION = """
vault:  {{address: {vault}, auth: {{token: {token}}}}}
consul: {{address: {consul}}}
sources:
  routes: {{kind: consul, prefix: nginx/routes/}}
  web:    {{kind: consul, service: web}}
  tls:    {{kind: vault, path: pki/issue/any, write: {{common_name: localhost, ttl: {lifetime}}}}}
  site:   {{kind: files, path: {site}}}
volume:
  path: {live}
  files:
    nginx.conf: {{template: {site}/nginx.conf.j2}}
    tls.crt:    {{content: "{{{{ tls | fullchain }}}}", mode: "0644"}}
    tls.key:    {{content: "{{{{ tls.private_key }}}}"}}
  check: {{command: {check}, builtin: [keypair]}}
target:
  match: {{pidfile: {pidfile}}}
  verify: {{workers: true, within: 5s}}
timing: {{min_interval: 500ms}}
"""


def serials(directory: Path) -> set[str]:
    """Return the serial numbers that the files of one set speak of."""
    conf, certificate = ((directory / name).read_text() for name in ("nginx.conf", "tls.crt"))
    return {plain_serial(conf.split('X-Serial "')[1].split('"')[0]), serial_of(certificate)}


class Site:
    """All that NGINX's configuration comes from, and the four kinds of change to it."""

    def __init__(self, folder: Path, openbao, consul_server, backends: list[Application]) -> None:
        self.openbao, self.consul, self.backends = openbao, consul_server, backends
        self.pki = openbao.pki("pki", "tests root")
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_text(self.pki.ca)
        self.port = free_port()
        self.kubelet = KubeletVolume(folder / "site")
        self.greeting, self.routes, self.count = "hello 0", {}, 0
        self.swap()
        self.register(backends[0])
        self.up = {backends[0].port}
        self.context = ssl.create_default_context(cafile=str(self.ca_file))

    def swap(self) -> None:
        self.kubelet.swap(
            {"nginx.conf.j2": TEMPLATE % {"defaults": HTTP_DEFAULTS, "port": self.port}, "greeting.txt": self.greeting + "\n"}
        )

    def register(self, backend: Application) -> None:
        self.consul.register("web", port=backend.port)

    def ask(self) -> HTTPMessage:
        return ask(self.port, self.context)

    def change_config(self) -> None:
        self.count += 1
        self.greeting = f"hello {self.count}"
        self.swap()
        self._served(lambda: self.ask()["X-Greeting"] == self.greeting)

    def change_route(self) -> None:
        self.count += 1
        name = f"r{random.randrange(5)}"
        if name in self.routes:
            del self.routes[name]
            self.consul.delete(f"nginx/routes/{name}")
        else:
            self.routes[name] = f"route {self.count}"
            self.consul.put(f"nginx/routes/{name}", self.routes[name])
        self._served(lambda: self.ask().get("X-Routes", "") == ",".join(sorted(self.routes)))

    def change_upstream(self) -> None:
        spare = [backend for backend in self.backends if backend.port not in self.up]
        if spare and (len(self.up) == 1 or random.random() < 0.5):
            self.register(spare[0])
            self.up.add(spare[0].port)
        else:
            gone = max(self.up)
            self.consul.deregister(f"web-{gone}")
            self.up.discard(gone)
        self._served(lambda: {int(port) for port in self.ask()["X-Upstreams"].split(",")} == self.up)

    def change_certificate(self) -> None:
        """Wait until the next certificate is issued; the moment it is known at the PKI is the cause."""
        before = self.issued()
        eventually(lambda: self.issued() - before, within=30, every=0.05, what="a new certificate at the PKI")
        (newest, *_more) = self.issued() - before
        self._served(lambda: plain_serial(self.ask()["X-Serial"]) == newest)

    def issued(self) -> set[str]:
        return {plain_serial(serial) for serial in self.openbao.client().list("pki/certs")["data"]["keys"]}

    def _served(self, shown) -> None:
        """Every change is served within 2 s of its cause."""
        eventually(shown, within=2.0, every=0.01, what="the change being served")


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_every_change_of_every_source_is_served_under_load(tmp_path, openbao, consul_server, nginx):
    """30 changes of all four kinds: each served within 2 s, no failed request, one SIGHUP a generation, no mix of generations."""
    print(f"seed {SEED}")
    random.seed(SEED)
    backends = [Application() for _ in range(3)]
    site = Site(tmp_path, openbao, consul_server, backends)
    live, prefix = tmp_path / "live", tmp_path / "nginx"
    server = nginx(prefix, live / "nginx.conf")
    configuration = tmp_path / "web.yaml"
    configuration.write_text(
        CONFIGURATION.format(
            vault=openbao.address,
            token=openbao.policy_token('path "pki/issue/any" { capabilities = ["create", "update"] }'),
            consul=consul_server.address,
            lifetime=LIFETIME,
            site=site.kubelet.path,
            live=live,
            check=json.dumps(server.test_command("{staged}/nginx.conf")),
            pidfile=prefix / "nginx.pid",
        )
    )
    sidecar = Sidecar(tmp_path / "sidecar", configuration, env=server.env)
    sidecar.start()
    try:
        eventually(sidecar.ready, within=20, what="the first publish")
        first = sidecar.pipeline()["generations"]["published"]
        server.start()
        eventually(sidecar.settled, what="the start of NGINX to be verified")
        torn = Torn(live, serials)
        torn.start()
        with load(site.port, site.ca_file) as summary:
            _change(site, random.sample(_kinds(), CHANGES))
            eventually(sidecar.settled, what="the last change to be confirmed")
        torn.stop()
        published = sidecar.pipeline()["generations"]["published"]
        hups = server.error_log.read_text().count("signal 1 (SIGHUP) received")

        assert not [line for line in sidecar.lines() if line.get("outcome") == "failed"]
        assert summary["failures"] == []
        assert summary["mismatches"] == []
        assert summary["requests"] > 100
        assert torn.mixed == []
        assert len(torn.seen) > CERTIFICATES
        assert hups == published - first == sidecar.metric("reloader_reloads_total")
        assert len(site.issued()) <= len(torn.seen) + 2  # the PKI's own, and one that came as the test ended
    finally:
        sidecar.stop()
        for backend in backends:
            backend.stop()


def _kinds() -> list[str]:
    kinds = ["certificate"] * CERTIFICATES + ["config", "route", "upstream"] * CHANGES
    return kinds[:CHANGES]


def _change(site: Site, kinds: list[str]) -> None:
    for number, kind in enumerate(kinds, 1):
        began = time.monotonic()
        getattr(site, f"change_{kind}")()
        print(f"change {number}: {kind} after {time.monotonic() - began:.3f} s")
