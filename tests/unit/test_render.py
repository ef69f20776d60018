"""A snapshot into file contents."""

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from reloader.plan import File, Volume
from reloader.render import FILTERS, RESERVED_NAMES, Rendered, Renderer, RenderFailed
from reloader.render.filters import OWN

VALUES: Mapping[str, Any] = {
    "db": {"password": "hunter2-canary", "port": 5432, "raw": b"\xff\x00", "list": ["a", {"b": 1}]},
    "routes": {"b": "2", "a": "1"},
    "motd": "hello\n",
    "blob": b"\x00\xfe",
}


def render(content: str = "", *, templates: Mapping[str, Mapping[str, Any]] | None = None, **file: Any) -> bytes:
    """Return one file rendered from `VALUES`."""
    plan = File(**file) if file.keys() & {"template", "copy"} else File(content=content, **file)
    return render_set(Volume(path="/live", files={"out": plan}), templates)["out"].data


def render_set(volume: Volume, templates: Mapping[str, Mapping[str, Any]] | None = None) -> Rendered:
    return Renderer(volume).render(VALUES, templates or {}, "/live/..7")


def failure(content: str = "", **more: Any) -> str:
    """Return why a render failed, after a look that the exception carries nothing else."""
    with pytest.raises(RenderFailed) as caught:
        render(content, **more)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert "canary" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{{ db.password }}\n", b"hunter2-canary\n"),
        ("no newline", b"no newline"),
        ("two\n\n", b"two\n\n"),
        ("<{{ '<&>' }}>", b"<<&>>"),
        ("{{ generation }}/tls.crt", b"/live/..7/tls.crt"),
        ("{% for k, v in routes|dictsort %}{{ k }}={{ v }};{% endfor %}", b"a=1;b=2;"),
        ("{{ routes|tojson }}", b'{"a": "1", "b": "2"}'),
        ("{{ '<é>'|tojson }}", '"<é>"'.encode()),
        ("{{ db.list|toyaml }}", b"- a\n- b: 1"),
        ("{{ db.port|toyaml }}", b"5432"),
        ("{{ db.raw|b64encode }}", b"/wA="),
        ("{{ 'aGk='|b64decode }}", b"hi"),
        ("{{ '/wA='|b64decode|b64encode }}", b"/wA="),
        ("{{ 'x'|sha256 }}", b"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"),
        ("{{ ('[1, 2]'|fromjson)[1] }}{{ ('a: 3'|fromyaml).a }}{{ ('a = 4'|fromtoml).a }}", b"234"),
        ("{{ db.nope|default('d') }}", b"d"),
        ("{{ '%s:%d'|format('a', 1) }} {{ '{:>4}|{}'.format('b', 2) }} {{ ', '.join(['c', 'd']) }} {{ 'e' ~ 1 }}", b"a:1    b|2 c, d e1"),
        ("{{ 'x' * 3 }}{{ 2 ** 10 }}{{ [1] + [2] }}{{ 'a-b'.replace('-', '+') }}", b"xxx1024[1, 2]a+b"),
        ("{{ 'a\nb'|indent(2) }}", b"a\n  b"),
    ],
)
def test_contents_and_filters(content: str, expected: bytes) -> None:
    """Templates are Jinja2 with filters for configuration, nothing escaped, every newline kept."""
    assert render(content) == expected


def test_fullchain_is_the_certificate_and_then_its_authorities_each_ending_in_one_newline() -> None:
    """What servers read as a chain."""
    issued = {"certificate": "LEAF\n\n", "ca_chain": ["ONE", "TWO\n"], "issuing_ca": "ONE"}
    assert OWN["fullchain"](issued) == "LEAF\nONE\nTWO\n"
    assert OWN["fullchain"]({"certificate": "LEAF", "issuing_ca": "ONE"}) == "LEAF\nONE\n"
    assert "a mapping with 'certificate'" in failure("{{ motd|fullchain }}")


def test_every_filter_says_what_it_does() -> None:
    """The reference is written from these."""
    assert tuple(OWN) == FILTERS
    assert all(function.__doc__ for function in OWN.values())
    assert {"generation", "range", "self", "true"} <= set(RESERVED_NAMES)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a\n{{ routs.a }}", "out: content, line 2: 'routs' is undefined; did you mean 'routes'?"),
        ("{{ db.passwrd }}", "out: content, line 1: 'passwrd' is undefined: the mapping has no such key; did you mean 'password'?"),
        ("{% if db['nope'] %}{% endif %}", "'nope' is undefined: the mapping has no such key"),
        ("{{ db.list[7] }}", "7 is undefined: the list has no such element"),
        ("{{ routes[db.password] }}", "a computed name is undefined"),
        ("{{ db.raw }}", "use `copy` for the whole file, or b64encode"),
        ("{{ db }}{{ db.list ~ db.raw }}", "use `copy` for the whole file, or b64encode"),
        ("{{ db|tojson }}", "tojson: holds content that is not text"),
        ("{{ db|toyaml }}", "toyaml: holds content that is not text"),
        ("{{ db.password|fromjson }}", "fromjson: not JSON (line 1, column 1 of the value)"),
        ("{{ '{canary: '|fromyaml }}", "fromyaml: not YAML"),
        ("{{ db.password|b64decode }}", "b64decode: not base64"),
        ("{{ db.password|round }}", "an expression failed"),
        ("{{ db.password|float(none) + 1 }}", "unsupported operand"),
        ("{{ dict([db.password]) }}", "an expression failed (ValueError)"),
        ("{{ routes.items }}", "call it with ()"),
        ("\n{{ x", "line 2: unexpected end of template"),
        ("{{ 1|nope }}", "No filter named 'nope'"),
        ("{{ motd|random }}", "No filter named 'random'"),
        ("{{ ''.__class__.__mro__ }}", "asks for something that templates may not use"),
        ("{{ motd|attr('__class__') }}", "asks for something that templates may not use"),
        ("{{ '{0.__class__}'.format(motd) }}", "asks for something that templates may not use"),
        ("{{ db.update({}) }}", "asks for something that templates may not use"),
        ("{{ db.list.append(1) }}", "asks for something that templates may not use"),
        ("{% include 'x' %}", "inline content has no directory"),
        ("{{ '\\ud800' }}", "half of a surrogate pair"),
    ],
)
def test_a_failure_names_file_line_and_cause_and_no_value(content: str, told: str) -> None:
    """A person finds the place; a secret does not find the log."""
    assert told in failure(content)


DOUBLING = "{% set ns = namespace(x=START) %}{% for _ in range(60) %}STEP{% endfor %}{{ ns.xEND }}"


def doubling(start: str, step: str, end: str = "") -> str:
    return DOUBLING.replace("START", start).replace("STEP", step).replace("END", end)


@pytest.mark.parametrize(
    "content",
    [
        "{{ 'x' * 10**9 }}",
        "{{ 10**9 * 'x' }}",
        "{{ [1] * 10**8 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'x'.center(10**9) }}",
        "{{ 'x'|center(10**9) }}",
        "{{ 'x'.ljust(10**9) }}",
        "{{ 'x'.zfill(10**9) }}",
        "{{ '\t'.expandtabs(10**9) }}",
        "{{ (1).to_bytes(10**9, 'big')|length }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
        "{{ ('x' * 10**6).join(range(10000)) }}",
        "{{ range(10000)|join('x' * 10**6) }}",
        "{{ ('x' * 10**6).replace('x', 'y' * 1000) }}",
        "{{ ('x' * 10**6)|replace('x', 'y' * 1000) }}",
        "{{ ('\n' * 10**6)|indent(1000, blank=true) }}",
        "{{ ('a' * 10**6)|wordwrap(1, wrapstring='x' * 1000) }}",
        "{{ [1]|batch(10**9, 'x')|list }}",
        "{{ range(10**9) }}",
        "{{ 'abc'.translate({97: 'x' * 1000}) }}",
        doubling("'12345678'", "{% set ns.x = ns.x ~ ns.x %}"),
        doubling("'12345678'", "{% set ns.x = ns.x + ns.x %}"),
        doubling("'12345678'", "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
        doubling("[1]", "{% set ns.x = [ns.x, ns.x] %}"),
        doubling("[1]", "{% set ns.x = [ns.x, ns.x] %}", "|tojson"),
        doubling("[1]", "{% set ns.x = [ns.x, ns.x] %}", " ~ ''"),
        "{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
    ],
)
def test_what_would_take_gigabytes_is_refused_before_it_is_made(content: str) -> None:
    """An expression of a dozen characters must not end in an OOM kill of the sidecar."""
    assert failure(content)


def test_the_whole_set_is_bounded() -> None:
    """Files that fit one by one may be too many together."""
    files = {f"f{n}": File(content="{{ 'x' * (40 * 1024 * 1024) }}") for n in range(2)}
    with pytest.raises(RenderFailed, match="64 MiB"):
        render_set(Volume(path="/live", files=files))


TEMPLATES: Mapping[str, Mapping[str, Any]] = {
    "/t": {
        "main.j2": "{% from 'lib/macros.j2' import line %}{% include 'part.j2' %}{{ line('x') }}\n",
        "part.j2": "port={{ db.port }}\n",
        "lib/macros.j2": "{% macro line(a) %}{{ a }}:{{ db.port }}:{{ generation }}{% endmacro %}",
        "outer.j2": "\n{% include 'inner.j2' %}",
        "inner.j2": "\n\n{{ nope }}",
        "escape.j2": "{% include '../secret' %}",
        "absolute.j2": "{% include '/etc/passwd' %}",
        "computed.j2": "{% include db.password %}",
        "endless.j2": "{% include 'endless.j2' %}",
        "latin.j2": b"\xe9",
        "plain.j2": "plain",
        "any.j2": "{% include [motd, 'part.j2'] %}",
    },
    "/u": {"part.j2": "another directory"},
}


def test_a_template_includes_and_imports_from_its_own_directory() -> None:
    """Included and imported templates see the sources too."""
    assert render(template="/t/main.j2", templates=TEMPLATES) == b"port=5432\nx:5432:/live/..7\n"
    assert render(template="/t/any.j2", templates=TEMPLATES) == b"port=5432\n"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("outer.j2", "out: /t/inner.j2, line 3: 'nope' is undefined"),
        ("escape.j2", "no template '../secret' in the directory of this one"),
        ("absolute.j2", "no template '/etc/passwd' in the directory of this one"),
        ("computed.j2", "no template a computed name"),
        ("endless.j2", "includes or calls itself without end"),
        ("latin.j2", "out: /t/latin.j2 is not UTF-8"),
        ("gone.j2", "out: /t/gone.j2 is not there"),
    ],
)
def test_a_failure_in_a_template_names_the_template_that_has_it(name: str, told: str) -> None:
    """Of a chain of includes the innermost is told."""
    assert told in failure(template=f"/t/{name}", templates=TEMPLATES)


def test_uses_generation_looks_through_includes() -> None:
    """Only then is a second render needed."""

    def uses(**file: Any) -> bool:
        return Renderer(Volume(path="/live", files={"out": File(**file)})).uses_generation(TEMPLATES)

    assert uses(template="/t/main.j2")
    assert uses(content="{{ generation }}")
    assert uses(template="/t/computed.j2"), "what a computed include reads is not known, so any of the directory counts"
    assert not uses(template="/t/part.j2")
    assert not uses(content="a generation")
    assert not uses(copy="motd")


def test_the_directories_of_all_templates_are_watched_once() -> None:
    """Two templates of one directory are one directory."""
    files = {"a": File(template="/t/a.j2"), "b": File(template="/t/b.j2"), "c": File(template="/s/c.j2"), "d": File(content="")}
    assert Renderer(Volume(path="/live", files=files)).template_directories == ("/s", "/t")


def test_a_changed_template_is_rendered_anew() -> None:
    """Compiled templates are kept by their text."""
    renderer = Renderer(Volume(path="/live", files={"out": File(template="/t/a.j2")}))
    first = renderer.render(VALUES, {"/t": {"a.j2": "{{ motd }}1"}}, "g")
    again = renderer.render({**VALUES, "motd": "bye "}, {"/t": {"a.j2": "{{ motd }}2"}}, "g")
    assert (first["out"].data, again["out"].data) == (b"hello\n1", b"bye 2")


def test_copy_takes_text_and_content_as_they_are() -> None:
    """A file that no template touches."""
    assert render(copy="motd") == b"hello\n"
    assert render(copy="blob") == b"\x00\xfe"
    assert "volume.copy lays them out" in failure(copy="db")


def test_decode_turns_base64_into_content() -> None:
    """The way of binary content through a text."""
    assert render("{{ 'AP4='  }}\n", decode="base64") == b"\x00\xfe"
    assert "decode: what was rendered is not base64" in failure("{{ db.password }}", decode="base64")


def test_modes_and_owners_go_with_the_file_and_names_are_sorted() -> None:
    """The volume sets them before anything is visible."""
    files = {"z": File(content="1"), "a/b": File(content="2", mode=0o600, owner="www", group="7")}
    rendered = render_set(Volume(path="/live", files=files))
    assert list(rendered) == ["a/b", "z"]
    assert (rendered["a/b"].mode, rendered["a/b"].owner, rendered["a/b"].group) == (0o600, "www", "7")
    assert rendered["z"].mode == 0o640


def test_no_repr_shows_content() -> None:
    """Not of a file, and so not of a set."""
    assert "hello" not in repr(render_set(Volume(path="/live", files={"out": File(copy="motd")})))


def test_volume_copy_lays_a_mapping_out_file_by_file() -> None:
    """Text as it is, anything else as JSON, beside the files that are named."""
    rendered = render_set(Volume(path="/live", copy="db", files={"motd": File(copy="motd")}))
    assert {name: file.data for name, file in rendered.items()} == {
        "list": b'["a", {"b": 1}]',
        "motd": b"hello\n",
        "password": b"hunter2-canary",
        "port": b"5432",
        "raw": b"\xff\x00",
    }


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"../x": ""}, "is no name of a file on the volume"),
        ({"..data": ""}, "is no name of a file on the volume"),
        ({"/etc/x": ""}, "is no name of a file on the volume"),
        ({"a//b": ""}, "is no name of a file on the volume"),
        ({"a/./b": ""}, "is no name of a file on the volume"),
        ({"": "x"}, "is no name of a file on the volume"),
        ({"a\0": ""}, "is no name of a file on the volume"),
        ({"x" * 256: ""}, "is no name of a file on the volume"),
        ({"out": ""}, "volume.files has too"),
        ({"a": "", "a/b": ""}, "is a file, and a folder for 'a/b'"),
        ("text", "not a mapping of names"),
    ],
)
def test_volume_copy_refuses_names_that_are_not_safe(keys: Any, told: str) -> None:
    """Nothing that a backend holds leaves the volume or takes another's place."""
    volume = Volume(path="/live", copy="tree", files={"out": File(content="")})
    with pytest.raises(RenderFailed, match=told):
        Renderer(volume).render({"tree": keys}, {}, "g")


def test_folders_of_consul_are_no_files() -> None:
    """Its user interface leaves a key that ends in a slash."""
    rendered = Renderer(Volume(path="/live", copy="tree")).render({"tree": {"a/": "", "a/b": "1"}}, {}, "g")
    assert list(rendered) == ["a/b"]


def test_templates_get_plain_data_only() -> None:
    """An object of a source's own would bring its methods along."""
    with pytest.raises(RenderFailed, match="source odd: holds a value of type object"):
        Renderer(Volume(path="/live")).render({"odd": [object()]}, {}, "g")


def test_equal_input_gives_an_equal_set() -> None:
    """Whatever the order in which a backend names its keys."""
    renderer = Renderer(Volume(path="/live", files={"out": File(content="{{ x|tojson }}{{ x|toyaml }}")}))
    assert renderer.render({"x": {"a": 1, "b": 2}}, {}, "g") == renderer.render({"x": {"b": 2, "a": 1}}, {}, "g")


def test_decoded_base64_may_be_wrapped() -> None:
    """As `base64` writes it."""
    assert render("{{ '" + base64.encodebytes(b"x" * 99).decode().replace("\n", "\\n") + "' }}", decode="base64") == b"x" * 99
