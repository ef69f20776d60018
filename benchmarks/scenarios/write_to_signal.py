"""A Vault secret is written, and rendered, published and signalled, where everybody looks once a second."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.bench import Bench, Finding
from benchmarks.changes import Changer, timed
from benchmarks.contenders import BAO, BAO_AGENT, CONSUL_TEMPLATE, Contender, Process, bao_agent, consul_template, each
from benchmarks.ours import configured, reloader
from benchmarks.report import OURS, Row
from benchmarks.target import Target

SECRET = "write-to-signal"
TEMPLATE = f'{{{{ with secret "kv/data/{SECRET}" }}}}{{{{ .Data.data.value }}}}{{{{ end }}}}'
INTERVAL = 1.0


def _ours(bench: Bench, folder: Path, target: Target) -> AbstractContextManager[Process]:
    server = bench.servers.openbao
    return reloader(
        bench,
        folder,
        configured(
            folder,
            f"vault: {{address: '{server.address}', auth: {{method: token, token: {server.root_token}}}}}",
            f"sources: {{secret: {{kind: vault, path: kv/{SECRET}, poll: {INTERVAL:g}s}}}}",
            f"volume: {{path: {folder}/live, files: {{app.conf: {{content: '{{{{ secret.value }}}}'}}}}}}",
            f"target: {{match: {{name: {target.name}}}}}",
        ),
    )


def _bao_agent(bench: Bench, folder: Path, target: Target) -> AbstractContextManager[Process]:
    return bao_agent(bench, folder, TEMPLATE, bench.servers.openbao.address, interval=f"{INTERVAL:g}s", target=target)


def _consul_template(bench: Bench, folder: Path, target: Target) -> AbstractContextManager[Process]:
    server = bench.servers.openbao
    block = f"""\
vault {{
  address = "{server.address}"
  token = "{server.root_token}"
  renew_token = false
  default_lease_duration = "{INTERVAL:g}s"
}}
"""
    return consul_template(bench, folder, TEMPLATE, block, target=target)


CONTENDERS = (
    Contender(OURS, _ours),
    Contender(BAO_AGENT, _bao_agent, needs=(BAO,)),
    Contender(CONSUL_TEMPLATE, _consul_template, needs=(CONSUL_TEMPLATE,)),
)


def run(bench: Bench) -> Iterator[Finding]:
    """Measure each."""
    return each(CONTENDERS, lambda contender: _measure(bench, contender))


def _measure(bench: Bench, contender: Contender) -> Iterator[Finding]:
    """Write anywhere in an interval, and count the reads meanwhile."""
    server = bench.servers.openbao
    with bench.folder() as folder, bench.target() as target:
        write = timed(lambda text: server.put_kv2("kv", SECRET, {"value": text}))
        changer = Changer(bench, write, target, period=INTERVAL)
        with contender.started(bench, folder, target):
            changer.warm_up()
            before, began = len(server.audit()), time.monotonic()
            changes = changer.measure(bench.size.polled)
            intervals = (time.monotonic() - began) / INTERVAL
            reads = [asked for asked in server.audit(f"kv/data/{SECRET}", since=before) if asked.operation == "read"]
    yield from changes.rows(contender.name, "write")
    yield Row(contender.name, "reads per interval", "", [len(reads) / intervals])
