"""What is taken after a quiet minute with sources of Consul and Vault, both with TLS, and mounted files."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.bench import Bench, Finding
from benchmarks.contenders import BAO, BAO_AGENT, CONSUL_TEMPLATE, Contender, Process, bao_agent, consul_template, each
from benchmarks.footprint import at_rest
from benchmarks.ours import configured, reloader
from benchmarks.report import OURS
from benchmarks.wait import until
from tests.kubelet import KubeletVolume

NAME = "quiet-servers"
SECRET = f'{{{{ with secret "kv/data/{NAME}" }}}}{{{{ .Data.data.value }}}}{{{{ end }}}}'
KEY = f'{{{{ key "{NAME}/key" }}}}'
RENDERED = "rendered"
CONTENT = "{{ mounted['app.conf'] }} {{ key }} {{ secret.value }}"


@contextmanager
def _ours(bench: Bench, folder: Path) -> Iterator[Process]:
    with bench.target() as target:
        mounted = KubeletVolume(folder / "mounted")
        mounted.swap({"app.conf": "mounted"})
        consul, openbao, ca = bench.servers.consul, bench.servers.openbao, bench.servers.authority.ca_file
        certificate, key = consul.client_files
        configuration = configured(
            folder,
            f"consul: {{address: '{consul.tls_address}', tls: {{ca_file: {ca}, cert_file: {certificate}, key_file: {key}}}}}",
            f"vault: {{address: '{openbao.tls_address}', auth: {{method: token, token: {openbao.root_token}}}, tls: {{ca_file: {ca}}}}}",
            "sources:",
            f"  mounted: {{kind: files, path: {mounted.path}/}}",
            f"  key: {{kind: consul, key: {NAME}/key}}",
            f"  secret: {{kind: vault, path: kv/{NAME}}}",
            f'volume: {{path: {folder}, files: {{{RENDERED}: {{content: "{CONTENT}"}}}}}}',
            f"target: {{match: {{name: {target.name}}}}}",
        )
        with reloader(bench, folder, configuration) as sidecar:
            yield sidecar


def _bao_agent(bench: Bench, folder: Path) -> AbstractContextManager[Process]:
    return bao_agent(bench, folder, SECRET, bench.servers.openbao.tls_address)


def _consul_template(bench: Bench, folder: Path) -> AbstractContextManager[Process]:
    consul, openbao, ca = bench.servers.consul, bench.servers.openbao, bench.servers.authority.ca_file
    certificate, key = consul.client_files
    blocks = (
        f"""\
consul {{
  address = "{urlsplit(consul.tls_address).netloc}"
  ssl {{
    enabled = true
    ca_cert = "{ca}"
    cert = "{certificate}"
    key = "{key}"
  }}
}}
""",
        f"""\
vault {{
  address = "{openbao.tls_address}"
  token = "{openbao.root_token}"
  renew_token = false
  ssl {{
    ca_cert = "{ca}"
  }}
}}
""",
    )
    return consul_template(bench, folder, f"{KEY} {SECRET}", *blocks)


CONTENDERS = (
    Contender(OURS, _ours),
    Contender(f"{BAO_AGENT} (Vault only)", _bao_agent, needs=(BAO,)),
    Contender(f"{CONSUL_TEMPLATE} (no files)", _consul_template, needs=(CONSUL_TEMPLATE,)),
)


def run(bench: Bench) -> Iterator[Finding]:
    """Measure each after it has rendered."""
    bench.servers.consul.put(f"{NAME}/key", "of consul")
    bench.servers.openbao.put_kv2("kv", NAME, {"value": "of vault"})
    yield from each(CONTENDERS, lambda contender: _measure(bench, contender))


def _measure(bench: Bench, contender: Contender) -> Iterator[Finding]:
    with bench.folder() as folder, contender.started(bench, folder) as process:
        until(lambda: "of vault" in (folder / RENDERED).read_text())
        yield from at_rest(contender.name, process.pid, bench.size.quiet)
