"""Secrets that nothing else in the world says, whatever became visible while they were there, and where they were found in it.

Each has a core of random digits. Quotes, backslashes and other signs around the core are written out in JSON, a URL, HTML or a `repr`, and
the core is not: so it is looked for as it is, as hexadecimal digits, and in base64 at each of the three places where it can begin.
"""

import base64
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Self

AWKWARD = "'\"<&>\\é% +/"
"""Signs that are written otherwise in one form or another."""
LARGEST = 64 * 2**20


@cache
def forms(core: str) -> frozenset[str]:
    """Return what a core looks like in each of the forms in which it could be read."""
    plain = core.encode()
    inside = {base64.b64encode(b"x" * before + plain)[(0, 2, 3)[before] : -4].decode() for before in range(3)}
    return frozenset({core, plain.hex(), plain.hex().upper(), *inside})


class Canaries:
    """The secrets of a test by what holds them."""

    def __init__(self) -> None:
        self._cores: dict[str, str] = {}

    def make(self, holder: str, *, awkward: bool = True) -> str:
        """Return a new secret; one with signs that are written otherwise here and there, unless it is to stand in a header or a name."""
        core = secrets.token_hex(12)
        self._cores[holder] = core
        return f"canary-{AWKWARD}{core}{AWKWARD}" if awkward else f"canary-{core}"

    def add(self, holder: str, text: str) -> None:
        """Take a secret that something else made."""
        middle = len(text) // 2
        self._cores[holder] = text[middle - 12 : middle + 12]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._cores.items())

    def found_in(self, text: str) -> dict[str, str]:
        """Return the holders whose secret a text tells, each with what is around it."""
        places = ((holder, text.find(form)) for holder, core in self for form in forms(core))
        return {holder: text[max(0, at - 100) : at + 60] for holder, at in places if at >= 0}


class Seen:
    """All that somebody could see, by where it was."""

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries
        self.places: dict[str, dict[str, str]] = {}
        """The secrets that were found in each place."""
        self._known: dict[str, tuple[int, bytes]] = {}

    def keep_again(self, place: str, text: bytes) -> None:
        """Look at what is seen in a place over and over, if it is not what it was."""
        known = (len(tuple(self._canaries)), text)
        if self._known.get(place) != known:
            self._known[place] = known
            self.keep(place, text)

    def keep(self, place: str, text: str | bytes) -> str:
        """Look at what is seen in a place, and return it as text."""
        text = text if isinstance(text, str) else text.decode("latin-1") + text.decode(errors="replace")
        self.places[place] = self.places.get(place, {}) | self._canaries.found_in(text)
        return text

    def keep_files(self, folders: Iterable[Path], meant: Iterable[Path], since: float) -> list[Path]:
        """Look at every file below the folders that was written since, and return those that hold a secret and are meant to."""
        meant, expected = tuple(meant), []
        for folder in folders:
            for path in folder.rglob("*"):
                with suppress(OSError):
                    status = path.lstat()
                    if path.is_symlink() or not path.is_file() or status.st_mtime < since or status.st_size > LARGEST:
                        continue
                    text = path.read_bytes()
                    if any(path.is_relative_to(each) for each in meant):
                        expected += [path] if self._canaries.found_in(text.decode("latin-1")) else []
                    else:
                        self.keep(f"file {path}", text)
        return expected

    @property
    def leaks(self) -> dict[str, set[str]]:
        """Return each place where a secret was found, with whose."""
        return {place: set(found) for place, found in self.places.items() if found}

    def __str__(self) -> str:
        """Return what is around the first that was found of each secret."""
        first = {holder: (place, around) for place, found in reversed(self.places.items()) for holder, around in found.items()}
        return "\n".join(f"{holder}: {place}: {around!r}" for holder, (place, around) in first.items())


class Onlooker:
    """Looks at the processes below one, all the time: how they were started, with what environment, which files they have open."""

    def __init__(self, seen: Seen, root: int, given: Mapping[str, str]) -> None:
        self._seen, self._root = seen, root
        self._given = {f"{name}={text}".encode() for name, text in given.items()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self.children: set[int] = set()
        """The pids that were seen."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._ended.wait(0.01):
            for pid in self._below(self._root):
                # Until it executes a program, a child has the memory of the sidecar, which is as closed to others as that.
                if _cmdline(pid) != _cmdline(self._root):
                    self.children.add(pid)
                    self._process(pid, "environ", "cmdline", "comm")
            self._process(self._root, "cmdline", "comm")
            self._own()

    def _below(self, pid: int) -> Iterator[int]:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                for child in map(int, (task / "children").read_text().split()):
                    yield child
                    yield from self._below(child)

    def _process(self, pid: int, *names: str) -> None:
        for name in names:
            with suppress(OSError):
                place = f"{name} of {'the sidecar' if pid == self._root else 'a child'}"
                self._seen.keep_again(place, Path(f"/proc/{pid}/{name}").read_bytes())

    def _own(self) -> None:
        """Look at the sidecar's own environment, without what the operator gave it, and at files that have no name any more."""
        with suppress(OSError):
            environ = Path(f"/proc/{self._root}/environ").read_bytes().split(b"\0")
            self._seen.keep_again("environ of the sidecar", b"\0".join(each for each in environ if each not in self._given))
        with suppress(OSError):
            for each in Path(f"/proc/{self._root}/fd").iterdir():
                with suppress(OSError):
                    if str(each.readlink()).endswith(" (deleted)") and each.stat().st_size < LARGEST:
                        self._seen.keep("a file without a name", each.read_bytes())


def _cmdline(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
