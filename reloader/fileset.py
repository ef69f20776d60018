"""A set of files between being rendered and being published."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class RenderedFile:
    """One file of a set."""

    data: bytes = field(repr=False)
    mode: int = 0o640
    owner: str | None = None
    group: str | None = None


class RenderFailed(Exception):
    """A set cannot be rendered. The message names the file, the template, its line and the cause, and never a value."""


Rendered = Mapping[str, RenderedFile]
"""A whole set by name, relative to its directory, in sorted order."""


def published_paths(directories: Iterable[str], names: Iterable[str]) -> re.Pattern[str]:
    """Return what finds a path of a published set in a text: `..data`, a file of the set, or a folder of it, below such a directory."""
    parents = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 2)}
    roots = "|".join(re.escape(directory.rstrip("/")) for directory in sorted(set(directories)))
    below = "|".join(re.escape(name) for name in sorted({"..data", *parents}, key=len, reverse=True))
    # Neither end may be the middle of a longer name: /srv/live/app.conf is neither in /live nor the file app.
    return re.compile(rf"(?<![\w.-])(?:{roots})/+(?:{below})(?![\w-]|\.\w)")
