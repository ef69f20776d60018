"""The checks that need no program: syntax, emptiness, and how much changes at once."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from reloader.check import Checker, CheckRefused, syntax
from reloader.fileset import RenderedFile
from reloader.plan import Check, MaxChange
from reloader.world.children import Children
from reloader.world.clock import Clock

CANARY = "canary"
STAGED = Path("/srv/live/..8")


def verdict(builtin: str | MaxChange, files: Mapping[str, str | bytes], published: Mapping[str, bytes] | None = None) -> str:
    """Return why a set is refused, or nothing; without `published`, whoever asks for that fails."""
    rendered = {name: RenderedFile(data=text.encode() if isinstance(text, str) else text) for name, text in files.items()}
    checker = Checker(Check(builtin=(builtin,)), Children(), Clock(), target_path="/mnt/app")
    refusal = None
    try:
        checker.check(STAGED, rendered, lambda: published)
    except CheckRefused as refused:
        refusal = refused
    assert CANARY not in str(refusal)
    assert refusal is None or refusal.__context__ is None
    return str(refusal or "")


# Syntax

GOOD = {
    "json": [
        '{"a": [1, 2.5e3, null, true, "é"], "b": {}}',
        "null",
        '"NaN, Infinity }{"',
        "9" * 5000,
        "[{}, {}]",
        '{"a": {"a": 1}}',
        r'{"\"": 1}',
    ],
    "yaml": [
        "",
        "a: 1\n---\nb: [x, {y: z}]\n---\n",
        "a: !Ref x\nb: !!python/object:os.system {}\n--- !x\n- a\n",
        "a: &x {b: 1}\nc: *x\nd: &x 2\ne: *x\n",
        "x: &m {a: 1}\ny:\n  <<: *m\n  <<: {b: 1}\n",
        "1: a\n'1': b\n",
        "[a, b]: 1\n[a, b]: 2\n",
        "- a: 1\n- a: 1\n",
        "? {a: 1}\n: {a: 1, b: 1}\nb: 1\n",
        "\ufeffa: é\n",
    ],
    "toml": ["", 'a = 1\n[b]\na = "é"\n[[c]]\na = 1\n[[c]]\na = 1\n'],
}
BAD = {
    "json": [
        ("", "line 1, column 1: not JSON"),
        ('{"canary": canary}', "line 1, column 12: not JSON"),
        ('{"a": "é",\n "b": 1,\n}', "line 3, column 1: not JSON"),
        ('["\\canary"]', "line 1, column 3: not JSON"),
        ("[1] canary", "line 1, column 5: not JSON"),
        ('["NaN", "\\"Infinity",\n -Infinity]', "line 2, column 2: not JSON, which has no such number"),
        ('{"canary": 1, "b": {"}": 2},\n "canary": 3}', "line 2, column 13: the object that ends here has a key twice"),
        ('[{}, {"a": 1, "a": 2}, {"a": 1, "a": 2}]', "line 1, column 21: the object that ends here has a key twice"),
        ("\ufeff{}", "line 1, column 1: not JSON"),
        (b'{"a":\n "\xe9canary"}', "line 2, column 3: not UTF-8"),
        ("[" * 100_000, ": nested too deeply"),
    ],
    "yaml": [
        ("a: [canary", "line 2, column 1: not YAML"),
        ("a: canary: b", "line 1, column 10: not YAML"),
        ("a: 1\n\tcanary: 2", "line 2, column 1: not YAML"),
        ("a: @canary", "line 1, column 4: not YAML"),
        ("a: é\nb: c\x01anary", "line 2, column 5: a character that YAML does not allow"),
        ("a: *canary", "line 1, column 4: an alias of nothing; a text that begins with * must be put in quotes"),
        ("a: &canary 1\n---\nb: *canary", "line 3, column 4: an alias of nothing"),
        ("canary: 1\nb: {canary: 1}\n'canary': 2", "line 3, column 1: the mapping has a key twice, here again"),
        ("- {a: [{b: 1}], c: 1, a: 2}", "line 1, column 23: the mapping has a key twice"),
        ("- " * 5000, "nested too deeply"),
        ("[" * 100_000, "column 1001: nested too deeply"),
        ("{a: " * 5000, "nested too deeply"),
        (b"a: \xe9canary", "line 1, column 4: not UTF-8"),
    ],
    "toml": [
        ("a = canary", "line 1, column 5: not TOML"),
        ("a = 1\ncanary = 2\ncanary = 3", "line 3, column 11: not TOML"),
        ("a = 1\nb = [", "line 2, column 6: not TOML"),
        ("a = " + "9" * 5000, ": not TOML"),
        ("a = " + "[" * 5000, ": nested too deeply"),
        (b"a = '\xe9canary'", "line 1, column 6: not UTF-8"),
    ],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in GOOD.items() for text in texts])
def test_what_parses_passes(kind: str, text: str) -> None:
    assert verdict(kind, {f"conf/a.{kind}": text, "other": "{canary"}) == ""


@pytest.mark.parametrize(("kind", "text", "place"), [(kind, *case) for kind, cases in BAD.items() for case in cases])
def test_what_does_not_is_told_by_its_place_alone(kind: str, text: str | bytes, place: str) -> None:
    said = verdict(kind, {f"conf/a.{kind}": text})
    assert said.startswith(f"{kind}: conf/a.{kind}")
    assert place in said


@pytest.mark.parametrize(("kind", "looked_for"), [("json", ".json"), ("yaml", ".yaml or .yml"), ("toml", ".toml")])
def test_a_set_without_such_a_file_is_refused(kind: str, looked_for: str) -> None:
    """Or a source with nothing in it would pass."""
    assert (
        verdict(kind, {"json": "", "a.conf": "", "yaml.yaml.j2": ""}) == f"{kind}: no file of the set has a name that ends in {looked_for}"
    )


def test_every_file_is_checked_and_a_few_are_told() -> None:
    said = verdict("yaml", {"good.yml": "a: b", **{f"{number}.yml": "[" for number in range(7)}})
    assert all(f"{number}.yml, line" in said for number in range(5))
    assert said.endswith("; and 2 more")
    assert "good" not in said


def test_aliases_do_not_multiply() -> None:
    """Nine levels of nine aliases each stand for 400 million values; they parse, and nobody makes them."""
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    assert verdict("yaml", {"a.yaml": bomb}) == ""


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text("ab:{}[]\"'\\*&!#- \né", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab}{"\\: ', max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(PLAIN)
@settings(max_examples=100, deadline=None)
def test_what_a_library_writes_passes(value: object) -> None:
    assert verdict("json", {"a.json": json.dumps(value)}) == ""
    assert verdict("yaml", {"a.yaml": yaml.safe_dump(value, allow_unicode=True)}) == ""


@given(PLAIN, st.data())
@settings(max_examples=200, deadline=None)
def test_the_place_is_found_wherever_a_text_breaks_off(value: object, data: st.DataObject) -> None:
    """Whatever a parser says of a text cut anywhere: a mistake has a place in the text, or just behind it, and none fails otherwise."""
    whole = json.dumps(value, indent=1)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    for kind, parse in (("json", json.loads), ("yaml", yaml.safe_load), ("toml", tomllib.loads)):
        said = verdict(kind, {f"a.{kind}": cut})
        if kind == "json":
            assert bool(said) == fails(parse, cut)
        assert not said or ", line " in said


def fails(parse: object, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return True
    return False


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML has no libyaml here, so all tests run without it")
@pytest.mark.parametrize("text", GOOD["yaml"] + [text for text, _ in BAD["yaml"][:9]])
def test_without_libyaml_the_verdict_is_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its columns may differ at the end of the text."""
    with_libyaml = verdict("yaml", {"a.yaml": text})
    monkeypatch.setattr(syntax, "_YamlLoader", yaml.SafeLoader)
    assert bool(verdict("yaml", {"a.yaml": text})) == bool(with_libyaml)


# Emptiness


@pytest.mark.parametrize("text", ["", " \n\t\r\n"])
def test_a_file_with_nothing_in_it_is_refused_by_name(text: str) -> None:
    assert verdict("nonempty", {"a": "x", "b/c": text}) == "nonempty: empty or only white space: b/c"


def test_a_set_without_a_file_is_refused() -> None:
    assert verdict("nonempty", {}) == "nonempty: the set has no file"


def test_files_with_something_in_them_pass() -> None:
    assert verdict("nonempty", {"a": "\n0", "b": b"\xff"}) == ""


# How much changes

LINES = {"a": b"1\n2\n3\n", "b": b"4\n"}


@pytest.mark.parametrize(
    ("percent", "files", "gone"),
    [
        (50, {"a": "1\n2\n3\n", "b": "4\n"}, 0),
        (50, {"a": "x\n2\n3\n"}, 2),
        (49, {"a": "x\n2\n3\n"}, 2),
        (50, {"b": "4"}, 3),
        (75, {"b": "4"}, 3),
        (100, {}, 4),
        (1, {"a": "3\n2\n1\n", "b": "4\n5\n6\n", "c": "7\n"}, 0),
        (24, {"a": "1\n2\n3\n", "b": "1\n2\n3\n"}, 1),
        (99, {"c": "1\n2\n3\n4\n"}, 4),
    ],
    ids=["same", "half", "more than half", "a file less", "as much as may", "all may", "moved and new", "rather more", "renamed"],
)
def test_more_than_the_share_of_published_lines_is_refused(percent: int, files: dict[str, str], gone: int) -> None:
    """Changed and gone lines count, of the file of the same name; moved and new ones do not."""
    said = verdict(MaxChange(percent=percent), files, LINES)
    assert bool(said) == (gone * 100 > percent * 4)
    if said:
        assert f"max_change: {gone} of the 4 published lines would change or go, more than {percent}%" in said


def test_equal_lines_are_counted() -> None:
    assert "2 of the 3" in verdict(MaxChange(percent=50), {"a": "x\n"}, {"a": b"x\nx\nx\n"})


@pytest.mark.parametrize("published", [{}, {"a": b""}])
def test_the_first_publish_and_one_after_nothing_pass(published: dict[str, bytes]) -> None:
    assert verdict(MaxChange(percent=1), {"a": "x\n"}, published) == ""


def test_the_number_of_the_generation_is_no_change() -> None:
    """Under either name of the volume; a number elsewhere is one."""
    published = {"a": b"include /srv/live/..7/b;\ninclude /mnt/app/..7;\n"}
    assert verdict(MaxChange(percent=1), {"a": "include /srv/live/..8/b;\ninclude /mnt/app/..8;\n"}, published) == ""
    assert "1 of the 1" in verdict(MaxChange(percent=1), {"a": "include /srv/other/..8/b\n"}, {"a": b"include /srv/other/..7/b\n"})


def test_what_is_published_is_asked_for_by_this_check_alone() -> None:
    """It is read from the disk."""
    with pytest.raises(AttributeError):
        verdict(MaxChange(percent=1), {"a.json": "{}"})
    for name in ("json", "nonempty"):
        assert verdict(name, {"a.json": "{}"}) == ""
