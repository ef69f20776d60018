"""Which keys may be written where: the dataclasses of `plan` and of each kind, walked along a path."""

from collections.abc import Mapping
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from reloader import plan, sources, targets
from reloader.kinds import Kinds
from reloader.written import Written, plain

WRAPPERS: Mapping[type, Kinds] = {plan.Source: sources.KINDS, plan.Target: targets.KINDS}
"""The dataclasses with a `kind`, and where the settings of each kind are."""
DEFAULT_KINDS: Mapping[type, str] = {plan.Target: "process"}


def flat(wrapper: type, kind: str) -> type:
    """Return the dataclass of one kind as it is written: what every kind has beside the settings of this one.

    Raises:
        UnknownKind: there is no such kind.
        BrokenKind: its module cannot be imported.

    """
    return _flat(wrapper, kind, WRAPPERS[wrapper].load(kind).Settings)


@cache  # a file may have thousands of sources
def _flat(wrapper: type, kind: str, settings: Any) -> type:
    own = [item for item in fields(wrapper) if item.name != "settings"]
    hints = hints_of(wrapper) | hints_of(settings)
    described = [
        (item.name, hints[item.name], field(default=item.default, default_factory=item.default_factory))
        for item in (*own, *fields(settings))
    ]
    return plain(make_dataclass(kind, described, kw_only=True))


def hints_of(dataclass: type) -> dict[str, Any]:
    """Return the annotation of each field."""
    return get_type_hints(dataclass, include_extras=True)


def members(annotation: Any, written: Any) -> Mapping[str, Any] | None:
    """Return the annotation of each key that may stand in a mapping, given what is written there; None where no mapping belongs."""
    for each in alternatives(annotation):
        if each in WRAPPERS:
            return {name: hint for name, hint in hints_of(_flat_as_written(each, written)).items() if name != "settings"}
        if is_dataclass(each) and isinstance(each, type):
            return hints_of(each)
        if _is_mapping(each):
            value = get_args(each)[1]
            return dict.fromkeys(written, value) if isinstance(written, dict) else {}
    return None


def _flat_as_written(wrapper: type, written: Any) -> type:
    kind = written.get("kind") if isinstance(written, dict) else None
    try:
        return flat(wrapper, kind or DEFAULT_KINDS.get(wrapper, ""))
    except (LookupError, ImportError, TypeError):  # a mistake of its own, and told as such
        return wrapper


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return what an annotation allows, beside None; a value with a written form of its own is a text."""
    if get_origin(annotation) is Annotated:
        inner, *extras = get_args(annotation)
        return (str,) if any(isinstance(extra, Written) for extra in extras) else alternatives(inner)
    if get_origin(annotation) in {Union, UnionType}:
        return tuple(each for arg in get_args(annotation) if arg is not type(None) for each in alternatives(arg))
    return (annotation,)


def takes_new_keys(annotation: Any) -> bool:
    """Return whether any key may be added: a mapping to plain values, not one of our own parts by name."""
    return any(_is_mapping(each) and not any(map(is_dataclass, alternatives(get_args(each)[1]))) for each in alternatives(annotation))


def can_be_made(annotation: Any) -> bool:
    """Return whether a section that is not written can be made from defaults."""
    return not any(
        item.default is MISSING and item.default_factory is MISSING
        for each in alternatives(annotation)
        if is_dataclass(each) and each not in WRAPPERS
        for item in fields(each)
    )


def is_text(annotation: Any) -> bool:
    """Return whether a variable's text is the value itself, and not a list or a mapping."""
    return any(
        not is_dataclass(each) and get_origin(each) not in {tuple, list} and not _is_mapping(each) for each in alternatives(annotation)
    )


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) in {Mapping, dict}
