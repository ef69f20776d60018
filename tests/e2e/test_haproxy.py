"""The main job with a second program: HAProxy, whose master reads everything anew by executing itself on SIGUSR2."""

from pathlib import Path

import pytest

from tests.e2e.proxying import Site, serve_every_change
from tests.scale import rounds


class HaproxySite(Site):
    """With its certificate and key in one file."""

    template = """
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
    files = """
    proxy.conf: {template: %(site)s/proxy.conf.j2}
    site.pem:   {content: "{{ tls | fullchain }}\\n{{ tls.private_key }}\\n"}"""
    signal = "USR2"

    def match(self) -> str:
        return f"{{cmdline: {self.live}/proxy\\.conf}}"

    def reloads(self) -> int:
        return self.server.log.read_text().count("Reloading HAProxy")

    def serials(self, directory: Path) -> set[str]:
        return self.serials_in(directory, before="X-Serial ", certificate="site.pem")


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_every_change_of_every_source_is_served_under_load(tmp_path, openbao, consul_server, haproxy):
    """30 changes of three kinds: each served within 2 s, no failed request, one SIGUSR2 a generation, no mix of generations."""
    with HaproxySite(tmp_path, openbao, consul_server, haproxy) as site:
        serve_every_change(site, ("config", "upstream"), certificates=rounds(2, 4))  # each takes its 16 s
