"""The requests that a sidecar at rest causes to each server, counted on the way there, for an hour; every interval is the default."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.bench import Bench, Finding
from benchmarks.contenders import BAO, BAO_AGENT, CONSUL_TEMPLATE, Contender, Process, bao_agent, consul_template, each
from benchmarks.ours import configured, reloader
from benchmarks.report import OURS, Row
from benchmarks.wait import until
from tests.servers.counting import Counting

NAME = "requests-per-hour"
SECRET = f'{{{{ with secret "kv/data/{NAME}" }}}}{{{{ .Data.data.value }}}}{{{{ end }}}}'
KEY = f'{{{{ key "{NAME}/key" }}}}'
RENDERED = "rendered"


def _ours(bench: Bench, folder: Path, consul: str, openbao: str) -> AbstractContextManager[Process]:
    return reloader(
        bench,
        folder,
        configured(
            folder,
            f"consul: {{address: '{consul}'}}",
            f"vault: {{address: '{openbao}', auth: {{method: token, token: {bench.servers.openbao.root_token}}}}}",
            f"sources: {{key: {{kind: consul, key: {NAME}/key}}, secret: {{kind: vault, path: kv/{NAME}}}}}",
            f"volume: {{path: {folder}, files: {{{RENDERED}: {{content: '{{{{ key }}}} {{{{ secret.value }}}}'}}}}}}",
            "target: {kind: none}",
        ),
    )


def _bao_agent(bench: Bench, folder: Path, _consul: str, openbao: str) -> AbstractContextManager[Process]:
    return bao_agent(bench, folder, SECRET, openbao)


def _consul_template(bench: Bench, folder: Path, consul: str, openbao: str) -> AbstractContextManager[Process]:
    blocks = (
        f'consul {{\n  address = "{urlsplit(consul).netloc}"\n}}\n',
        f'vault {{\n  address = "{openbao}"\n  token = "{bench.servers.openbao.root_token}"\n  renew_token = false\n}}\n',
    )
    return consul_template(bench, folder, f"{KEY} {SECRET}", *blocks)


CONTENDERS = (
    Contender(OURS, _ours),
    Contender(f"{BAO_AGENT} (Vault only)", _bao_agent, needs=(BAO,)),
    Contender(CONSUL_TEMPLATE, _consul_template, needs=(CONSUL_TEMPLATE,)),
)


def run(bench: Bench) -> Iterator[Finding]:
    """Count what is answered in the window, after everything was rendered; a blocking query that still waits is none."""
    bench.servers.consul.put(f"{NAME}/key", "of consul")
    bench.servers.openbao.put_kv2("kv", NAME, {"value": "of vault"})
    yield from each(CONTENDERS, lambda contender: _measure(bench, contender))


def _measure(bench: Bench, contender: Contender) -> Iterator[Finding]:
    counting = {"Consul": Counting(bench.servers.consul.address), "Vault": Counting(bench.servers.openbao.address)}
    try:
        with bench.folder() as folder, contender.started(bench, folder, *(each.address for each in counting.values())):
            until(lambda: "of vault" in (folder / RENDERED).read_text())
            began = time.monotonic()
            time.sleep(bench.size.window)
    finally:
        for server in counting.values():
            server.refuse()
    hours = bench.size.window / 3600
    for name, server in counting.items():
        asked = [seen for seen in server.requests() if began <= seen.ended <= began + bench.size.window]
        yield Row(contender.name, f"requests to {name}", "per hour", [len(asked) / hours])
