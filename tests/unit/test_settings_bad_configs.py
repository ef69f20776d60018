"""Every bad configuration is refused with all its mistakes, each at its place, and no value is ever told."""

import pytest
import yaml

from reloader import settings
from tests.bad_configs import CANARY, BadConfig, bad_configs

BAD = pytest.mark.parametrize("bad", bad_configs(), ids=lambda bad: bad.path.stem)


def said_of(bad: BadConfig) -> str:
    with pytest.raises(settings.ConfigurationInvalid) as refused:
        settings.load([bad.path], {})
    return str(refused.value)


@BAD
def test_all_mistakes_are_told_and_no_others(bad):
    assert bad.expected
    assert bad.unexpected(said_of(bad).splitlines()[1:]) == ([], [])


@BAD
def test_no_secret_is_told(bad):
    assert CANARY not in said_of(bad)


def test_there_are_enough_of_them_and_some_hold_a_secret():
    texts = [bad.path.read_text(encoding="utf-8") for bad in bad_configs()]
    assert len(texts) >= 25
    assert sum(CANARY in text for text in texts) >= 4


def test_the_mistakes_of_all_files_are_told_at_once():
    first, second = bad_configs()[0], bad_configs()[-1]
    with pytest.raises(settings.ConfigurationInvalid) as refused:
        settings.load([first.path, second.path], {})
    told = {mistake.where.partition(":")[0] for mistake in refused.value.mistakes}
    assert told == {str(first.path), str(second.path)}


def test_an_expectation_that_is_not_met_and_a_mistake_that_is_not_expected_are_both_noticed():
    bad = bad_configs()[0]
    assert bad.unexpected(["other"]) == (list(bad.expected), ["other"])


WHOLE = """\
name: web
vault: {address: https://vault:8200, namespace: a, max_connections: 1, auth: {method: token, token: a, token_file: /a}}
consul: {address: http://consul:8500, token: a, token_file: /a, datacenter: a, max_connections: 1}
sources:
  site: {kind: files, path: /etc/site, parse: json, on_failure: open, max_staleness: 1h}
  routes: {kind: consul, prefix: a/, key: a, service: a, passing: true, tag: a, near: a, default: a}
  db: {kind: vault, path: secret/app, write: {ttl: 1h}, version: 2, poll: 30s}
  tools: {kind: env, names: [HOME]}
volume:
  path: /srv/live
  target_path: /live
  copy: site
  dir_mode: "0750"
  keep: 3
  files: {a: {template: /a, content: a, copy: a, decode: base64, mode: "0640", owner: a, group: a}}
  check: {command: [a], timeout: 1s, builtin: [keypair, {max_change: 50%}]}
target:
  kind: process
  match: {name: a, cmdline: a, pidfile: /a, uid: 1, all: true}
  signal: HUP
  min_uptime: 1s
  ready: {http: 'http://a', tcp: 'a:1', file: /a}
  verify: {alive: true, workers: true, http: 'http://a', status: 200, body: a, json: {a: a}, command: [a], within: 1s}
timing: {settle: 1s, settle_max: 1s, min_interval: 1s, splay: 1s, resync: 1s}
failure: {mode: open, startup_grace: 1s, max_staleness: 1s, fallback: /a, when_closed: [not_ready, withdraw, {stop_target: QUIT}, exit]}
server: {listen: "[::]:9533", details: all}
log: {level: info, format: json}
"""
IN_PLACE = [CANARY, [{"a": [CANARY]}], {"key": CANARY}, None, True, -1.5]


def paths_of(written: object) -> list[tuple[str, ...]]:
    below = written.items() if isinstance(written, dict) else ()
    return [path for key, value in below for path in [(key,), *((key, *rest) for rest in paths_of(value))]]


@pytest.mark.parametrize("path", paths_of(yaml.safe_load(WHOLE)), ids=".".join)
def test_whatever_stands_at_a_key_is_refused_without_being_told_or_is_taken(path, tmp_path):
    file = tmp_path / "web.yaml"
    for value in IN_PLACE:
        data = yaml.safe_load(WHOLE)
        holder = data
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        file.write_text(yaml.safe_dump(data), encoding="utf-8")
        with pytest.raises(settings.ConfigurationInvalid) as refused:  # the whole has mistakes of its own
            settings.load([file], {})
        told = str(refused.value)
        assert CANARY not in told
        assert "this value does not fit here" not in told


SYNTAX = [
    "a: *{}",
    "a: &{} &{} b",
    "a: !{}!b c",
    "a: !<{}",
    "%{}\n---\na",
    "%YAML {}\n---\na",
    "a: '{}",
    'a: "{}\\q"',
    "a: |{}\n  b",
    "a: @{}",
]
SYNTAX += [
    "a: {{{}",
    "a: b: {}",
    "a\n{}: b",
    "a: [{}",
    "a: !e!{} b",
    "a: !{} b",
    "{}: {{b}}: c",
    "a: !!{} b",
    "a: !!python/object:{} {{}}",
    "a:\t- {}",
]


@pytest.mark.parametrize("text", SYNTAX)
def test_what_is_no_yaml_is_refused_without_being_quoted(text, tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(text.replace("{}", CANARY).replace("{{", "{").replace("}}", "}"), encoding="utf-8")
    with pytest.raises(settings.ConfigurationInvalid) as refused:
        settings.load([path], {})
    said = str(refused.value).replace(f"unknown key '{CANARY}'", "").replace(f": {CANARY}: ", "")  # the name of a key may be told
    assert CANARY not in said
