"""The reference names every key there is, with its default, and no other."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest

from reloader import sources, targets
from reloader.settings.environment import USUAL_NAMES
from reloader.settings.model import SHAPE, Document
from reloader.settings.shape import DEFAULT_KINDS, alternatives, hints_of
from reloader.settings.yamlfile import read_value
from reloader.written import Whole, Written

PAGE = (Path(__file__).parents[2] / "docs/reference.md").read_text(encoding="utf-8")
KINDS = [("sources", "Sources", sources.KINDS, kind) for kind in ("files", "consul", "vault", "env")]
KINDS += [("target", "Targets", targets.KINDS, kind) for kind in ("process", "exec", "http", "command", "none")]
FROM_ELSEWHERE = {
    "name": "the file's name",
    "vault.address": "VAULT_ADDR",
    "consul.address": "CONSUL_HTTP_ADDR",
    "state.path": "/run/reloader",
}
"""Keys whose default is no value of the plan's."""

Keys = dict[str, tuple[Any, Any]]
"""The annotation and the default of each key."""


def keys_of(dataclass: type, above: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield what may be written below a key."""
    hints = hints_of(dataclass)
    for item in fields(dataclass):
        if item.name == "settings":
            continue
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if dataclass in DEFAULT_KINDS and item.name == "kind":
            default = DEFAULT_KINDS[dataclass]
        yield from keys_under(hints[item.name], f"{above}.{item.name}", default)


def keys_under(annotation: Any, key: str, default: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    inner = alternatives(annotation)[0]
    if get_origin(inner) is Mapping and is_dataclass(alternatives(get_args(inner)[1])[0]):
        inner, key = alternatives(get_args(inner)[1])[0], f"{key}.NAME"
    if is_dataclass(inner):
        yield from keys_of(inner, key)
    else:
        yield key, (annotation, default)


def keys_of_the_program() -> Keys:
    found: Keys = {}
    for name, annotation in SHAPE.items():
        field = Document.model_fields[name]
        found |= dict(keys_under(annotation, name, MISSING if field.is_required() else field.default))
    return found


def keys_of_kind(part: str, kinds: Any, kind: str) -> Keys:
    return dict(keys_of(kinds.load(kind).Settings, "sources.NAME" if part == "sources" else "target"))


def documented(section: str) -> dict[str, str]:
    rows = re.findall(r"^\| `([^`]+)` \| (.+?) \| .+ \|$", section, re.MULTILINE)
    assert len({key for key, _ in rows}) == len(rows)
    return dict(rows)


def sections() -> dict[str, str]:
    parts = re.split(r"^##+ (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def value_of(cell: str, annotation: Any) -> Any:
    """Return the default that a cell means."""
    text = cell.strip("`")
    if text in ("none", "required"):
        return None if text == "none" else MISSING
    if get_origin(annotation) is Annotated:
        (written,) = [extra for extra in get_args(annotation) if isinstance(extra, Written)]
        return written.parse(text.strip('"'))
    if text in ("true", "false"):
        return text == "true"
    return tuple(read_value(text)) if get_origin(annotation) is tuple else text


def assert_same(rows: dict[str, str], keys: Keys) -> None:
    assert set(rows) == set(keys)
    for key, cell in rows.items():
        annotation, default = keys[key]
        if key in FROM_ELSEWHERE:
            assert FROM_ELSEWHERE[key] in cell
        else:
            assert value_of(cell, annotation) == default, key


def test_the_keys_of_every_pipeline_are_all_there():
    common = [text for title, text in sections().items() if not title.startswith(("Sources of", "Targets of", "Alerts"))]
    rows = {key: cell for text in common for key, cell in documented(text).items() if not key.isupper()}
    assert_same(rows, keys_of_the_program())


@pytest.mark.parametrize(("part", "title", "kinds", "kind"), KINDS)
def test_the_keys_of_each_kind_are_all_there(part, title, kinds, kind):
    assert_same(documented(sections()[f"{title} of kind `{kind}`"]), keys_of_kind(part, kinds, kind))


def test_every_kind_of_ours_has_its_section():
    ours = {kind for _, _, _, kind in KINDS}
    assert ours == sources.KINDS._own() | targets.KINDS._own()


def test_every_variable_is_there():
    assert [name for name in USUAL_NAMES if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [({"a.keep": "`4`"}, "a.keep"), ({}, "set"), ({"a.keep": "`3`", "a.more": "none"}, "set")],
)
def test_a_page_that_drifts_is_noticed(rows, complaint):
    with pytest.raises(AssertionError, match=complaint):
        assert_same(rows, {"a.keep": (Whole, 3)})
