"""Changes something again and again, and sees which signals that leads to."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.bench import Bench
from benchmarks.report import Row
from benchmarks.target import Target
from tests.kubelet import KubeletVolume

LOST_AFTER = 5.0
"""How many seconds after a change its signal counts as lost."""
WARM_UP = 3
"""How many changes lead to a signal before the first that counts: the contender is up, its caches are warm."""
UP_WITHIN = 30.0

FILES = {"settings.json": '{"limit": 100}\n', "extra.conf": "x" * 4000 + "\n"}
"""What a set holds beside the file that changes."""

Change = Callable[[str], float]
"""Has something say a text from now on; returns when that began, in seconds of the monotonic clock."""


def swap(volume: KubeletVolume) -> Change:
    """Return a change that is the kubelet's update of a mounted directory."""
    return lambda text: volume.swap({**FILES, "app.conf": text})


def timed(write: Callable[[str], object]) -> Change:
    """Return a change that begins when `write` is called."""

    def change(text: str) -> float:
        began = time.monotonic()
        write(text)
        return began

    return change


@dataclass
class Changes:
    """What a number of changes led to."""

    latencies: list[float] = field(default_factory=list)
    """Seconds from the change to the first signal after it, where there was one."""
    signals: list[int] = field(default_factory=list)
    """How many signals each change led to, those before it began included."""

    def __add__(self, more: "Changes") -> "Changes":
        return Changes(self.latencies + more.latencies, self.signals + more.signals)

    def rows(self, contender: str, what: str) -> Iterator[Row]:
        """Yield both as rows; `what` is one word for the change."""
        yield Row(contender, f"{what} to signal", "ms", [latency * 1000 for latency in self.latencies])
        yield Row(contender, f"signals per {what}", "", self.signals)


class NeverUp(Exception):
    """A contender did not signal at all."""


class Changer:
    """What is changed, and the target that is to hear of it."""

    def __init__(
        self, bench: Bench, change: Change, target: Target, *, took: Callable[[str], bool] = lambda _: True, period: float = 0.0
    ) -> None:
        """Make one, and change it for the first time.

        Args:
            bench: how long to pause.
            change: how it is changed.
            target: who is signalled.
            took: whether the target, told of a change that says this text, finds it; a signal before that counts and does not end the wait.
            period: how many seconds are between two looks of a contender that polls; changes come anywhere in between.

        """
        self._bench = bench
        self._change = change
        self._target = target
        self._took = took
        self._period = period
        self._number = 0
        self._next()

    def warm_up(self) -> None:
        """Change it until that leads to signals.

        Raises:
            NeverUp: it does not.

        """
        deadline, done = time.monotonic() + UP_WITHIN, 0
        while done < WARM_UP:
            if time.monotonic() > deadline:
                raise NeverUp(f"no signal within {UP_WITHIN:g} s of its start")
            done += self._round(2.0, self._pause())[0] is not None

    def measure(self, rounds: int) -> Changes:
        """Change it that often, with a pause after each."""
        found = Changes()
        for _ in range(rounds):
            latency, signals = self._round(LOST_AFTER, self._pause())
            found.signals.append(signals)
            if latency is not None:
                found.latencies.append(latency)
        return found

    def hurry(self, rounds: int) -> int:
        """Change it that often, each as soon as the one before led to a signal; return how many led to none."""
        return sum(self._round(LOST_AFTER, 0.0)[0] is None for _ in range(rounds))

    def _next(self) -> tuple[float, str]:
        self._number += 1
        text = f"number {self._number}\n"
        return self._change(text), text

    def _round(self, patience: float, pause: float) -> tuple[float | None, int]:
        """Change it once; return how long its signal took, if it came, and how many came until the pause was over."""
        began, text = self._next()
        arrived: list[float] = []
        latency = None
        while latency is None and (left := began + patience - time.monotonic()) > 0:
            arrived += (new := self._target.signals(left))
            after = [at for at in new if at >= began]
            latency = after[0] - began if after and self._took(text) else None
        arrived += self._target.drain(time.monotonic() + pause)
        return latency, len(arrived)

    def _pause(self) -> float:
        random = self._bench.random
        return self._bench.size.pause * random.uniform(1, 2) + self._period * random.uniform(0, 1)
