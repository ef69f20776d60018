"""What is wrong with a configuration: where, which key, what was expected, and never a value."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches


@dataclass(frozen=True)
class Mistake:
    """One thing to put right."""

    where: str
    """`FILE:LINE:COLUMN`, `environment` or `command line`."""
    key: str
    """The key's full path, the variable or the option; empty where the whole is meant."""
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


class ConfigurationInvalid(ValueError):
    """The configuration cannot be used; the text lists every mistake, one a line."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(dict.fromkeys(mistakes))
        count = f"{len(self.mistakes)} mistake{'s' if len(self.mistakes) > 1 else ''}"
        super().__init__("\n".join([f"the configuration has {count}:", *map(str, self.mistakes)]))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name that was probably meant."""
    by_case = {each.lower(): each for each in known}
    return next((by_case[found] for found in get_close_matches(name.lower(), sorted(by_case), n=1)), None)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the message for a key that is not there: the nearest right one, else all that there are."""
    names = sorted(known)
    near = nearest(key, names)
    return f"unknown key {key!r}; " + (f"did you mean {near!r}?" if near else f"known here: {', '.join(names) or 'none'}")


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """Return the names there are, the most similar first."""
    return sorted(known, key=lambda each: (-SequenceMatcher(None, name.lower(), each).ratio(), each))
