"""What `check` advises for targets that are known, and for more sources than connections."""

from pathlib import Path

import pytest

from reloader import settings
from reloader.advice import advice, delays


def advised(tmp_path: Path, target: str) -> list[str]:
    file = tmp_path / "web.yaml"
    file.write_text(f"sources: {{site: {{kind: files, path: /etc/site}}}}\ntarget: {target}\n")
    plan, _ = settings.find([file], [], "", None, {})
    return list(advice(plan.pipelines[0]))


@pytest.mark.parametrize(
    "match",
    [
        "{name: nginx}",
        "{cmdline: '^nginx: master'}",
        "{cmdline: '/usr/sbin/nginx -g'}",
        r"{cmdline: '\bnginx\b'}",
        "{name: x, cmdline: nginx}",
    ],
)
def test_a_program_with_workers_is_known_by_name_or_command_line(tmp_path: Path, match: str) -> None:
    """The line says which program was recognised, and what `alive` cannot see."""
    said = ["nginx: verify {workers: true}; alive only notices a target that dies"]
    assert advised(tmp_path, f"{{match: {match}}}") == said
    assert advised(tmp_path, f"{{match: {match}, verify: {{within: 5s}}}}") == said


@pytest.mark.parametrize(
    "match",
    [
        "{name: nginx-exporter}",
        "{cmdline: nginx-prometheus-exporter}",
        "{cmdline: 'watch /etc/nginx/conf.d'}",
        "{cmdline: opennginx}",
        "{uid: 1}",
    ],
)
def test_others_get_no_advice(tmp_path: Path, match: str) -> None:
    """Neither do programs that are only named after a known one."""
    assert advised(tmp_path, f"{{match: {match}}}") == []


@pytest.mark.parametrize("proof", ["alive: true", "workers: true"])
def test_who_chose_a_proof_gets_none(tmp_path: Path, proof: str) -> None:
    """Also where that is the default: it is known what it proves."""
    assert advised(tmp_path, f"{{match: {{name: nginx}}, verify: {{{proof}}}}}") == []


def test_a_program_that_answers_whether_it_reloaded_is_asked_rather_than_signalled(tmp_path: Path) -> None:
    """What is advised is a target that is accepted and advised no more."""
    (line,) = advised(tmp_path, "{match: {name: prometheus}}")
    target = line.partition("target ")[2].partition(";")[0]
    assert target == "{kind: http, url: 'http://localhost:9090/-/reload'}"
    assert "--web.enable-lifecycle" in line
    assert advised(tmp_path, target) == []


def test_a_target_of_another_kind_gets_none(tmp_path: Path) -> None:
    """It has no process to match."""
    assert advised(tmp_path, "{kind: none}") == []


def test_what_is_advised_is_taken_and_then_advised_no_more(tmp_path: Path) -> None:
    """The words between `verify` and the semicolon are a value of that key."""
    (line,) = advised(tmp_path, "{match: {name: haproxy}}")
    verify = line.partition("verify ")[2].partition(";")[0]
    assert advised(tmp_path, f"{{match: {{name: haproxy}}, verify: {verify}}}") == []


def delayed(tmp_path: Path, **sources: str) -> list[str]:
    file = tmp_path / "many.yaml"
    lines = "".join(f"  {name}: {{kind: consul, {read}}}\n" for name, read in sources.items())
    file.write_text(f"consul: {{address: 'http://consul:8500'}}\nsources:\n{lines}target: {{kind: none}}\n")
    plan, _ = settings.find([file], [], "", None, {})
    return list(delays([*plan.pipelines, *plan.pipelines]))


def test_sources_that_have_a_connection_each_get_no_warning(tmp_path: Path) -> None:
    """Equal reads of two pipelines are one."""
    assert delayed(tmp_path, **{f"s{number}": f"key: k{number}" for number in range(4)}) == []


def test_sources_that_take_turns_are_told_how_late_they_are(tmp_path: Path) -> None:
    """Nothing that they share could be read in their place."""
    (line,) = delayed(tmp_path, **{f"s{number}": f"service: web-{number}" for number in range(5)})

    assert line == (
        "http://consul:8500: 5 reads take turns on 4 connections, so a change is seen after up to 11 s; "
        "raise consul.max_connections to shorten that"
    )


def test_keys_that_share_folders_are_told_what_right_spares_them_that(tmp_path: Path) -> None:
    """Whether the token has it is not known offline."""
    keys = {f"s{number}": f"key: app/{number % 3}/{number}" for number in range(60)}
    (line,) = delayed(tmp_path, **keys)
    assert line == (
        "http://consul:8500: 60 reads take turns on 4 connections, so a change is seen after up to 11 s, "
        "or at once where the token may read the folders that they share (app/0/, app/1/, app/2/)"
    )

    (line,) = delayed(tmp_path, a="key: x/a", b="key: x/b", **{f"s{number}": f"service: web-{number}" for number in range(5)})
    assert line.endswith("or after up to 11 s where the token may read the folders that they share (x/)")
