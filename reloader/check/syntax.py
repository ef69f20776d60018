"""Whether the files whose names say so are JSON, YAML or TOML; told by place, since a parser's own words quote what it read."""

import json
import re
from collections.abc import Callable, Mapping
from itertools import count, islice
from typing import Any, NoReturn

import yaml

from reloader.check.errors import CheckRefused, listed
from reloader.fileset import Rendered
from reloader.plan import SYNTAXES

DEPTH_LIMIT = 1000
"""How deep YAML may be nested; each level slows libyaml's scanner down for all that is in it (measured: 14 s for 100,000)."""

_TWICE = "has a key twice"


def check(syntax: str, rendered: Rendered) -> None:
    """Refuse files of this syntax that do not parse or hold a key twice, and a set without any."""
    endings = SYNTAXES[syntax]
    names = [name for name in rendered if name.endswith(endings)]
    if not names:
        raise CheckRefused(f"{syntax}: no file of the set has a name that ends in {' or '.join(endings)}")
    mistakes = [f"{name}{mistake}" for name in names if (mistake := _mistake(syntax, rendered[name].data))]
    if mistakes:
        raise CheckRefused(f"{syntax}: {listed(mistakes)}")


def _mistake(syntax: str, data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return _at_offset(data[: error.start].decode(), error.start, "not UTF-8")
    try:
        return _FINDERS[syntax](text)
    except RecursionError:
        return ": nested too deeply"


def _at(line: int, column: int, what: str) -> str:
    return f", line {line}, column {column}: {what}"


def _at_offset(text: str, offset: int, what: str) -> str:
    before = text[:offset]
    return _at(before.count("\n") + 1, len(before) - before.rfind("\n"), what)


def _at_mark(mark: Any, what: str) -> str:
    return _at(mark.line + 1, mark.column + 1, what) if mark else f": {what}"


class _Found(Exception):
    """A mistake that a parser's hook found; the text is ours."""


_JSON_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"|(?P<end>\})|(?P<constant>NaN|-?Infinity)')
"""What can be looked for outside strings, once the text is known to parse so far."""


def _json(text: str) -> str:
    objects = count()

    def end_object(pairs: list[tuple[str, Any]]) -> None:
        nth = next(objects)  # they end in the order in which their braces close
        if len(dict(pairs)) < len(pairs):
            raise _Found(_at_token(text, "end", nth, f"the object that ends here {_TWICE}"))

    def constant(_: str) -> NoReturn:
        raise _Found(_at_token(text, "constant", 0, "not JSON, which has no such number"))

    try:
        # Numbers stay text: Python's own refuse what is longer than 4300 digits.
        json.loads(text, object_pairs_hook=end_object, parse_constant=constant, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        return _at(error.lineno, error.colno, "not JSON")
    except _Found as found:
        return str(found)
    return ""


def _at_token(text: str, kind: str, nth: int, what: str) -> str:
    tokens = (token.start() for token in _JSON_TOKENS.finditer(text) if token[kind])
    return _at_offset(text, next(islice(tokens, nth, None)), what)


def _toml(text: str) -> str:
    import tomllib  # noqa: PLC0415 - only when a check asks for it

    try:
        tomllib.loads(text, parse_float=str)
    except ValueError as error:  # also for an integer of too many digits, which is told without a place
        place = re.search(r"\(at line ([0-9]+), column ([0-9]+)\)$", str(error))
        end = str(error).endswith("(at end of document)")
        return _at(int(place[1]), int(place[2]), "not TOML") if place else _at_offset(text, len(text), "not TOML") if end else ": not TOML"
    return ""


_YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml, where PyYAML was built with it: 18 times as fast (measured, 6.0.3)."""


def _yaml(text: str) -> str:
    """Read events alone: nothing is built, so tags may be the target's own, and aliases cannot multiply."""
    try:
        _Documents(text).read()
    except _Found as found:
        return str(found)
    except yaml.reader.ReaderError:
        bad = yaml.reader.Reader.NON_PRINTABLE.search(text)
        return _at_offset(text, bad.start() if bad else 0, "a character that YAML does not allow")
    except yaml.MarkedYAMLError as error:
        return _at_mark(error.problem_mark or error.context_mark, "not YAML")
    return ""


class _Documents:
    """The documents of one YAML file."""

    def __init__(self, text: str) -> None:
        self._loader = _YamlLoader(text)
        self._anchors: set[str] = set()
        self._open: list[_Collection] = []

    def read(self) -> None:
        """Read to the end.

        Raises:
            _Found: an alias of nothing, or a key that is there twice.
            yaml.YAMLError: it is not YAML.

        """
        try:
            while self._loader.check_event():
                self._take(self._loader.get_event())
        finally:
            self._loader.dispose()

    def _take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._anchors.clear()
        elif isinstance(event, yaml.NodeEvent):
            self._node(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()

    def _node(self, event: yaml.NodeEvent) -> None:
        if isinstance(event, yaml.AliasEvent) and event.anchor not in self._anchors:
            raise _found(event, "an alias of nothing; a text that begins with * must be put in quotes")
        if self._open and self._open[-1].repeats(self._key(event)):
            raise _found(event, f"the mapping {_TWICE}, here again")
        if event.anchor is not None:
            self._anchors.add(event.anchor)
        if isinstance(event, yaml.CollectionStartEvent):
            self._open.append(_Collection(isinstance(event, yaml.MappingStartEvent)))
            if len(self._open) > DEPTH_LIMIT:
                raise _found(event, "nested too deeply")

    def _key(self, event: yaml.NodeEvent) -> tuple[str, str] | None:
        """Return what tells a key from others; None for what may stand there twice, or cannot be compared."""
        if not isinstance(event, yaml.ScalarEvent):
            return None
        tag = event.tag or self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        return None if tag == "tag:yaml.org,2002:merge" else (tag, event.value)


class _Collection:
    """A list or mapping that has begun."""

    def __init__(self, is_mapping: bool) -> None:
        self._is_mapping = is_mapping
        self._keys: set[tuple[str, str]] = set()
        self._key_next = True

    def repeats(self, key: tuple[str, str] | None) -> bool:
        """Take the next node, and return whether it is a key that was there already."""
        is_key = self._is_mapping and self._key_next
        self._key_next = not self._key_next
        if not is_key or key is None:
            return False
        known = key in self._keys
        self._keys.add(key)
        return known


def _found(event: yaml.Event, what: str) -> _Found:
    return _Found(_at_mark(event.start_mark, what))


_FINDERS: Mapping[str, Callable[[str], str]] = {"json": _json, "yaml": _yaml, "toml": _toml}
"""What returns the mistake in a text and where it is; empty where there is none."""
