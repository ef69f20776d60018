"""A Consul key is put, and rendered, published and signalled; the time is from just before the request is sent, `settle: 0s`."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.bench import Bench, Finding
from benchmarks.changes import Changer, timed
from benchmarks.contenders import CONSUL_TEMPLATE, Contender, Process, consul_template, each
from benchmarks.ours import configured, reloader
from benchmarks.report import OURS
from benchmarks.target import Target

KEY = "put-to-signal/key"
BLOCKING_QUERY = """\
import http.client, os, sys
server, path, pid = sys.argv[1:]
connection, index = http.client.HTTPConnection(server), "0"
while True:
    connection.request("GET", f"/v1/kv/{path}?wait=60s&index={index}")
    answer = connection.getresponse()
    answer.read()
    if (new := answer.headers["X-Consul-Index"]) != index:
        index = new
        os.kill(int(pid), 1)
"""


def _ours(bench: Bench, folder: Path, target: Target) -> AbstractContextManager[Process]:
    return reloader(
        bench,
        folder,
        configured(
            folder,
            f"consul: {{address: '{bench.servers.consul.address}'}}",
            f"sources: {{key: {{kind: consul, key: {KEY}}}}}",
            f"volume: {{path: {folder}/live, files: {{app.conf: {{content: '{{{{ key }}}}'}}}}}}",
            f"target: {{match: {{name: {target.name}}}}}",
            "timing: {settle: 0s}",
        ),
    )


def _consul_template(bench: Bench, folder: Path, target: Target) -> AbstractContextManager[Process]:
    server = f'consul {{\n  address = "{urlsplit(bench.servers.consul.address).netloc}"\n}}\n'
    return consul_template(bench, folder, f'{{{{ key "{KEY}" }}}}', server, target=target)


def _floor(bench: Bench, folder: Path, target: Target) -> AbstractContextManager[Process]:
    server = urlsplit(bench.servers.consul.address).netloc
    return bench.running([sys.executable, "-I", "-c", BLOCKING_QUERY, server, KEY, str(target.pid)], folder)


CONTENDERS = (
    Contender(OURS, _ours),
    Contender(CONSUL_TEMPLATE, _consul_template, needs=(CONSUL_TEMPLATE,)),
    Contender("a bare blocking query", _floor),
)


def run(bench: Bench) -> Iterator[Finding]:
    """Measure each."""
    return each(CONTENDERS, lambda contender: _measure(bench, contender))


def _measure(bench: Bench, contender: Contender) -> Iterator[Finding]:
    with bench.folder() as folder, bench.target() as target:
        changer = Changer(bench, timed(lambda text: bench.servers.consul.put(KEY, text)), target)
        with contender.started(bench, folder, target):
            changer.warm_up()
            yield from changer.measure(bench.size.rounds).rows(contender.name, "put")
