"""What is wrong with a configuration: where, which key, what was expected, and never a value."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches

from reloader.words import counted


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
        super().__init__("\n".join([f"the configuration has {counted(len(self.mistakes), 'mistake')}:", *map(str, self.mistakes)]))


class NoConfiguration(ConfigurationInvalid):
    """None is given anywhere."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name that was probably meant."""
    by_case = {each.lower(): each for each in known}
    return next((by_case[found] for found in get_close_matches(name.lower(), sorted(by_case), n=1)), None)


class Untold(str):
    """A key that may be a value in the wrong place, as in `{token:VALUE}`: it leads to its place like any other, and is not shown."""

    __slots__ = ()

    def __str__(self) -> str:
        return "?"


def as_told(key: str) -> str:
    """Return the key as a mistake may name it."""
    return key if re.fullmatch("[A-Za-z]{1,20}([._-][A-Za-z]{1,20})*[0-9]{0,2}", key) else Untold(key)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the message for a key that is not there: the nearest right one, else all that there are."""
    names = sorted(known)
    if isinstance(as_told(key), Untold):
        return f"unknown key, not shown because it may be a value; known here: {', '.join(names) or 'none'}"
    near = nearest(key, names)
    return f"unknown key {key!r}; " + (f"did you mean {near!r}?" if near else f"known here: {', '.join(names) or 'none'}")


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """Return the names there are, the most similar first."""
    return sorted(known, key=lambda each: (-SequenceMatcher(None, name.lower(), each).ratio(), each))
