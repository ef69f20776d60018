"""Jinja2 as templates get it: strict, without a file system, without Python's insides, bounded in what it makes."""

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from posixpath import join
from typing import Any, cast

from jinja2 import BaseLoader, BytecodeCache, Environment, TemplateNotFound, Undefined, nodes, pass_environment
from jinja2.bccache import Bucket
from jinja2.compiler import CodeGenerator, Frame
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reloader.render import bounds, filters
from reloader.render.failures import NamedUndefined, Unfit

GENERATION = "generation"
_GLOBALS = ("cycler", "dict", "joiner", "namespace", "range")
_KEYWORDS = ("and", "caller", "else", "false", "if", "in", "is", "kwargs", "loop", "none", "not", "or", "self", "super", "true", "varargs")
RESERVED_NAMES: tuple[str, ...] = (GENERATION, *_GLOBALS, *_KEYWORDS, "False", "None", "True")
"""Names that mean something in every template; no source may be called so."""


class Loader(BaseLoader):
    """Finds the templates of one place and keeps what was read, by the name that messages tell it by."""

    def __init__(self, find: Callable[[str], str | bytes | None], directory: str = "") -> None:
        self._find = find
        self._directory = directory
        self.texts: dict[str, str] = {}

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, None]:  # noqa: ARG002 - Jinja2's signature
        """Return the text of a template, and the name it is told by."""
        found = self._find(template)
        if found is None:
            raise TemplateNotFound(template)
        told = self.told(template)
        self.texts[told] = text = found if isinstance(found, str) else _text(found, told)
        return text, told, None

    def told(self, template: str) -> str:
        """Return the name that messages tell a template by."""
        return join(self._directory, template)

    def sibling(self, template: str) -> str:
        """Return the name under which another template is found that one asks for."""
        return template


class Inline(Loader):
    """Finds the contents that stand in the configuration itself; they have no directory to include from."""

    def told(self, template: str) -> str:  # noqa: ARG002 - the file is told already
        """Return where in the configuration it stands."""
        return "content"

    def sibling(self, template: str) -> str:  # noqa: ARG002 - none has any
        """Refuse."""
        raise Unfit("only a template file can include or import another: inline content has no directory")


def _text(data: bytes, told: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Unfit(f"{told} is not UTF-8") from None


class _Compiled(BytecodeCache):
    """Keeps the compiled templates of one renderer, the latest text of each."""

    def __init__(self) -> None:
        self._codes: dict[str, tuple[str, Any]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        checksum, code = self._codes.get(bucket.key, ("", None))
        bucket.code = code if checksum == bucket.checksum else None

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key] = (bucket.checksum, bucket.code)


class _Generator(CodeGenerator):
    """Compiles `~` into a call, so that it is bounded; Jinja2 intercepts every other operator that makes things larger."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja2's name
        self.write("environment.joined((")
        for each in node.nodes:
            self.visit(each, frame)
            self.write(", ")
        self.write("))")


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of all templates of one volume."""

    intercepted_binops = frozenset(("*", "**", "+", "%"))
    code_generator_class = _Generator

    def __init__(self) -> None:
        super().__init__(
            undefined=NamedUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            finalize=printable,
            cache_size=0,
            bytecode_cache=_Compiled(),
        )
        self.binop_table |= {"*": bounds.multiply, "**": bounds.power, "+": bounds.add, "%": bounds.modulo}
        self.concat = concat  # type: ignore[method-assign]  # where the compiled code finds it
        self.globals = {name: self.globals[name] for name in _GLOBALS}
        usual = {name: function for name, function in self.filters.items() if name not in filters.WITHOUT}
        self.filters = {name: _bounded(name, function) for name, function in {**usual, **filters.OWN, "join": _join}.items()}

    def at(self, loader: Loader) -> "Sandbox":
        """Return this environment for the templates of one place."""
        return self.overlay(loader=loader)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may use the attribute; a translation table can make any text arbitrarily long."""
        return attr not in ("translate", "maketrans") and super().is_safe_attribute(obj, attr, value)

    def join_path(self, template: str, parent: str) -> str:  # noqa: ARG002 - names are relative to the directory, as in every include
        """Return the name of a template that another asks for."""
        return cast(Loader, self.loader).sibling(template)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method for a template, unless its answer could be too large."""
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str) and name == "join":
            return _join(self, args[0], owner)
        if isinstance(owner, str | bytes | int) and name in bounds.GROWTH:
            bounds.room(bounds.GROWTH[name](owner, *args, **kwargs))
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return what stands for `str.format` and `format_map`."""
        safe = super().wrap_str_format(value)
        if safe is None:
            return None

        @wraps(safe)
        def bounded(*args: Any, **kwargs: Any) -> str:
            named = args[0] if value.__name__ == "format_map" and args else kwargs
            bounds.fill(value.__self__, *(args if named is kwargs else ()), *named.values())
            return safe(*args, **kwargs)

        return bounded

    def joined(self, values: tuple[Any, ...]) -> str:
        """Return what `~` makes."""
        return concat(str(printable(value)) for value in values)


def concat(parts: Iterable[str]) -> str:
    """Join the parts of a block, a macro or an expression."""
    texts = list(parts)
    bounds.room(sum(map(len, texts)))
    return "".join(texts)


def printable(value: Any) -> Any:
    """Return the value that a template prints.

    Raises:
        Unfit: it has no text that could be meant.

    """
    if isinstance(value, str | Undefined):
        return value
    if isinstance(value, bytes):
        raise Unfit("content that is not text cannot be printed; use `copy` for the whole file, or b64encode")
    if isinstance(value, Mapping | list | tuple):
        bounds.weigh(value)
    elif callable(value):
        raise Unfit("a function cannot be printed: call it with (), or write ['name'] for a key of that name")
    return value


@pass_environment
def _join(environment: Environment, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    """Return the items, each as it would be printed, with `d` between them."""
    items = value if attribute is None else map(make_attrgetter(environment, attribute), value)
    texts = [str(printable(item)) for item in items]
    bounds.room(sum(map(len, texts)) + len(str(d)) * len(texts))
    return str(d).join(texts)


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter, refusing what could be too large; `wraps` keeps what Jinja2 notes on a function."""
    growth, textual, listing = bounds.GROWTH.get(name), name in bounds.TEXTUAL, name in bounds.LISTING
    first = 1 if hasattr(function, "jinja_pass_arg") else 0
    if name == "format":
        growth = _filled
    if growth is None and not textual and not listing:
        return function

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        if textual and not isinstance(args[first], str | bytes | Undefined):
            bounds.weigh(args[first])
        if growth is not None and not isinstance(args[first], Undefined):
            bounds.room(growth(*args[first:], **kwargs))
        if listing and not isinstance(args[first], Undefined):
            args = (*args[:first], bounds.counted(args[first]), *args[first + 1 :])
        return function(*args, **kwargs)

    return bounded


def _filled(text: Any, *values: Any, **named: Any) -> int:
    bounds.fill(str(text), *values, **named)
    return 0
