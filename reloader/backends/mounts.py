"""What is mounted where, as far as it changes how a directory is read."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_IN_MEMORY = {"tmpfs", "ramfs"}


@dataclass(frozen=True)
class Mounts:
    """The mounts that this process sees."""

    points: frozenset[str] = frozenset()
    memory: frozenset[int] = field(default=frozenset())
    """The devices that are in memory; the kubelet keeps Secrets there, and ConfigMaps on disk."""
    table: bytes = field(default=b"", repr=False, compare=False)
    """What all this was read from."""

    @classmethod
    def read(cls, table: Path = Path("/proc/self/mountinfo"), before: "Mounts | None" = None) -> "Mounts":
        """Return the mounts there are now; those of before, where the table is the same."""
        data = table.read_bytes()
        if before is not None and data == before.table:
            return before
        lines = [line.split(" ") for line in data.decode("utf-8", "surrogateescape").splitlines()]
        return cls(frozenset(_unescaped(line[4]) for line in lines), frozenset(_memory(lines)), data)

    def below(self, directory: str) -> frozenset[str]:
        """Return the mount points below a directory, relative to it."""
        inside = directory.rstrip("/") + "/"
        return frozenset(point.removeprefix(inside) for point in self.points if point.startswith(inside))


def _memory(lines: list[list[str]]) -> Iterator[int]:
    for line in lines:
        kind = line[line.index("-") + 1]  # proc(5): a variable number of fields comes before the hyphen
        if kind in _IN_MEMORY:
            major, minor = line[2].split(":")
            yield os.makedev(int(major), int(minor))


def _unescaped(path: str) -> str:
    return re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), path)
