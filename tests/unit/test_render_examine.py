"""Mistakes in templates, found before anything is read from a backend."""

from pathlib import Path
from typing import Any

import pytest

from reloader.plan import Check, File, Volume
from reloader.render import examine

SOURCES = ("routes", "tls")


def mistakes(content: str, **volume: Any) -> list[str]:
    """Return what is said about one inline content."""
    plan = Volume(path="/etc/nginx/live", files={"nginx.conf": File(content=content), "tls.crt": File(copy="tls")}, **volume)
    found = list(examine(plan, SOURCES))
    assert all(key == ("files", "nginx.conf", "content") for key, _ in found)
    return [message for _, message in found]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("\n{{ route.a }}", "content, line 2: no source is called 'route'; did you mean 'routes'?"),
        ("{{ x }}", "content, line 1: no source is called 'x'"),
        ("{% for a in b", "content, line 1: unexpected end of template"),
        ("{{ tls|fullchian }}", "No filter named 'fullchian'"),
        ("{% include 'x' %}", "inline content has no directory"),
    ],
)
def test_a_mistake_is_told_with_its_line(content: str, told: str) -> None:
    """As the render would, only earlier."""
    [message] = mistakes(content)
    assert told in message


@pytest.mark.parametrize(
    "content",
    [
        "{{ tls|fullchain }}{{ generation }}{{ range(3) }}",
        "{% for route in routes %}{{ loop.index }}{{ route }}{% endfor %}{% set x = 1 %}{{ x }}",
        "{% macro m(a) %}{{ a }}{{ varargs }}{{ caller() }}{% endmacro %}",
        "{% if other is defined %}{{ other }}{% endif %}{{ more|default('x') }}",
    ],
)
def test_good_content_has_no_mistakes(content: str) -> None:
    """Names that a template makes itself, or can do without, are no mistakes."""
    assert mistakes(content) == []


def test_template_files_are_read_from_disk_with_what_they_include(tmp_path: Path) -> None:
    """Each mistake under its file's key, each included template told by its own name."""
    (tmp_path / "good.j2").write_text("{% include 'part.j2' ignore missing %}{{ routes }}")
    (tmp_path / "broken.j2").write_text("\n{% include 'inner.j2' %}{% include 'gone.j2' %}{% include '../up.j2' %}")
    (tmp_path / "inner.j2").write_text("\n\n{% if %}")
    (tmp_path / "latin.j2").write_bytes(b"\xe9")
    names = ("good", "broken", "latin", "absent")
    volume = Volume(path="/live", files={name: File(template=f"{tmp_path}/{name}.j2") for name in names})
    found = [(key[1], message) for key, message in examine(volume, SOURCES)]
    assert ("absent", f"{tmp_path}/absent.j2 cannot be read: No such file or directory") in found
    assert ("latin", f"{tmp_path}/latin.j2 is not UTF-8") in found
    told = "\n".join(message for name, message in found if name == "broken")
    assert f"{tmp_path}/broken.j2, line 2: {tmp_path}/inner.j2, line 3: Expected an expression" in told
    assert f"{tmp_path}/broken.j2, line 2: {tmp_path}/gone.j2 cannot be read" in told
    assert "../up.j2 is not in the directory" in told
    assert not any(name == "good" for name, _ in found)


def test_a_directory_is_no_template(tmp_path: Path) -> None:
    """A path with its file name forgotten."""
    volume = Volume(path="/live", files={"a": File(template=str(tmp_path))})
    [(key, message)] = examine(volume, SOURCES)
    assert key == ("files", "a", "template")
    assert "cannot be read: Is a directory" in message


COMMAND = Check(command=("nginx", "-t", "-c", "{staged}/nginx.conf"))


@pytest.mark.parametrize(
    ("content", "hits"),
    [
        ("a\nssl_certificate /etc/nginx/live/tls.crt;", 1),
        ("{{ '/etc/nginx/live/tls.crt' }}", 1),
        ("include /etc/nginx/live/..data/tls.crt;", 1),
        ("ssl_certificate /mnt/live/tls.crt;", 0),
        ("ssl_certificate {{ generation }}/tls.crt;", 0),
        ("# /etc/nginx/live/tls.crt.old /etc/nginx/live/tls /srv/etc/nginx/live/tls.crt", 0),
        ("{# /etc/nginx/live/tls.crt #}", 0),
    ],
)
def test_with_a_check_command_a_template_may_not_name_its_published_self(content: str, hits: int) -> None:
    """The command would follow the path into the set that is published now."""
    assert len(mistakes(content, check=COMMAND)) == hits
    assert mistakes(content) == []


def test_the_mend_of_a_published_path_is_told() -> None:
    """What to write instead, literally."""
    [message] = mistakes("a\n/etc/nginx/live/tls.crt", check=COMMAND)
    assert "content, line 2: /etc/nginx/live/tls.crt is in the published set" in message
    assert "write {{ generation }}/tls.crt" in message


def test_the_published_path_is_known_as_the_target_sees_it() -> None:
    """Both mounts count."""
    assert len(mistakes("/mnt/live/tls.crt", check=COMMAND, target_path="/mnt/live")) == 1


def test_generation_and_check_command_need_one_path_for_both_containers() -> None:
    """The command runs in the sidecar, where the target's path does not exist."""
    [message] = mistakes("{{ generation }}", check=COMMAND, target_path="/mnt/live")
    assert "where check.command cannot look" in message
    assert mistakes("{{ generation }}", check=COMMAND, target_path="/etc/nginx/live") == []
    assert mistakes("{{ generation }}", check=Check(builtin=("keypair",)), target_path="/mnt/live") == []


def test_a_check_cannot_follow_generation_into_a_set_that_is_written_in_place() -> None:
    """It is the volume itself there, which still has the old set while the new one is checked."""
    check = Check(command=("nginx", "-t"))
    [message] = mistakes("include {{ generation }}/x;", check=check, in_place=True)
    assert "check.command would read the old set; write a path relative to this file" in message
    [message] = mistakes("ssl /etc/nginx/live/tls.crt;", check=check, in_place=True)
    assert message.endswith("so check.command would read the old one; write a path relative to this file")
    assert mistakes("include {{ generation }}/x; ssl /etc/nginx/live/tls.crt;", in_place=True) == []
