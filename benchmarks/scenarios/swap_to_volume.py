"""A swap is rendered, published on a volume, and the reader of the volume signalled."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import Bench, Finding
from benchmarks.changes import Changer, Changes, swap
from benchmarks.footprint import footprint
from benchmarks.ours import Sidecar, configured, reloader
from benchmarks.report import OURS
from benchmarks.target import Target
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
    """Measure swaps, on a new volume now and then, and what the last sidecar takes after them."""
    changes = Changes()
    while (left := bench.size.rounds - len(changes.signals)) > 0:
        with started(bench) as (sidecar, changer):
            changer.warm_up()
            changes += changer.measure(min(left, VOLUME_SEES))
            if left <= VOLUME_SEES:
                sidecar.settle()
                yield from footprint(OURS, sidecar.pid, "after swaps")
    yield from changes.rows(OURS, "swap")


@contextmanager
def started(bench: Bench) -> Iterator[tuple[Sidecar, Changer]]:
    """Start a sidecar on a new volume, with a target of its own."""
    with bench.folder() as folder, bench.target() as target:
        live = folder / "live"
        change = swap(KubeletVolume(folder / "mounted"))
        changer = Changer(bench, change, target, took=lambda text: text in (live / "app.conf").read_text())
        with rendering(bench, folder, folder / "mounted", target) as sidecar:
            yield sidecar, changer


@contextmanager
def rendering(bench: Bench, folder: Path, watched: Path, target: Target) -> Iterator[Sidecar]:
    """Run a sidecar that renders two files of what is mounted."""
    templates = folder / "templates"
    templates.mkdir()
    (templates / "app.conf.j2").write_text(TEMPLATE)
    text = CONFIGURATION.format(mounted=watched, live=folder / "live", templates=templates, name=target.name)
    with reloader(bench, folder, configured(folder, text)) as sidecar:
        yield sidecar
