"""One of 10,000 Consul keys below a prefix changes, and the file of all of them is rendered, published and signalled, `settle: 0s`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.bench import Bench, Finding
from benchmarks.changes import Changer, timed
from benchmarks.contenders import CONSUL_TEMPLATE, Contender, Process, consul_template, each
from benchmarks.footprint import footprint
from benchmarks.ours import configured, reloader
from benchmarks.report import OURS
from benchmarks.target import Target

PREFIX = "large-prefix"
CONTENT = "{% for key, value in all | items %}{{ key }} {{ value }}, {% endfor %}"


def _ours(bench: Bench, folder: Path, target: Target) -> AbstractContextManager[Process]:
    return reloader(
        bench,
        folder,
        configured(
            folder,
            f"consul: {{address: '{bench.servers.consul.address}'}}",
            f"sources: {{all: {{kind: consul, prefix: {PREFIX}/}}}}",
            f"volume: {{path: {folder}/live, files: {{all.conf: {{content: '{CONTENT}'}}}}}}",
            f"target: {{match: {{name: {target.name}}}}}",
            "timing: {settle: 0s}",
        ),
    )


def _consul_template(bench: Bench, folder: Path, target: Target) -> AbstractContextManager[Process]:
    server = f'consul {{\n  address = "{urlsplit(bench.servers.consul.address).netloc}"\n}}\n'
    return consul_template(
        bench, folder, f'{{{{ range ls "{PREFIX}" }}}}{{{{ .Key }}}} {{{{ .Value }}}}, {{{{ end }}}}', server, target=target
    )


CONTENDERS = (Contender(OURS, _ours), Contender(CONSUL_TEMPLATE, _consul_template, needs=(CONSUL_TEMPLATE,)))


def run(bench: Bench) -> Iterator[Finding]:
    """Measure each."""
    bench.servers.consul.put_all({_key(number): f"value of {number}" for number in range(bench.size.keys)})
    yield from each(CONTENDERS, lambda contender: _measure(bench, contender))


def _measure(bench: Bench, contender: Contender) -> Iterator[Finding]:
    def put(text: str) -> None:
        bench.servers.consul.put(_key(bench.random.randrange(bench.size.keys)), text)

    with bench.folder() as folder, bench.target() as target:
        changer = Changer(bench, timed(put), target)
        with contender.started(bench, folder, target) as process:
            changer.warm_up()
            yield from changer.measure(bench.size.repeats).rows(contender.name, "put")
            yield from footprint(contender.name, process.pid)


def _key(number: int) -> str:
    return f"{PREFIX}/{number:05}"
