"""A swap is rendered, published on a volume, and the reader of the volume signalled; what that takes at rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import Bench, Finding
from benchmarks.footprint import footprint
from benchmarks.ours import Sidecar, reloader
from benchmarks.report import OURS
from benchmarks.swaps import Swapper, Swaps
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


VOLUME_SEES = 20
"""How many swaps one volume takes: a generation is kept for a minute, and hardly anyone has more than these in a minute."""


def run(bench: Bench) -> Iterator[Finding]:
    """Measure swaps, on a new volume now and then, and a sidecar at rest."""
    swaps = Swaps()
    while (left := bench.rounds - len(swaps.signals)) > 0:
        with _started(bench) as (_, swapper):
            swapper.warm_up()
            swaps += swapper.measure(min(left, VOLUME_SEES))
    yield from swaps.rows(OURS)
    with _started(bench) as (sidecar, swapper):
        sidecar.settle()
        yield from footprint(OURS, sidecar.pid, "after start")
        swapper.warm_up()
        swapper.measure(min(bench.rounds, VOLUME_SEES))
        sidecar.settle()
        yield from footprint(OURS, sidecar.pid, "after swaps")


@contextmanager
def _started(bench: Bench) -> Iterator[tuple[Sidecar, Swapper]]:
    """Start a sidecar on a new volume, with a target of its own."""
    with bench.folder() as folder, bench.target() as target:
        live = folder / "live"
        swapper = Swapper(bench, KubeletVolume(folder / "mounted"), target, took=lambda text: _shows(live / "app.conf", text))
        with reloader(bench, folder, _configured(folder, live, target.name)) as sidecar:
            yield sidecar, swapper


def _configured(folder: Path, live: Path, name: str) -> Path:
    templates, configuration = folder / "templates", folder / "reloader.yaml"
    templates.mkdir()
    (templates / "app.conf.j2").write_text(TEMPLATE)
    configuration.write_text(CONFIGURATION.format(mounted=folder / "mounted", live=live, templates=templates, name=name))
    return configuration


def _shows(file: Path, text: str) -> bool:
    return text in file.read_text()
