"""A reader that never stops, and tells what it saw torn."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.targets.reading import read


class Checker(threading.Thread):
    """Reads the set over and over, below the directory that `..data` leads to at that moment."""

    def __init__(self, live: Path, read: Callable[[Path], Mapping[str, str] | None] = read) -> None:
        super().__init__(daemon=True)
        self._live = live
        self._read = read
        self._stopped = threading.Event()
        self.reads = 0
        self.seen: set[str] = set()
        self.torn: list[str] = []

    def run(self) -> None:
        while not self._stopped.wait(0.0005):
            try:
                found = self._read(self._live)
            except OSError as problem:
                self.torn.append(f"a file of the set was missing: {problem}")
                continue
            if found is not None:
                self._look({*found.values()})

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _look(self, contents: set[str]) -> None:
        self.reads += 1
        numbers = {word for content in contents for word in content.split()}
        self.seen |= numbers
        if len(contents) != 1 or len(numbers) != 1:
            self.torn.append(f"the files of one set speak of {sorted(numbers)}")
