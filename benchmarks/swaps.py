"""Swaps a directory again and again, as the kubelet does, and sees which signals that leads to."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.bench import Bench
from benchmarks.report import Row
from benchmarks.target import Target
from tests.kubelet import KubeletVolume

LOST_AFTER = 5.0
"""How many seconds after a swap its signal counts as lost."""
WARM_UP = 3
"""How many swaps lead to a signal before the first that counts: the contender is up, its caches are warm."""
UP_WITHIN = 30.0

FILES = {"settings.json": '{"limit": 100}\n', "extra.conf": "x" * 4000 + "\n"}
"""What a set holds beside the file that changes."""


@dataclass
class Swaps:
    """What a number of swaps led to."""

    latencies: list[float] = field(default_factory=list)
    """Seconds from the rename to the first signal after it, where there was one."""
    signals: list[int] = field(default_factory=list)
    """How many signals each swap led to, those before its rename included."""

    def __add__(self, more: "Swaps") -> "Swaps":
        return Swaps(self.latencies + more.latencies, self.signals + more.signals)

    def rows(self, contender: str) -> Iterator[Row]:
        """Yield both as rows."""
        yield Row(contender, "swap to signal", "ms", [latency * 1000 for latency in self.latencies])
        yield Row(contender, "signals per swap", "", self.signals)


class NeverUp(Exception):
    """A contender did not signal at all."""


class Swapper:
    """One mounted directory and the target that is to hear of its changes."""

    def __init__(
        self, bench: Bench, volume: KubeletVolume, target: Target, *, took: Callable[[str], bool] = lambda _: True, period: float = 0.0
    ) -> None:
        """Make one.

        Args:
            bench: how long to pause.
            volume: the directory.
            target: who is signalled.
            took: whether the target, told of a swap that says this text, finds it; a signal before that counts, but does not end the wait.
            period: how many seconds are between two looks of a contender that polls; swaps come anywhere in between.

        """
        self._bench = bench
        self._volume = volume
        self._target = target
        self._took = took
        self._period = period
        self._number = 0
        self.swap()

    def swap(self) -> tuple[float, str]:
        """Change the directory; return when that was, and what it says now."""
        self._number += 1
        text = f"number {self._number}\n"
        return self._volume.swap({**FILES, "app.conf": text}), text

    def warm_up(self) -> None:
        """Swap until that leads to signals.

        Raises:
            NeverUp: it does not.

        """
        deadline, done = time.monotonic() + UP_WITHIN, 0
        while done < WARM_UP:
            if time.monotonic() > deadline:
                raise NeverUp(f"no signal within {UP_WITHIN:g} s of its start")
            done += self._round(patience=2.0)[0] is not None

    def measure(self, rounds: int) -> Swaps:
        """Swap that often, with a pause after each."""
        found = Swaps()
        for _ in range(rounds):
            latency, signals = self._round(patience=LOST_AFTER)
            found.signals.append(signals)
            if latency is not None:
                found.latencies.append(latency)
        return found

    def _round(self, patience: float) -> tuple[float | None, int]:
        """Swap once; return how long its signal took, if it came, and how many came."""
        shown, text = self.swap()
        arrived: list[float] = []
        latency = None
        while latency is None and (left := shown + patience - time.monotonic()) > 0:
            arrived += (new := self._target.signals(left))
            after = [at for at in new if at >= shown]
            latency = after[0] - shown if after and self._took(text) else None
        arrived += self._target.drain(time.monotonic() + self._pause())
        return latency, len(arrived)

    def _pause(self) -> float:
        random = self._bench.random
        return self._bench.pause * random.uniform(1, 2) + self._period * random.uniform(0, 1)
