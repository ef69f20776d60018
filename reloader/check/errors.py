"""What a check can say beside yes, and how it tells places."""

from collections.abc import Sequence

_SHOWN = 5
"""How many places a message names of the same mistake."""


class CheckRefused(Exception):
    """The check says no. The message shows no value; `output` is what the command wrote, which may quote what it was given."""

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason)
        self.output = output


class CheckErrored(Exception):
    """The check could not say anything: it was not found, was killed, or took too long."""


def listed(places: Sequence[str]) -> str:
    """Return the first few of them, and how many more there are."""
    return "; ".join(places[:_SHOWN]) + (f"; and {len(places) - _SHOWN} more" if len(places) > _SHOWN else "")
