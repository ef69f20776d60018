"""What a template cannot do, whoever wrote it: reach Python's insides, read what it was not given, or change what others are given."""

import copy
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reloader.backends.scan import Look
from reloader.plan import File, Volume
from reloader.render import Renderer, RenderFailed, examine
from tests.e2e.sidecar import reloader
from tests.kubelet import KubeletVolume

VALUES: Mapping[str, Any] = {
    "db": {"password": "hunter2-canary", "list": ["a", "b"], "raw": b"\xff\x00"},
    "motd": "hello",
    "users": [{"name": "a", "format": "x"}, {"name": "b", "format": "y"}],
}


def render(files: Mapping[str, str], first: str = "out.j2") -> str:
    """Return what a template directory with these files renders."""
    volume = Volume(path="/live", files={"out": File(template=f"/t/{first}")})
    return Renderer(volume).render(VALUES, {"/t": files}, "/live/..1")["out"].data.decode()


ESCAPES = {
    "CVE-2016-10745, str.format": "{{ '{0.__class__.__mro__}'.format(motd) }}",
    "the same, by name": "{{ '{a.__class__}'.format(a=motd) }}",
    "the same, by an item": "{{ '{0[__class__]}'.format(db) }}",
    "the same, in a width": "{{ '{0:{1.__class__}}'.format(1, motd) }}",
    "CVE-2019-10906, str.format_map": "{{ '{a.__class__.__mro__}'.format_map({'a': motd}) }}",
    "CVE-2024-56326, format by a name of its own": "{% set f = '{0.__class__}'.format %}{{ f(motd) }}",
    "the same, in a list": "{% set f = ['{0.__class__}'.format] %}{{ f[0](motd) }}",
    "the same, through a macro": "{% macro call(f) %}{{ f(motd) }}{% endmacro %}{{ call('{0.__class__}'.format) }}",
    "the same, through a namespace": "{% set ns = namespace(f='{0.__class__}'.format) %}{{ ns.f(motd) }}",
    "the same, of format_map": "{% set f = '{a.__class__}'.format_map %}{{ f({'a': motd}) }}",
    "CVE-2025-27516, format by attr": "{{ ('{0.__class__}'|attr('format'))(motd) }}",
    "the same, by map": "{{ (['{0.__class__}']|map(attribute='format')|first)(motd) }}",
    "the same, by map and attr": "{{ (['{0.__class__}']|map('attr', 'format')|first)(motd) }}",
    "the same, by an item of a text": "{{ '{0.__class__}'['format'](motd) }}",
    "the same, by groupby": "{{ (['{0.__class__}']|groupby('format')|first)[0](motd) }}",
    "of a text that is marked safe": "{{ ('{0.__class__}'|escape).format(motd) }}",
    "the same, later": "{% set f = ('{0.__class__}'|escape).format %}{{ f(motd) }}",
    "a class": "{{ motd.__class__ }}",
    "a class by an item": "{{ motd['__class__'] }}",
    "a class by attr": "{{ motd|attr('__class__') }}",
    "a class in pieces": "{{ motd|attr('__cl' ~ 'ass__') }}",
    "a class in escapes": "{{ motd['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "a class by getattribute": "{{ motd.__getattribute__('__class__') }}",
    "a class by map": "{{ [motd]|map(attribute='__class__')|list }}",
    "a class by a long path": "{{ [motd]|map(attribute='upper.__self__.__class__')|list }}",
    "a class by sort": "{{ [motd, 'b']|sort(attribute='__class__') }}",
    "a class by groupby": "{{ [motd]|groupby('__class__')|list }}",
    "a class by selectattr": "{{ [motd]|selectattr('__class__')|list }}",
    "a class by sum": "{{ [motd]|sum(attribute='__class__') }}",
    "a class by min": "{{ [motd, 'b']|min(attribute='__class__') }}",
    "a class by unique": "{{ [motd]|unique(attribute='__class__')|list }}",
    "a class by join": "{{ [motd]|join(attribute='__class__') }}",
    "the class of a number": "{{ (1).__class__ }}",
    "the class of bytes": "{{ db.raw.__class__ }}",
    "the class of a mapping": "{{ db.__class__ }}",
    "the bases of a class": "{{ dict.__base__.__subclasses__() }}",
    "the order of bases": "{{ dict.mro() }}",
    "the globals of a class": "{{ cycler.__init__.__globals__ }}",
    "of another one": "{{ joiner.__init__.__globals__.os }}",
    "of a third": "{{ namespace.__init__.__globals__ }}",
    "of an instance": "{{ cycler('a').__init__.__globals__ }}",
    "of a function that is taken out": "{{ lipsum.__globals__ }}",
    "the globals of a method": "{{ motd.upper.__globals__ }}",
    "what a method is of": "{{ motd.upper.__self__ }}",
    "the insides of a macro": "{% macro m() %}{% endmacro %}{{ m._func }}",
    "the environment of a macro": "{% macro m() %}{% endmacro %}{{ m._environment }}",
    "the globals of a caller": "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "the insides of a loop": "{% for a in [1] %}{{ loop._iterable }}{% endfor %}",
    "the globals of a loop": "{% for a in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "the context": "{{ self._TemplateReference__context }}",
    "the class of the template": "{{ self.__class__ }}",
    "a block's insides": "{% block b %}{{ super._context }}{% endblock %}",
    "names of the compiled code": "{{ environment.globals }}{{ context }}{{ resolve('db') }}",
    "the frame of a generator": "{{ ([motd]|map('upper')).gi_frame }}",
    "the code of a generator": "{{ ([motd]|select).gi_code }}",
    "the insides of what is undefined": "{{ (nope is defined) }}{{ nope._fail_with_undefined_error }}",
    "the class of what is undefined": "{{ nope.__class__ }}",
    "a filter that is random": "{{ [1, 2]|random }}",
    "the debugger": "{% debug %}",
    "statements": "{% do db.clear() %}",
    "changing a mapping": "{{ db.clear() }}",
    "changing it otherwise": "{{ db.update({'password': 1}) }}{{ db.pop('password') }}{{ db.setdefault('a', 1) }}",
    "changing a list": "{{ db.list.append('c') }}",
    "changing it by attr": "{{ (db.list|attr('append'))('c') }}",
    "changing it by map": "{{ ([db.list]|map(attribute='append')|first)('c') }}",
    "sorting a list in place": "{{ db.list.sort() }}",
    "reading a file": "{{ open('/etc/passwd').read() }}",
    "importing": "{{ __import__('os') }}",
    "a file by a template's name": "{% include '/etc/passwd' %}",
    "a file above": "{% include '../secret' %}",
    "a file above, later": "{% include 'lib/../../secret' %}",
    "a file above, computed": "{% set up = '..' %}{% import up ~ '/secret' as s %}",
    "a file above, extended": "{% extends '../secret' %}",
    "a file above, of several": "{% include ['../secret', '/etc/passwd'] %}",
    "a name with a zero": "{% include 'a\\0b' %}",
    "a template by bytes": "{% include db.raw %}",
    "a template by an object": "{% include cycler('a') %}",
}


@pytest.mark.parametrize("content", ESCAPES.values(), ids=ESCAPES)
def test_there_is_no_way_out(content: str):
    """It is refused, tells no value, and leaves what others are given as it was."""
    before = copy.deepcopy(VALUES)
    with pytest.raises(RenderFailed) as caught:
        render({"out.j2": content})
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert before == VALUES


@pytest.mark.parametrize(
    "name",
    ["{__import__('pathlib').Path('pwned').touch()}.j2", "'+__import__('pathlib').Path('pwned').touch()+'.j2", '"{open("pwned","w")}".j2'],
)
def test_the_name_of_a_template_is_no_code(name: str, tmp_path: Path, monkeypatch):
    """CVE-2024-56201: names went into the text of a message that was compiled."""
    monkeypatch.chdir(tmp_path)
    uses = (
        "{% from 'other.j2' import missing %}{{ missing() }}",
        "{% block a %}{{ nope }}{% endblock %}",
        "{% extends 'other.j2' %}{{ nope }}",
    )
    for content in uses:
        with suppress(RenderFailed):
            render({name: content, "other.j2": ""}, name)
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_called_as_a_method_is_a_key():
    """What is kept from templates are attributes, never data."""
    assert render({"out.j2": "{{ users|map(attribute='format')|join(' ') }} {{ users[0]['format'] }}"}) == "x y x"


def test_what_stays_usable():
    """The refusals above are not for lack of anything: this is how it is meant."""
    content = "{{ '{} {a}'.format(motd, a=db.list[0]) }} {{ motd|attr('upper') is callable }} {% set f = motd.upper %}{{ f() }}"
    assert render({"out.j2": content}) == "hello a True HELLO"


LISTS = (
    "{{ ('x' * 6 * 10**7)|list|length }}",
    "{{ ('x' * 6 * 10**7)|map('upper')|list|length }}",
    "{{ ('x' * 6 * 10**7)|sort|length }}",
    "{{ ('x' * 6 * 10**7)|batch(1)|list|length }}",
    "{{ ('x' * 6 * 10**7)|slice(2)|list|length }}",
    "{{ ('x' * 6 * 10**7)|groupby('y')|length }}",
    "{{ ('x' * 6 * 10**7)|select|reverse|list|length }}",
    "{{ ('x' * 6 * 10**7).split('x')|length }}",
    "{{ ('x' * 6 * 10**7).rsplit('x')|length }}",
    "{{ (' x' * 3 * 10**7).split()|length }}",
    "{{ ('\\u3000x' * 3 * 10**7).split()|length }}",
    "{{ ('\\n' * 6 * 10**7).splitlines()|length }}",
)


@pytest.mark.parametrize("content", LISTS)
def test_a_list_of_millions_is_refused_before_it_is_made(content: str):
    """A text of the largest size, taken apart, would be half a gigabyte."""
    with pytest.raises(RenderFailed, match="would make more than"):
        render({"out.j2": content})


def test_lists_of_a_usual_size_are_made():
    """A file of some megabytes may be taken apart by its lines."""
    assert render({"out.j2": "{{ ('a line of a file of usual length\\n' * 10**5).splitlines()|list|length }}"}) == "100000"
    assert render({"out.j2": "{{ ('x' * 5 * 10**6).split('y')|length }} {{ range(1000)|sort|batch(3)|list|length }}"}) == "1 334"


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """A directory of templates beside a file that is nobody's template, with links to that, some through others."""
    (tmp_path / "secret").write_text("canary-beside")
    directory = tmp_path / "templates"
    (directory / "lib").mkdir(parents=True)
    (directory / "main.j2").write_text("{% include ['leak' ~ '.j2', 'part.j2'] %}")
    (directory / "lib/real.j2").write_text("inside")
    (directory / "part.j2").symlink_to("lib/real.j2")
    (directory / "leak.j2").symlink_to(tmp_path / "secret")
    (directory / "further.j2").symlink_to("leak.j2")
    (directory / "folder").symlink_to(tmp_path)
    (directory / "own.j2").symlink_to("/proc/self/environ")
    return directory


def test_a_link_out_of_a_template_directory_leads_nowhere(templates: Path):
    """What is inside is read through links too; what is elsewhere is not there, whatever it is."""
    assert Look(str(templates)).everything(inside=True).files == {
        "lib/real.j2": "inside",
        "main.j2": "{% include ['leak' ~ '.j2', 'part.j2'] %}",
        "part.j2": "inside",
    }
    assert "canary-beside" in Look(str(templates)).everything().files.values(), "a source may have links: it is named for what is in it"


def test_a_directory_as_the_kubelet_lays_it_out_is_inside(tmp_path: Path):
    """Each of its files is a link through a link; a `..data` that leads elsewhere makes it all be elsewhere."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/a.j2").write_text("canary-beside")
    mounted = KubeletVolume(tmp_path / "mounted")
    mounted.swap({"a.j2": "text"})
    assert Look(str(mounted.path)).everything(inside=True).files == {"a.j2": "text"}

    (mounted.path / "..data").unlink()
    (mounted.path / "..data").symlink_to("../secret")
    assert Look(str(mounted.path)).everything(inside=True).files == {}


@pytest.mark.parametrize("name", ["leak.j2", "further.j2", "own.j2"])
def test_a_template_that_is_a_link_elsewhere_is_a_mistake(templates: Path, name: str):
    """`check` says so; what runs already says that it is not there."""
    volume = Volume(path="/live", files={"out": File(template=f"{templates}/{name}")})
    told = f"{templates}/{name} is a link that leads out of its directory; put the template itself there"
    assert list(examine(volume, ())) == [(("files", "out", "template"), told)]


def test_the_sidecar_renders_nothing_from_elsewhere(templates: Path, tmp_path: Path):
    """A link that comes into the directory after the check is no way out either."""
    live, configuration = tmp_path / "live", tmp_path / "app.yaml"
    configuration.write_text(
        f"sources: {{path: {{kind: env, names: [PATH]}}}}\nvolume: {{path: {live}, files: {{out: {{template: {templates}/main.j2}}}}}}\n"
        "target: {kind: none}\n"
    )
    done = reloader("once", configuration)
    assert done.returncode == 0, done.stderr
    assert (live / "out").read_text() == "inside"
