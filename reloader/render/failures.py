"""Why a set could not be rendered, told without a value: the text of an exception may quote what the template worked on."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import TracebackType
from typing import Any

from jinja2 import StrictUndefined, TemplateNotFound, TemplateSyntaxError, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.utils import missing

_OF_TYPES = re.compile(
    r"unsupported operand type|can only concatenate|'\S{1,2}' not supported between|'\w+' object is not |object of type '\w+'"
)
"""The texts of Python's own errors that speak of types alone; others may quote a value."""


class Unfit(Exception):
    """What a template asked for cannot be done; the message is ours and shows no value."""


class NotThere(UndefinedError):
    """A name or key that is not there was used."""

    def __init__(self, name: Any, obj: Any, hint: str | None) -> None:
        super().__init__(hint)
        self.name, self.obj, self.hint = name, obj, hint


class NamedUndefined(StrictUndefined):
    """A `StrictUndefined` whose error keeps the name apart from its text, because a name can be computed from a value."""

    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = missing, name: str | None = None, exc: type[Exception] = UndefinedError) -> None:
        cause: Any = exc if exc is SecurityError else lambda _message: NotThere(name, obj, hint)
        super().__init__(hint, obj, name, cause)


def near(name: str, known: Iterable[str]) -> str:
    """Return a question that offers the nearest of the known names; empty when none is near."""
    found = get_close_matches(name, [each for each in known if isinstance(each, str)], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def told(error: Exception, texts: Mapping[str, str], known: Iterable[str]) -> str:
    """Return what happened, with template and line; `texts` are the templates that were read, by the name they are told by."""
    return f"{_place(error, texts)}{_cause(error, texts, known)}"


def _place(error: Exception, texts: Mapping[str, str]) -> str:
    if isinstance(error, TemplateSyntaxError):
        return f"{error.filename}, line {error.lineno}: "
    places = [place for place in _frames(error.__traceback__) if place[0] in texts]
    return "{}, line {}: ".format(*places[-1]) if places else ""


def _frames(traceback: TracebackType | None) -> Iterable[tuple[str, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def _cause(error: Exception, texts: Mapping[str, str], known: Iterable[str]) -> str:
    match error:
        case NotThere():
            cause = _not_there(error, texts, known)
        case SecurityError():
            cause = "asks for something that templates may not use"
        case TemplateNotFound():
            cause = f"no template {_written(error.name, texts)} in the directory of this one"
        case TemplateSyntaxError():
            cause = str(error.message)
        case Unfit():
            cause = str(error)
        case TypeError() if _OF_TYPES.match(str(error)):
            cause = str(error)
        case RecursionError():
            cause = "includes or calls itself without end"
        case _:
            cause = f"an expression failed ({type(error).__name__})"
    return cause


def _not_there(error: NotThere, texts: Mapping[str, str], known: Iterable[str]) -> str:
    if error.name is None:
        return "a value is undefined"
    name = _written(error.name, texts)
    if error.obj is missing:
        return f"{name} is undefined{near(str(error.name), known)}"
    offered = near(str(error.name), error.obj) if isinstance(error.obj, Mapping) else ""
    return f"{name} is undefined: {_kind(error.obj)} has no such {'key' if isinstance(error.obj, Mapping) else 'element'}{offered}"


def _written(name: Any, texts: Mapping[str, str]) -> str:
    """Return the name if the operator wrote it; one that was computed may be a value."""
    return repr(name) if any(str(name) in text for text in texts.values()) else "a computed name"


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "the mapping"
    return "the list" if isinstance(value, list) else f"the value of type {type(value).__name__}"
