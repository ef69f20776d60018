"""From the start of the process until a file with one Vault secret is there."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.bench import Bench, Finding
from benchmarks.contenders import BAO, BAO_AGENT, CONSUL_TEMPLATE, Contender, Process, bao_agent, consul_template, each
from benchmarks.ours import configured, reloader
from benchmarks.report import OURS, Row
from benchmarks.wait import until

SECRET = "start-to-published"
TEMPLATE = f'{{{{ with secret "kv/data/{SECRET}" }}}}{{{{ .Data.data.value }}}}{{{{ end }}}}'
TEXT = "published"


def _ours(bench: Bench, folder: Path) -> AbstractContextManager[Process]:
    server = bench.servers.openbao
    return reloader(
        bench,
        folder,
        configured(
            folder,
            f"vault: {{address: '{server.address}', auth: {{method: token, token: {server.root_token}}}}}",
            f"sources: {{secret: {{kind: vault, path: kv/{SECRET}}}}}",
            f"volume: {{path: {folder}, files: {{rendered: {{content: '{{{{ secret.value }}}}'}}}}}}",
            "target: {kind: none}",
        ),
    )


def _bao_agent(bench: Bench, folder: Path) -> AbstractContextManager[Process]:
    return bao_agent(bench, folder, TEMPLATE, bench.servers.openbao.address)


def _consul_template(bench: Bench, folder: Path) -> AbstractContextManager[Process]:
    server = bench.servers.openbao
    block = f'vault {{\n  address = "{server.address}"\n  token = "{server.root_token}"\n  renew_token = false\n}}\n'
    return consul_template(bench, folder, TEMPLATE, block)


CONTENDERS = (
    Contender(OURS, _ours),
    Contender(BAO_AGENT, _bao_agent, needs=(BAO,)),
    Contender(CONSUL_TEMPLATE, _consul_template, needs=(CONSUL_TEMPLATE,)),
)


def run(bench: Bench) -> Iterator[Finding]:
    """Measure each."""
    bench.servers.openbao.put_kv2("kv", SECRET, {"value": TEXT})
    yield from each(CONTENDERS, lambda contender: _measure(bench, contender))


def _measure(bench: Bench, contender: Contender) -> Iterator[Finding]:
    yield Row(contender.name, "start to published", "ms", [_once(bench, contender) * 1000 for _ in range(bench.size.repeats)])


def _once(bench: Bench, contender: Contender) -> float:
    with bench.folder() as folder:
        began = time.monotonic()
        with contender.started(bench, folder):
            return until(lambda: TEXT in (folder / "rendered").read_text()) - began
