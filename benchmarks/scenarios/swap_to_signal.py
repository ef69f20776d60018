"""A mounted directory is swapped as the kubelet does it, and its reader signalled (no volume)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.asked import asking
from benchmarks.bench import Bench, Finding
from benchmarks.changes import Changer, swap
from benchmarks.contenders import CONFIGMAP, PROMETHEUS, SIDECAR, Contender, Process, each, program
from benchmarks.ours import reloader
from benchmarks.report import OURS
from benchmarks.target import Target
from tests.kubelet import KubeletVolume
from tests.servers.ports import free_port

INOTIFYWAIT = """\
inotifywait -m -e close_write,create,delete,move "$0" | while read -r _; do pkill -HUP -x "$1"; done
"""
POLLING = """\
old=$(sha256sum "$0"/*)
while sleep 1; do
  new=$(sha256sum "$0"/*)
  [ "$new" = "$old" ] || { old=$new; kill -HUP "$2"; }
done
"""


def ours(bench: Bench, folder: Path, watched: Path, target: Target) -> AbstractContextManager[Process]:
    """Run this program on no configuration file, as the drop-in that it is."""
    return reloader(bench, folder, "--watch", watched, "--process", target.name)


def sidecar(bench: Bench, folder: Path, watched: Path, target: Target) -> AbstractContextManager[Process]:
    """Run config-reloader-sidecar."""
    environment = {"CONFIG_DIR": str(watched), "PROCESS_NAME": target.name, "RELOAD_SIGNAL": "SIGHUP"}
    return bench.running([program(SIDECAR)], folder, environment)


def inotifywait(bench: Bench, folder: Path, watched: Path, target: Target) -> AbstractContextManager[Process]:
    """Run a loop of inotifywait and pkill."""
    return _shell(INOTIFYWAIT, bench, folder, watched, target)


def _polling(bench: Bench, folder: Path, watched: Path, target: Target) -> AbstractContextManager[Process]:
    return _shell(POLLING, bench, folder, watched, target)


def _shell(script: str, bench: Bench, folder: Path, watched: Path, target: Target) -> AbstractContextManager[Process]:
    """Run a script, given the directory, the name and the pid of the target."""
    return bench.running(["sh", "-c", script, watched, target.name, str(target.pid)], folder)


def prometheus(bench: Bench, folder: Path, watched: Path, target: Target) -> AbstractContextManager[Process]:
    """Run prometheus-config-reloader as it is by default; it asks by HTTP."""
    return _prometheus("1s", bench, folder, watched, target)


def _prometheus_at_once(bench: Bench, folder: Path, watched: Path, target: Target) -> AbstractContextManager[Process]:
    return _prometheus("1ms", bench, folder, watched, target)


def _prometheus(delay: str, bench: Bench, folder: Path, watched: Path, target: Target) -> AbstractContextManager[Process]:
    listen = f"--listen-address=127.0.0.1:{free_port()}"
    return asking(
        target,
        lambda url: bench.running(
            [program(PROMETHEUS), f"--watched-dir={watched}", f"--reload-url={url}", f"--delay-interval={delay}", listen], folder
        ),
    )


def _configmap(bench: Bench, folder: Path, watched: Path, target: Target) -> AbstractContextManager[Process]:
    listen = f"-web.listen-address=127.0.0.1:{free_port()}"
    return asking(target, lambda url: bench.running([program(CONFIGMAP), f"-volume-dir={watched}", f"-webhook-url={url}", listen], folder))


CONTENDERS = (
    Contender(OURS, ours),
    Contender("inotifywait + pkill", inotifywait, needs=("inotifywait", "pkill")),
    Contender(SIDECAR, sidecar, needs=(SIDECAR,)),
    Contender(f"{CONFIGMAP} (HTTP)", _configmap, needs=(CONFIGMAP,)),
    Contender(f"{PROMETHEUS} (HTTP)", prometheus, needs=(PROMETHEUS,), period=1.0),
    Contender(f"{PROMETHEUS} (HTTP), 1 ms", _prometheus_at_once, needs=(PROMETHEUS,)),
    Contender("shell, looks every 1 s", _polling, needs=("sha256sum",), period=1.0),
)


def run(bench: Bench) -> Iterator[Finding]:
    """Measure each; those that take a second a tenth as often."""
    return each(CONTENDERS, lambda contender: _measure(bench, contender))


def _measure(bench: Bench, contender: Contender) -> Iterator[Finding]:
    with bench.folder() as folder, bench.target() as target:
        volume = KubeletVolume(folder / "mounted")
        changer = Changer(bench, swap(volume), target, period=contender.period)
        with contender.started(bench, folder, volume.path, target):
            changer.warm_up()
            changes = changer.measure(max(1, bench.size.rounds // 10) if contender.period else bench.size.rounds)
        yield from changes.rows(contender.name, "swap")
