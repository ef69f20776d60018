"""A real change travelling to a real process on this machine: a mounted directory, the sidecar, and a program that takes SIGHUP.

Nothing here is played: the directory is swapped as the kubelet swaps a ConfigMap, the sidecar is `reloader run` in a process of its own,
and the program prints what it reads, and when.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

PATIENCE = 15.0
"""How many seconds one step may take before the demo gives up."""

TICK = 1 / os.sysconf("SC_CLK_TCK")
"""How exactly the kernel tells when a process started, in seconds; one that started in the tick of the publish would get a signal too."""

TEMPLATE = "greeting = {{ site.greeting }}\ncolour = {{ site.colour }}\n"

CONFIGURATION = """\
# Read a mounted directory, render one file from it, tell the process that reads that file.
sources:
  site: {{kind: files, path: {mounted}}}
volume:
  path: {live}
  files:
    app.conf: {{template: {mounted}/app.conf.j2}}
target:
  match: {{pidfile: {pidfile}}}
  verify: {{alive: true, within: 200ms}}
timing: {{min_interval: 100ms}}
server: {{listen: "off"}}
"""

PROGRAM = """\
import json, os, pathlib, signal, sys
live, pidfile = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
def load(number=0, frame=None):
    print(json.dumps({"signalled": bool(number), "read": (live / "app.conf").read_text()}), flush=True)
signal.signal(signal.SIGHUP, load)
pidfile.write_text(str(os.getpid()))
load()
while True:
    signal.pause()
"""


class Failed(Exception):
    """A step did not end as it should; the message says which."""


def demo(out: TextIO) -> bool:
    """Run the demo, telling a person each step; return whether every good change arrived and the broken one did not."""
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:7.3f} s  {text}", file=out, flush=True)

    try:
        with tempfile.TemporaryDirectory(prefix="reloader-demo-") as directory:
            _steps(Path(directory), tell)
    except Failed as failed:
        tell(f"FAILED: {failed}")
        return False
    tell("Done: every good change arrived, the broken one did not.")
    return True


def _steps(directory: Path, tell: Callable[[str], None]) -> None:
    mounted, live, pidfile = directory / "mounted", directory / "live", directory / "app.pid"
    configuration = directory / "demo.yaml"
    configuration.write_text(CONFIGURATION.format(mounted=mounted, live=live, pidfile=pidfile))
    swap = _Mounted(mounted)
    swap({"greeting": "hello", "colour": "blue", "app.conf.j2": TEMPLATE})
    tell(f"A directory is mounted as Kubernetes mounts a ConfigMap: {mounted}")
    with _program([sys.executable, "-m", "reloader", "run", str(configuration), "--log-format", "json"], "stderr") as sidecar:
        sidecar.wait(lambda line: line.get("message") == "publish", "the first set on the volume")
        tell(f"The sidecar runs, and has published {live}/app.conf.")
        time.sleep(2 * TICK)
        with _program([sys.executable, "-c", PROGRAM, str(live), str(pidfile)], "stdout") as program:
            first = program.wait(lambda line: not line["signalled"], "the program's start")
            sidecar.wait(lambda line: line.get("message") == "verify", "the sidecar to see the program")
            tell(f"A program starts and reads it: {_one_line(first['read'])}")
            _good(swap, program, tell, {"greeting": "good morning", "colour": "blue"})
            _good(swap, program, tell, {"greeting": "good morning", "colour": "green"})
            _broken(swap, sidecar, program, tell)
            _good(swap, program, tell, {"greeting": "good night", "colour": "black"})


def _good(swap: "_Mounted", program: "_Program", tell: Callable[[str], None], values: Mapping[str, str]) -> None:
    """Change the directory, and see the change in the program."""
    changed = time.monotonic()
    swap({**values, "app.conf.j2": TEMPLATE})
    got = program.wait(lambda line: line["signalled"], "SIGHUP in the program")
    took = (time.monotonic() - changed) * 1000
    if got["read"] != f"greeting = {values['greeting']}\ncolour = {values['colour']}\n":
        raise Failed(f"the program read something else: {_one_line(got['read'])}")
    tell(f"Changed. {took:.0f} ms later the program got SIGHUP and read: {_one_line(got['read'])}")


def _broken(swap: "_Mounted", sidecar: "_Program", program: "_Program", tell: Callable[[str], None]) -> None:
    """Take a value away that the template needs, and see that nothing of it arrives."""
    swap({"greeting": "good evening", "app.conf.j2": TEMPLATE})
    refused = sidecar.wait(lambda line: line.get("message") == "render" and line.get("outcome") == "failed", "the refusal")
    if program.lines():
        raise Failed("the program was signalled for a broken change")
    tell(f"Changed to something broken. The sidecar kept what is published, and says: {refused['reason']}")


def _one_line(text: str) -> str:
    return ", ".join(text.split("\n")).rstrip(", ")


class _Mounted:
    """A directory that is filled and swapped as the kubelet does it: a new folder, then one rename of `..data`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._swaps = 0
        path.mkdir()

    def __call__(self, files: Mapping[str, str]) -> None:
        """Put these files, and no others, in the directory."""
        data, link = self._path / "..data", self._path / "..data_tmp"
        old = data.readlink().name if data.is_symlink() else None
        self._swaps += 1
        folder = self._path / f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.{self._swaps:09d}"
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        link.symlink_to(folder.name)
        link.rename(data)
        for name in files:
            if not (self._path / name).is_symlink():
                (self._path / name).symlink_to(f"..data/{name}")
        for stale in [each for each in self._path.iterdir() if not each.name.startswith("..") and each.name not in files]:
            stale.unlink()
        if old is not None:
            shutil.rmtree(self._path / old)


class _Program:
    """A child and the JSON lines that it writes."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def wait(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Return the next line that is wanted.

        Raises:
            Failed: it does not come in time.

        """
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if wanted(line):
                return line
        raise Failed(f"waited {PATIENCE:.0f} s for {what}")

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines that nobody waited for."""
        return list(self._waiting())

    def _waiting(self) -> Iterator[dict[str, Any]]:
        while not self._lines.empty():
            yield self._lines.get()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            try:
                self._lines.put(json.loads(line))
            except ValueError:
                self._lines.put({"message": line.strip(), "signalled": False})


@contextmanager
def _program(argv: list[str], stream: str) -> Iterator[_Program]:
    """Run a program, reading one of its streams, and end it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RELOADER_")}
    child = subprocess.Popen(argv, text=True, env=environment, **{stream: subprocess.PIPE})  # type: ignore[call-overload]  # noqa: S603
    try:
        yield _Program(getattr(child, stream))
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()
        getattr(child, stream).close()
