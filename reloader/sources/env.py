"""Environment variables of the reloader's own process: fixed for a run, so read once and always current."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

from reloader.backends.local import ReadFailed
from reloader.plan import Connections, Local
from reloader.snapshot import FailureKind, Outcome, Reading
from reloader.written import plain


@plain
class Settings:
    """What a source of kind `env` is told."""

    names: tuple[str, ...]
    """The variables to expose, as a mapping of name to text."""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield each key whose value cannot work, with what was expected."""
        if not self.names:
            yield "names", "expected at least one name of an environment variable"


@dataclass(frozen=True)
class Variables:
    """The read: the text of each variable."""

    names: tuple[str, ...]
    poll: float = inf

    def answer(self) -> dict[str, str]:
        """Return the text of each variable by its name.

        Raises:
            ReadFailed: some are not set, and which.

        """
        missing = [name for name in self.names if name not in os.environ]
        if missing:
            noun = "variables" if len(missing) > 1 else "variable"
            raise ReadFailed(
                FailureKind.REFUSED, f"environment {noun} {', '.join(missing)} not set; set them in the `env` of the reloader's container"
            )
        return {name: os.environ[name] for name in self.names}


class Source:
    """A mapping of variable name to text, masked wherever a person could see it."""

    def __init__(self, settings: Settings, connections: Connections) -> None:  # noqa: ARG002 - what every source is made with
        self.backend = Local()
        self.read = Variables(settings.names)

    def interpret(self, reading: Reading) -> Outcome:
        """Return the reading, marked as secret: passwords are often handed over like this."""
        return replace(reading, secret=True, detail=f"{len(self.read.names)} variables")
