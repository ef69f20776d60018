"""Reads a YAML file as a tree whose every value has a line, and refuses what would be read as something else than was meant.

PyYAML by itself takes the last of two equal keys, an empty file, a list as the root, and `on` as a key for true (measured, 6.0.3).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from reloader.settings.mistakes import ConfigurationInvalid, Mistake
from reloader.settings.tree import Loc, Place, Problem, Tree

SIZE_LIMIT = 1 << 20
"""Bytes; as much as a ConfigMap may hold."""
NODE_LIMIT = 20_000
"""Keys and values once aliases are followed, so that a few lines of anchors cannot fill the memory."""

_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_TAGGED = "a text that begins with ! must be put in quotes"


def read(path: Path) -> tuple[Tree, list[Problem]]:
    """Return what a file says, and what is wrong with how it says it.

    Raises:
        ConfigurationInvalid: nothing can be made of the file.

    """
    text = _text(path)
    try:
        return _Reader(path, text).tree()
    except yaml.YAMLError as error:
        raise ConfigurationInvalid([_syntax(path, error)]) from None
    except RecursionError:
        raise _refused(path, "nested too deeply") from None


def read_value(text: str) -> Any:
    """Return the list or mapping that an environment variable holds.

    Raises:
        ValueError: it is none.

    """
    try:
        tree, problems = _Reader(Path(), f"value: {text}").tree()
    except (yaml.YAMLError, RecursionError):
        tree, problems = Tree({}, {}), []
    value = tree.data.get("value")
    if problems or len(tree.data) != 1 or not isinstance(value, list | dict):
        raise ValueError("expected a list such as [a, b] or a mapping such as {a: b}")
    return value


def _refused(path: Path, message: str) -> ConfigurationInvalid:
    return ConfigurationInvalid([Mistake(str(path), "", message)])


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
        text = raw.decode()
    except FileNotFoundError:
        raise _refused(path, "no such file") from None
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise _refused(path, "is not UTF-8 text") from None
    if len(raw) > SIZE_LIMIT:
        raise _refused(path, f"larger than {SIZE_LIMIT >> 20} MiB")
    return text


class _Reader:
    """Turns the nodes of one file into plain data, keeping the place of each."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._loader = yaml.SafeLoader(text)
        self._places: dict[Loc, Place] = {}
        self._problems: list[Problem] = []
        self._nodes = 0
        self._open: set[int] = set()

    def tree(self) -> tuple[Tree, list[Problem]]:
        root = self._loader.get_single_node()
        if root is None or root.tag == "tag:yaml.org,2002:null":
            raise _refused(self._path, "the file is empty")
        self._places[()] = self._place(root)
        if not isinstance(root, yaml.MappingNode):
            raise ConfigurationInvalid([self._places[()].mistake((), "expected a mapping (key: value, one a line) at the top of the file")])
        return Tree(self._value(root, ()), self._places), self._problems

    def _place(self, node: yaml.Node) -> Place:
        return Place(str(self._path), line=node.start_mark.line + 1, column=node.start_mark.column + 1)

    def _value(self, node: yaml.Node, loc: Loc) -> Any:
        self._nodes += 1
        if self._nodes > NODE_LIMIT:
            raise ConfigurationInvalid([self._places[loc].mistake(loc[:1], f"more than {NODE_LIMIT} values, with every alias followed")])
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, loc)
        if node.tag not in _COLLECTIONS:
            self._problems.append((loc, _TAGGED))
            return None
        if id(node) in self._open:
            self._problems.append((loc, "an alias of what it is in itself"))
            return None
        self._open.add(id(node))
        try:
            return self._collection(node, loc)
        finally:
            self._open.discard(id(node))

    def _collection(self, node: yaml.Node, loc: Loc) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {key: self._value(value, (*loc, key)) for key, value in self._entries(node, loc)}
        return [self._item(value, (*loc, index)) for index, value in enumerate(node.value)]

    def _entries(self, node: yaml.MappingNode, loc: Loc) -> Iterator[tuple[str, yaml.Node]]:
        """Yield each key as it is written (`on` is no boolean here), leaving out those that cannot be one."""
        seen: dict[str, int] = {}
        for key, value in node.value:
            place = self._place(key)
            if not isinstance(key, yaml.ScalarNode):
                self._problem((*loc, "?"), place, "expected a text as key; a value that begins with { or [ must be put in quotes")
            elif key.tag == "tag:yaml.org,2002:merge":
                self._problem((*loc, key.value), place, "merging with << is not supported; write the keys out")
            elif key.value in seen:
                self._problem((*loc, key.value), place, f"the same key is on line {seen[key.value]} already", again=True)
            else:
                seen[key.value] = place.line
                self._places[(*loc, key.value)] = place
                yield key.value, value

    def _problem(self, loc: Loc, place: Place, message: str, *, again: bool = False) -> None:
        # A second key has a place of its own, apart from the first one's.
        at = (*loc, -1) if again else loc
        self._places[at] = Place(place.where, ".".join(map(str, loc)), place.line, place.column)
        self._problems.append((at, message))

    def _item(self, node: yaml.Node, loc: Loc) -> Any:
        self._places[loc] = self._place(node)
        return self._value(node, loc)

    def _scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        try:
            return self._loader.construct_object(node)
        except yaml.constructor.ConstructorError:
            message = _TAGGED
        except ValueError:  # what looks like a date, a number or base64, and is none
            message = "this cannot be read; put it in quotes"
        self._problems.append((loc, message))
        return None


_HINTS = (
    ("found undefined alias", "a text that begins with * must be put in quotes"),
    ("found undefined tag handle", _TAGGED),
    ("that cannot start any token", "a text that begins with a special character must be put in quotes, and lines are indented by spaces"),
    ("mapping values are not allowed here", "a text with ': ' in it must be put in quotes, and keys of one mapping begin at one column"),
    ("could not find expected ':'", "expected 'key: value'"),
    ("but found another document", "expected one document: remove the line '---' and what follows it"),
)


def _syntax(path: Path, error: yaml.YAMLError) -> Mistake:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Mistake(str(path), "", "not YAML: a character that may not be in it")
    mark = error.problem_mark or error.context_mark
    where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    problem = error.problem or "it cannot be read"
    hint = next((hint for part, hint in _HINTS if part in problem), _unquoted(problem))
    return Mistake(where, "", f"not YAML: {hint}")


def _unquoted(problem: str) -> str:
    """Return the parser's own words without what it quotes of the file, which may be a secret; single characters and tokens stay."""
    return re.sub(r"""(['"])(?!<)(..+?)\1""", "a text", re.sub(r"""(['"])(.|<.+?>)\1""", r"\2", problem))
