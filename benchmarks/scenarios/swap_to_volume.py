"""A swap is rendered, published on a volume, and the reader of the volume signalled; what that takes at rest."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench, Finding
from benchmarks.footprint import footprint
from benchmarks.ours import reloader
from benchmarks.report import OURS
from benchmarks.swaps import Swapper
from tests.kubelet import KubeletVolume

CONFIGURATION = """\
sources:
  mounted: {{kind: files, path: {mounted}/}}
volume:
  path: {live}
  files:
    app.conf: {{template: {templates}/app.conf.j2}}
    settings.json: {{content: '{{{{ mounted["settings.json"] }}}}'}}
target:
  match: {{name: {name}}}
"""
TEMPLATE = "# rendered\n{{ mounted['app.conf'] }}{{ mounted['extra.conf'] }}"


def run(bench: Bench) -> Iterator[Finding]:
    """Measure one sidecar from its start to its rest."""
    with bench.folder() as folder, bench.target() as target:
        live = folder / "live"
        swapper = Swapper(bench, KubeletVolume(folder / "mounted"), target, took=lambda text: _shows(live / "app.conf", text))
        with reloader(bench, folder, _configured(folder, live, target.name)) as sidecar:
            sidecar.settle()
            yield from footprint(OURS, sidecar.pid, "after start")
            swapper.warm_up()
            yield from swapper.measure(bench.rounds).rows(OURS)
            sidecar.settle()
            yield from footprint(OURS, sidecar.pid, "after swaps")


def _configured(folder: Path, live: Path, name: str) -> Path:
    templates, configuration = folder / "templates", folder / "reloader.yaml"
    templates.mkdir()
    (templates / "app.conf.j2").write_text(TEMPLATE)
    configuration.write_text(CONFIGURATION.format(mounted=folder / "mounted", live=live, templates=templates, name=name))
    return configuration


def _shows(file: Path, text: str) -> bool:
    return text in file.read_text()
