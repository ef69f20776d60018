"""The crash matrix: a sidecar that is killed at every call that touches the volume or a process; each row is a `Pod`."""

import contextlib
import json
import multiprocessing
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, TypeVar

from tests.faults import crashing
from tests.kubelet import KubeletVolume
from tests.scale import SEED, rounds
from tests.targets.reading import FILES, read, read_plain
from tests.waiting import eventually

POINTS = 4
"""At how many calls of each matrix the sidecar is killed in the quick form; in the long one at all."""
QUIET = 0.25
"""How many seconds without a call mean that the sidecar is at rest."""
BY_TIME = 6
"""How many calls one run may make less than another: ages are written by time."""
TARGETS = Path(__file__).parents[1] / "targets"

CONFIGURATION = """
sources:
  site: {{kind: files, path: {mounted}}}
volume:
  path: {live}
  in_place: {in_place}
  files:
    one.conf: {{content: "{{{{ site.text }}}}"}}
    two.conf: {{content: "{{{{ site.text }}}}"}}
target:
  match: {{cmdline: '{cmdline}'}}
  verify: {verify}
timing: {{min_interval: 0s, settle: 0s}}
failure: {{retry_refused: never}}
server: {{listen: "off"}}
{more}
"""

Call = tuple[str, ...]
"""The name and the arguments of a call."""


class Pod:
    """A mounted directory, an application with a bystander, and a sidecar that can be told where to die."""

    in_place: ClassVar[bool] = False
    verify: ClassVar[str] = "{alive: true, within: 50ms}"
    more: ClassVar[str] = ""
    asks: ClassVar[int] = 1
    """How many signals are due where nothing disturbs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.live = folder, folder / "live"
        self.mounted = KubeletVolume(folder / "mounted")
        self.configuration = folder / "app.yaml"
        self.configuration.write_text(
            CONFIGURATION.format(
                mounted=self.mounted.path,
                live=self.live,
                in_place=str(self.in_place).lower(),
                cmdline=re.escape(f"{folder}/app.pid "),
                verify=self.verify,
                more=self.more.format(folder=folder),
            )
        )
        self.runs = 0
        self.sidecar: multiprocessing.process.BaseProcess | None = None
        self.application = self._program("app", *self.program())
        self.bystander = self._program("bystander", TARGETS / "bystander.py", self.live)
        for name in ("app", "bystander"):
            eventually((folder / f"{name}.pid").exists, what=f"the {name}")

    def program(self) -> tuple[Path | str, ...]:
        """Return the script of the application, and where its configuration is."""
        return TARGETS / "reading.py", self.live

    def begin(self, at: int) -> None:
        """Go up to where the sidecar dies at call number `at`."""
        raise NotImplementedError

    def done(self) -> bool:
        """Return whether what was begun is done and confirmed."""
        raise NotImplementedError

    def taken(self) -> object:
        """Return what the application read last: the text of a set, or a mix."""
        texts = set((self.noted()[-1]["read"] or {}).values())
        return texts.pop() if len(texts) == 1 else texts

    def heard(self) -> int | None:
        """Return how many signals the application says that it got; None of one that does not say."""
        return sum(note["signalled"] for note in self.noted())

    def noted(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "app.notes").read_text().splitlines()]

    def say(self, text: str) -> None:
        self.mounted.swap({"text": text})

    def start(self, at: int = 0, *, armed: bool = True) -> None:
        """Start a sidecar that dies at call number `at`, counted from now, or from `arm`."""
        self.runs += 1
        if armed:
            self.arm()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.volumes", "tests.faults.crashing"])  # of all that are forked in one test run
        calls = (self._calls(self.runs), self.folder / f"armed-{self.runs}", at)
        log = self.folder / "sidecar.log"
        self.sidecar = context.Process(target=crashing.run, args=(self.configuration, log, calls), daemon=True)
        self.sidecar.start()

    def arm(self) -> None:
        (self.folder / f"armed-{self.runs}").touch()

    def kill(self) -> None:
        if self.sidecar is not None:
            self.sidecar.kill()
            self.sidecar.join()

    def died(self) -> bool:
        """Return whether the sidecar was killed at its call; one that made fewer calls than the recorded one was not."""
        sidecar = self.sidecar
        assert sidecar is not None
        eventually(lambda: sidecar.exitcode is not None or self.at_rest(), within=20, what="the crash")
        return sidecar.exitcode == -signal.SIGKILL

    def settle(self) -> None:
        """Wait until what was begun is done, and nothing more happens."""
        eventually(self.at_rest, within=20, what="what was begun to be done")

    def settle_on(self, text: str) -> None:
        """Wait until a set is confirmed, and nothing more happens."""
        eventually(lambda: self.confirmed(text) and self.quiet(), within=20, what=f"the set {text!r} to be confirmed")

    def at_rest(self) -> bool:
        return self.done() and self.quiet()

    def quiet(self) -> bool:
        """Return whether the last run has begun, and makes no calls now."""
        calls = self._calls(self.runs).stat()
        return calls.st_size > 0 and time.time() - calls.st_mtime > QUIET

    def close(self) -> None:
        self.kill()
        for process in (self.application, self.bystander):
            process.kill()
            process.wait()

    def calls(self, run: int | None = None) -> list[Call]:
        """Return the counted calls that a run made, the last one unless it is given."""
        return [call for count, call in self._noted_calls(run or self.runs) if count]

    def record(self) -> dict:
        return json.loads((self.live / "..reloader" / "record.json").read_text())

    def seen(self) -> dict[str, str] | None:
        """Return what a reader sees now."""
        return read_plain(self.live) if self.in_place else read(self.live)

    def confirmed(self, text: str) -> bool:
        """Return whether a set is published, the application took it last, and the record says so."""
        record = self.record()
        confirmation = record["confirmed"] or {"number": None, "instances": []}
        return bool(
            confirmation["number"] == record["published"]
            and confirmation["instances"]
            and self.seen() == set_of(text)
            and self.taken() == text
        )

    def check_peace(self) -> None:
        """Nobody but the application was ever signalled, and nothing is left on the volume that the record does not know."""
        asked = [call[1] for run in range(1, self.runs + 1) for _, call in self._noted_calls(run) if call[0] == "signal"]
        assert set(asked) == {str(self.application.pid)}
        assert self.heard() in (None, len(asked))
        assert (self.folder / "bystander.notes").read_text() == ""
        assert (self.application.poll(), self.bystander.poll()) == (None, None)
        left = {path.name for path in self.live.iterdir()} - {*FILES, "..data", "..reloader"}
        assert {name.removeprefix("..") for name in left} == set(self.record()["generations"])

    def _noted_calls(self, run: int) -> list[tuple[int, Call]]:
        noted = (json.loads(line) for line in self._calls(run).read_text().splitlines())
        return [(count, tuple(map(str, call))) for count, *call in noted]

    def _calls(self, run: int) -> Path:
        return self.folder / f"calls-{run}"

    def _program(self, name: str, script: Path | str, *arguments: Path | str) -> subprocess.Popen[bytes]:
        first, *rest = arguments
        command = [script, first, self.folder / f"{name}.pid", self.folder / f"{name}.notes", *rest]
        return subprocess.Popen([sys.executable, "-IS", *map(str, command)])


Row = TypeVar("Row", bound=Pod)


def set_of(text: str) -> dict[str, str]:
    return dict.fromkeys(FILES, text)


def signals(calls: list[Call]) -> int:
    return sum(call[0] == "signal" for call in calls)


def unrecorded(calls: list[Call]) -> bool:
    """Return whether the last signal among these calls was sent, and what came of it was not written down."""
    names = [call[0] if call[0] == "signal" else call[-1].rpartition("/")[2] for call in calls if call[0] in ("signal", "rename")]
    since = names[len(names) - names[::-1].index("signal") :] if "signal" in names else ["record.json"]
    return "record.json" not in since


def crashed(folder: Path, row: type[Row]) -> Iterator[tuple[Row, list[Call], int]]:
    """Yield a pod for each call of an undisturbed run, its sidecar killed right before that call: after a call is before the next.

    With it come the calls that it made, and how many signals are due after the restart.
    """
    recorded = _recorded(folder / "0", row)
    assert {"write_file", "rename", "sync_directory"} <= {call[0] for call in recorded}
    assert signals(recorded) == row.asks
    for at in _points(len(recorded)):
        print(f"killed before call {at} of {len(recorded)}: {' '.join(recorded[at - 1])}")
        with contextlib.closing(row(folder / str(at))) as pod:
            pod.begin(at)
            assert pod.died() or at > len(recorded) - BY_TIME
            pod.kill()
            made = pod.calls()
            # Only where the crash fell between a signal and the record of what came of it, it is repeated.
            yield pod, made, row.asks - signals(made) + unrecorded(made)
            pod.check_peace()


def _recorded(folder: Path, row: type[Row]) -> list[Call]:
    """Return the calls of one undisturbed run, in order: the matrix is made of them."""
    with contextlib.closing(row(folder)) as pod:
        pod.begin(0)
        pod.settle()
        pod.check_peace()
        return pod.calls()


def _points(calls: int) -> list[int]:
    """Return the calls to die at: all in the long form, in the quick one some, others each time."""
    return sorted(random.Random(SEED).sample(range(1, calls + 1), min(calls, rounds(POINTS, calls))))
