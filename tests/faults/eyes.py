"""A reader of several pipelines' sets that never stops, and tells what it saw torn, blanked or gone."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.targets.reading import read

Files = Mapping[str, str]
Judge = Callable[[Files], bool]
"""Whether the files of a set belong together."""


def alike(count: int) -> Judge:
    """Expect the same word so many times in both files: what was written together must be read together."""
    return lambda files: len(set(files.values())) == len(set(words(files))) == 1 and len(words(files)) == count


def paired(files: Files) -> bool:
    """Expect the same two words in both files."""
    return len(set(files.values())) == 1 and len(words(files)) == 2


def matching(files: Files) -> bool:
    """Expect a certificate and the key that belongs to it."""
    try:
        key = serialization.load_pem_private_key(files["two.conf"].encode(), None)
        return certificate(files).public_key() == key.public_key()
    except ValueError:
        return False


def words(files: Files) -> list[str]:
    """Return the words of the first file."""
    return files["one.conf"].split()


def certificate(files: Files) -> x509.Certificate:
    """Return the certificate in the first file."""
    return x509.load_pem_x509_certificate(files["one.conf"].encode())


class Eyes(threading.Thread):
    """Reads every set over and over, below the directory that `..data` leads to at that moment."""

    def __init__(self, live: Mapping[str, Path], judges: Mapping[str, Judge]) -> None:
        super().__init__(daemon=True)
        self._live, self._judges = live, judges
        self._stopped = threading.Event()
        self._seen: dict[str, Files] = {}
        self.bad: list[str] = []
        self.reads: Counter[str] = Counter()
        self.sets: Counter[str] = Counter()

    def run(self) -> None:
        while not self._stopped.wait(0.005):
            for name, live in self._live.items():
                try:
                    self._look(name, read(live))
                except OSError as problem:
                    self.bad.append(f"{name}: a file of the set was missing: {problem}")

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _look(self, name: str, files: Files | None) -> None:
        self.reads[name] += 1
        if files is None:
            if name in self._seen:
                self.bad.append(f"{name}: nothing is published any more")
        elif files != self._seen.get(name):
            self.sets[name] += 1
            self._seen[name] = files
            if not self._judges[name](files):
                self.bad.append(f"{name}: {files}")
