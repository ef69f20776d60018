"""How large a template may make things, asked before they are made: an expression of a dozen characters can ask for gigabytes.

Bounded: every text, list and number that an expression makes, each file, the whole set. Not bounded: time (loops in loops), and what a
macro or a block gathers piece by piece before it is joined. Templates are the operator's own; the container's memory limit stands behind.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import Undefined

from reloader.render.failures import Unfit

OUTPUT_LIMIT = 64 * 1024 * 1024
"""How many bytes all files of a set may hold together, and how many characters one expression may make."""
LONGEST_NUMBER = 10_000
"""How many bits a number may have; text of the largest is 3,011 digits."""
_ITEM = 32
"""What an item counts beside its text; a list of the largest count takes 2 million of them."""
_Containers = (Mapping, list, tuple, set, frozenset)

_FIELD_WIDTHS = re.compile(r"\{[^{}]*:([^{}]*)\}")
_WIDTH_BY_ARGUMENT = re.compile(r"\{[^{}]*:[^{}]*\{|%(?:\([^)]*\))?[^%a-zA-Z]*\*")
_PERCENT_WIDTHS = re.compile(r"%(?:\([^)]*\))?([-#0 +]*[\d.]*)")


def room(size: int) -> None:
    """Refuse what would be larger than the limit.

    Raises:
        Unfit: it would.

    """
    if size > OUTPUT_LIMIT:
        raise Unfit(f"would make more than the {OUTPUT_LIMIT // 1024**2} MiB that a set may hold")


def weigh(value: Any) -> int:
    """Return about how many characters the text of a value has; one list that is in another a thousand times counts a thousand times.

    Raises:
        Unfit: more than the limit.
        UndefinedError: something in it is undefined.

    """
    size, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, Mapping):
            rest.extend(item.keys())
            rest.extend(item.values())
        elif isinstance(item, _Containers):
            rest.extend(item)
        elif isinstance(item, Undefined):
            str(item)  # says which name; a list would print it as a word of its own
        size += _ITEM + (len(item) if isinstance(item, str | bytes) else 0)
        room(size + _ITEM * len(rest))
    return size


def counted(value: Any) -> Any:
    """Return what a list is to be made of, refusing too many items: of a text at once, of what has no length when they have come."""
    if isinstance(value, str | bytes):
        room(len(value) * _ITEM)
    return value if hasattr(value, "__len__") else _counted(value)


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    for number, each in enumerate(values):
        room(number * _ITEM)
        yield each


def length(value: Any) -> int:
    """Return how many characters the text of a value has; nearly so for a container."""
    if isinstance(value, str | bytes):
        return len(value)
    return weigh(value) if isinstance(value, _Containers) else len(str(value))


def multiply(left: Any, right: Any) -> Any:
    """Return the product, unless it would be too large."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str | bytes | list | tuple) and isinstance(other, int):
            room(len(one) * other * (1 if isinstance(one, str | bytes) else _ITEM))
    if isinstance(left, int) and isinstance(right, int):
        _bits(left.bit_length() + right.bit_length())
    return left * right


def power(base: Any, exponent: Any) -> Any:
    """Return the power, unless it would be too large."""
    if isinstance(base, int) and isinstance(exponent, int):
        _bits(base.bit_length() * exponent)
    return base**exponent


def add(left: Any, right: Any) -> Any:
    """Return the sum or the two together, unless they would be too large."""
    for kind, weight in ((str, 1), (bytes, 1), (list, _ITEM), (tuple, _ITEM)):
        if isinstance(left, kind) and isinstance(right, kind):
            room((len(left) + len(right)) * weight)
    return left + right


def modulo(left: Any, right: Any) -> Any:
    """Return the remainder, or the text with the values filled in, unless it would be too large."""
    if isinstance(left, str | bytes):
        values = right.values() if isinstance(right, Mapping) else right if isinstance(right, tuple) else (right,)
        room(_filled(left.decode("latin-1") if isinstance(left, bytes) else left, values))
    return left % right


def fill(text: str, *values: Any, **named: Any) -> None:
    """Refuse a `format` whose text would be too large."""
    room(_filled(text, (*values, *named.values())))


def _filled(text: str, values: Collection[Any]) -> int:
    if _WIDTH_BY_ARGUMENT.search(text):
        raise Unfit("a width that comes from a value is not supported; write it into the format")
    specs = [*_PERCENT_WIDTHS.findall(text), *_FIELD_WIDTHS.findall(text)]
    widths = sum(int(digits[:12]) for spec in specs for digits in re.findall(r"\d+", spec))
    longest = max((length(value) for value in values), default=0)
    return len(text) + widths + (text.count("%") + text.count("{")) * longest


def _bits(count: int) -> None:
    if count > LONGEST_NUMBER:
        raise Unfit("would make a number of thousands of digits")


def _padded(text: Any, width: int = 80, *_: Any, **__: Any) -> int:
    return length(text) + width


def _tabs(text: Any, tabsize: int = 8) -> int:
    return length(text) + int(text.count("\t" if isinstance(text, str) else b"\t")) * tabsize


def _replaced(text: Any, old: Any, new: Any, *_: Any, **__: Any) -> int:
    whole: Any = text if isinstance(text, str | bytes) else str(text)
    return len(whole) + int(whole.count(old)) * length(new)


def _indented(text: Any, width: Any = 4, *_: Any, **__: Any) -> int:
    step = width if isinstance(width, int) else length(width)
    return length(text) + (str(text).count("\n") + 1) * step


def _wrapped(text: Any, *_: Any, wrapstring: str = "\n", **__: Any) -> int:
    return length(text) * (1 + length(wrapstring))


def _bytes(_: int, count: int = 1, *__: Any, **___: Any) -> int:
    return count


def _pieces(text: Any, separator: Any = None, *_: Any, **__: Any) -> int:
    ends = sum(map(str.isspace, text)) if separator is None and isinstance(text, str) else len(text)
    return (text.count(separator) if separator else ends) * _ITEM


def _lines(text: Any, *_: Any, **__: Any) -> int:
    return _pieces(text)


def _rows(_: Any, count: int, *__: Any, **___: Any) -> int:
    return count * _ITEM


GROWTH: Mapping[str, Callable[..., int]] = {
    "center": _padded,
    "ljust": _padded,
    "rjust": _padded,
    "zfill": _padded,
    "expandtabs": _tabs,
    "replace": _replaced,
    "indent": _indented,
    "wordwrap": _wrapped,
    "to_bytes": _bytes,
    "batch": _rows,
    "slice": _rows,
    "split": _pieces,
    "rsplit": _pieces,
    "splitlines": _lines,
}
"""How large the answer of a filter or method of this name can get, from its arguments."""

LISTING = frozenset(("batch", "groupby", "list", "reverse", "slice", "sort", "unique"))
"""Filters that put all that they are given into a list, or into several."""

_TEXTUAL = """
b64encode capitalize center e escape forceescape format indent lower pprint replace safe sha256 string striptags title tojson toyaml trim
truncate upper urlencode urlize wordcount wordwrap xmlattr
"""
TEXTUAL = frozenset(_TEXTUAL.split())
"""Filters that make a text of whatever they are given."""
