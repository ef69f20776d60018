"""The operator's check on the staged set, before anybody can see it."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from reloader.check import change
from reloader.check.errors import CheckErrored, CheckRefused, listed
from reloader.fileset import Rendered, published_paths
from reloader.plan import Check, MaxChange
from reloader.world.children import Children
from reloader.world.clock import Clock

__all__ = ["CheckErrored", "CheckRefused", "Checker"]


class Checker:
    """Runs the built-in checks and then the command of one volume."""

    def __init__(self, check: Check, children: Children, clock: Clock, *, target_path: str | None = None) -> None:
        self._check = check
        self._children = children
        self._clock = clock
        self._target_path = target_path
        """Where the target mounts the volume, if elsewhere."""

    def check(self, staged: Path, rendered: Rendered, published: Callable[[], Mapping[str, bytes]]) -> None:
        """Return if the set, which lies in its final directory `staged`, may be published in place of the `published` files.

        Raises:
            CheckRefused: it may not.
            CheckErrored: the check could not be made.

        """
        for each in self._check.builtin:
            self._builtin(each, staged, rendered, published)
        if self._check.command is not None:
            self._refuse_published_paths(staged, rendered)
            self._run(tuple(argument.replace("{staged}", str(staged)) for argument in self._check.command))

    def _builtin(self, check: str | MaxChange, staged: Path, rendered: Rendered, published: Callable[[], Mapping[str, bytes]]) -> None:
        match check:
            case MaxChange():
                change.check(check.percent, rendered, published(), self._directories(staged))
            case "keypair":
                from reloader.check import keypair  # noqa: PLC0415 - OpenSSL, only where it is asked for

                keypair.check(staged, rendered, self._clock.wall())
            case "nonempty":
                _nonempty(rendered)
            case _:
                from reloader.check import syntax  # noqa: PLC0415 - YAML, likewise

                syntax.check(check, rendered)

    def _directories(self, staged: Path) -> tuple[str, str]:
        """Return the volume's directory as we see it, and as the target does."""
        return str(staged.parent), self._target_path or str(staged.parent)

    def _refuse_published_paths(self, staged: Path, rendered: Rendered) -> None:
        """Refuse a set that names its published self: the command would follow that into the old set."""
        pattern = published_paths(self._directories(staged), rendered)
        hits = [f"{name}, line {line}" for name, file in rendered.items() for line in _lines(pattern, file.data)]
        if hits:
            raise CheckRefused(
                f"the set names its own published path ({listed(hits)}), so the check command would read the old set; "
                "write {{ generation }} in front of the file's name, or a relative path"
            )

    def _run(self, argv: tuple[str, ...]) -> None:
        try:
            ended = self._children.run(argv, timeout=self._check.timeout)
        except OSError as error:
            reason = f"check command {argv[0]!r} cannot be started: {error.strerror}; it runs in the sidecar's own container"
            raise CheckErrored(reason) from None
        if ended.status is None:
            raise CheckErrored(f"check command {argv[0]!r} did not end within {self._check.timeout:g} s and was killed")
        if ended.status < 0:
            raise CheckErrored(f"check command {argv[0]!r} was killed by signal {-ended.status}")
        if ended.status > 0:
            raise CheckRefused(f"check command {argv[0]!r} ended with status {ended.status}", ended.output)


def _lines(pattern: re.Pattern[str], data: bytes) -> Iterator[int]:
    text = data.decode("utf-8", errors="surrogateescape")
    return (text.count("\n", 0, found.start()) + 1 for found in pattern.finditer(text))


def _nonempty(rendered: Rendered) -> None:
    """Refuse a set with nothing in it, or with nothing in one of its files."""
    empty = [name for name, file in rendered.items() if not file.data.strip()]
    if empty or not rendered:
        raise CheckRefused(f"nonempty: {f'empty or only white space: {listed(empty)}' if empty else 'the set has no file'}")
