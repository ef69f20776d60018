"""The file as pydantic-settings sees it, validated straight into the dataclasses of `plan`, and its errors in words for a newcomer."""

import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from reloader import plan
from reloader.kinds import BrokenKind, UnknownKind
from reloader.settings.mistakes import as_told, nearest_first, unknown_key
from reloader.settings.shape import DEFAULT_KINDS, WRAPPERS, flat, hints_of, members
from reloader.settings.tree import MISSING, Loc, Problem, Tree


def _source(written: object) -> object:
    return _of_kind(plan.Source, written)


def _target(written: object) -> object:
    return _of_kind(plan.Target, written)


class Document(BaseSettings):
    """One file: one pipeline, and the settings of the process that it shares with others."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, case_sensitive=True)

    name: str
    vault: plan.Vault = plan.Vault()
    consul: plan.Consul = plan.Consul()
    sources: Mapping[str, Annotated[plan.Source, BeforeValidator(_source)]] = {}
    volume: plan.Volume | None = None
    target: Annotated[plan.Target, BeforeValidator(_target)] | None = None
    timing: plan.Timing = plan.Timing()
    failure: plan.FailurePolicy = plan.FailurePolicy()
    server: plan.Server = plan.Server()
    state: plan.State = plan.State()
    log: plan.Log = plan.Log()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `environment` has laid over the file: the library's own reader ignores a misspelt variable and plain dataclasses."""
        return (init_settings,)


SHAPE: Mapping[str, Any] = {name: hint for name, hint in hints_of(Document).items() if name in Document.model_fields}
"""The annotation of each key at the top of a file."""


def validate(tree: Tree) -> tuple[Document | None, list[Problem]]:
    """Return the document, without those parts that are wrong, and what is wrong with them; None where nothing can be made of the rest."""
    unknown = [key for key in tree.keys() if key not in SHAPE]  # noqa: SIM118 - not a mapping
    problems: list[Problem] = [((as_told(key),), unknown_key(key, SHAPE)) for key in unknown]
    remaining: Tree | None = tree
    first = True
    while remaining is not None:
        try:
            return Document(**{key: value for key, value in remaining.data.items() if key in SHAPE}), problems
        except ValidationError as error:
            details = error.errors(include_url=False)
        if first:  # later ones come of what was taken out
            problems += _explained(details, tree)
            first = False
        remaining = _pruned(remaining, [each["loc"] for each in details])
    return None, problems


def _pruned(tree: Tree, locs: list[Loc]) -> Tree | None:
    pruned: Tree | None = tree
    for loc in locs:
        pruned = pruned and pruned.without(loc)
    return pruned


def _of_kind(wrapper: type, written: object) -> object:
    """Return the plan of a source or target from its mapping, in which the keys of every kind and of this one stand side by side."""
    if not isinstance(written, dict):
        return written  # pydantic says what it expected
    kind = written.get("kind", DEFAULT_KINDS.get(wrapper))
    if not isinstance(kind, str):
        raise _at_kind("string_type" if "kind" in written else "missing")
    try:
        as_written = flat(wrapper, kind)
    except UnknownKind:
        kinds = WRAPPERS[wrapper]
        raise _at_kind(_told(f"expected one of: {', '.join(nearest_first(kind, kinds.names()))}")) from None
    except BrokenKind as error:
        raise _at_kind(_told(str(error))) from None
    given: Any = _adapter(as_written).validate_python({**written, "kind": kind})
    values = {item.name: getattr(given, item.name) for item in fields(given)}
    own = {item.name for item in fields(wrapper)}
    settings = WRAPPERS[wrapper].load(kind).Settings(**{name: value for name, value in values.items() if name not in own})
    return wrapper(settings=settings, **{name: value for name, value in values.items() if name in own})


@cache  # a file may have thousands of sources
def _adapter(as_written: type) -> TypeAdapter[Any]:
    return TypeAdapter(as_written)


def _at_kind(error: str | PydanticCustomError) -> ValidationError:
    return ValidationError.from_exception_data("kind", [InitErrorDetails(type=error, loc=("kind",), input=None)])


def _told(message: str) -> PydanticCustomError:
    return PydanticCustomError("kind", "{message}", {"message": message})


_EXPECTED: Mapping[str, str] = {
    "missing": "required",
    "string_type": "expected a text",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "int_parsing_size": "expected a smaller whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "dataclass_type": "expected a mapping (key: value, one a line)",
    "dict_type": "expected a mapping (key: value, one a line)",
    "mapping_type": "expected a mapping (key: value, one a line)",
    "tuple_type": "expected a list such as [a, b]",
    "list_type": "expected a list such as [a, b]",
}
_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}


def _explained(errors: list[ErrorDetails], tree: Tree) -> list[Problem]:
    """Return one problem for each value, also where several forms were allowed and none of them fits."""
    found: dict[Loc, list[str]] = {}
    for error in errors:
        loc = error["loc"] if error["type"] in {"missing", "kind", *_UNKNOWN} else _written_part(error["loc"], tree)
        if error["type"] in _UNKNOWN:
            loc = (*loc[:-1], as_told(str(loc[-1])))
        found.setdefault(loc, []).append(_explain(error, tree))
    return [(loc, ", or ".join(dict.fromkeys(messages))) for loc, messages in found.items()]


def _written_part(loc: Loc, tree: Tree) -> Loc:
    """Return a path without what pydantic adds to say which of several forms it tried."""
    while loc and loc not in tree.places:
        loc = loc[:-1]
    return loc


def _explain(error: ErrorDetails, tree: Tree) -> str:
    """Return what was expected; of what was written only the names of keys are ever told, since any value may be a secret."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _UNKNOWN:
        *above, key = error["loc"]
        return unknown_key(str(key), _known(tuple(above), tree))
    if kind == "literal_error":
        allowed = re.findall("'([^']*)'", context["expected"])
        return f"expected one of: {', '.join(allowed)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "kind":
        return str(context["message"])
    return _EXPECTED.get(kind, "this value does not fit here") + _misread(kind, error["input"])


def _misread(kind: str, written: object) -> str:
    """Return how YAML 1.1 came to read something else than was meant."""
    if written is None and kind != "missing":
        return ", found nothing"
    if kind != "string_type":
        return ""
    if isinstance(written, bool):
        return " in quotes: YAML reads yes, no, on and off as true or false"
    return " in quotes: YAML reads this as a number or a date" if isinstance(written, int | float | date) else ""


def _known(above: Loc, tree: Tree) -> Mapping[str, Any]:
    """Return the keys that may stand in the mapping at a path."""
    known: Mapping[str, Any] = SHAPE
    for depth, key in enumerate(above, 1):
        written = tree.look(above[:depth])
        known = members(known.get(str(key)), {} if written is MISSING else written) or {}
    return known
