"""The main job: an NGINX serves what Consul, Vault and a mounted ConfigMap say, and takes every change without a failed request."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.proxying import Site, serve_every_change
from tests.scale import rounds
from tests.servers.nginx import HTTP_DEFAULTS

HTTP = """
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
"""


class NginxSite(Site):
    """With routes beside what every proxy has."""

    template = f"events {{}}\nhttp {{\n{HTTP_DEFAULTS}{HTTP}}}\n"
    files = """
    proxy.conf: {template: %(site)s/proxy.conf.j2}
    tls.crt:    {content: "{{ tls | fullchain }}", mode: "0644"}
    tls.key:    {content: "{{ tls.private_key }}"}"""
    signal = "HUP"
    sources = "\n  routes: {kind: consul, prefix: web/routes/, min_items: 0}"

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.routes: dict[str, str] = {}

    def match(self) -> str:
        return f"{{pidfile: {self.live.parent / 'server' / 'nginx.pid'}}}"

    def reloads(self) -> int:
        return self.server.error_log.read_text().count("signal 1 (SIGHUP) received")

    def serials(self, directory: Path) -> set[str]:
        return self.serials_in(directory, before="X-Serial ", certificate="tls.crt")

    def change_route(self) -> None:
        self.count += 1
        name = f"r{random.randrange(5)}"
        if self.routes.pop(name, None) is None:
            self.routes[name] = f"route {self.count}"
            self.consul.put(f"web/routes/{name}", self.routes[name])
        else:
            self.consul.delete(f"web/routes/{name}")
        self.served(lambda: self.asked().get("X-Routes", "") == ",".join(sorted(self.routes)))


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_every_change_of_every_source_is_served_under_load(tmp_path, openbao, consul_server, nginx):
    """30 changes of all four kinds: each served within 2 s, no failed request, one SIGHUP a generation, no mix of generations."""
    with NginxSite(tmp_path, openbao, consul_server, nginx) as site:
        serve_every_change(site, ("config", "route", "upstream"), certificates=rounds(2, 4))  # each takes its 16 s
