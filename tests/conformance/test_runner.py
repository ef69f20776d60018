"""What consul-template's runner is tested with (`manager/runner_test.go`), with our outcomes.

Two of its rows have no twin here. A key that is named by the value of another key is found there by rendering again and again; our sources
are declared, so that one look at a configuration tells what is read, and such a key is looked up in a prefix. `pid_file` does not exist:
the process is PID 1 of its container.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from reloader.schedule import Pace
from tests.e2e.sidecar import reloader
from tests.waiting import eventually

pytestmark = pytest.mark.servers

TWO_KEYS = {"a": {"kind": "consul", "key": "one/a"}, "b": {"kind": "consul", "key": "two/b"}}


def at(relay) -> dict[str, str]:
    return {"address": relay.address}


# What is read


def test_missing_keys_give_no_file_and_are_asked_for_all_the_same(app, consul):
    app = app(consul=at(consul), sources=TWO_KEYS, files={"app.conf": "{{ a }}{{ b }}"}).start()
    eventually(lambda: "one/a: does not exist" in app.reasons() and "two/b: does not exist" in app.reasons(), what="both to be missed")

    assert consul.of("one/a")
    assert consul.of("two/b")
    assert not app.sidecar.ready()
    assert app.published() is None
    assert app.sidecar.running


def test_what_comes_later_accumulates(app, consul, consul_server):
    app = app(consul=at(consul), sources=TWO_KEYS, files={"app.conf": "{{ a }}{{ b }}"}).start()
    consul_server.put("one/a", "A")
    eventually(lambda: app.source("a")["up"], what="the first of two")
    assert app.published() is None
    assert not app.sidecar.ready()
    consul_server.put("two/b", "B")

    app.shows("AB")
    assert app.generation == 1


def test_the_same_key_twice_is_read_once(app, consul, consul_server):
    """By two sources and in two files: one query at a time, each with an index of its own."""
    consul_server.put("one/a", "A")
    same = {"a": {"kind": "consul", "key": "one/a"}, "again": {"kind": "consul", "key": "one/a"}}
    app = app(consul=at(consul), sources=same, files={"app.conf": "{{ a }}{{ again }}", "other.conf": "{{ a }}"}).start()
    app.shows("AA")
    eventually(lambda: len(consul.of("one/a")) == 2, what="the blocking query")
    consul_server.put("one/a", "B")
    app.shows("BB")
    eventually(lambda: len(consul.of("one/a")) >= 3, what="the next blocking query")

    indexes = [asked.index for asked in consul.of("one/a")]
    assert indexes[0] is None
    assert len(indexes) == len(set(indexes)) == 3


def test_a_key_that_another_one_names_is_looked_up_in_a_prefix(app, consul, consul_server):
    """Rendered in one pass, and both are followed."""
    for key, value in (("which", "blue"), ("colours/blue", "sky"), ("colours/green", "grass")):
        consul_server.put(key, value)
    sources = {"which": {"kind": "consul", "key": "which"}, "colours": {"kind": "consul", "prefix": "colours/"}}
    app = app(consul=at(consul), sources=sources, files={"app.conf": "{{ colours[which] }}"}).start()
    app.shows("sky")
    consul_server.put("which", "green")
    app.shows("grass")
    consul_server.put("colours/green", "moss")
    app.shows("moss")

    assert app.generation == 3


def test_a_key_that_is_used_no_more_is_read_no_more(app, consul, consul_server):
    """By a new configuration, which the running sidecar takes."""
    consul_server.put("one/a", "A")
    consul_server.put("two/b", "B")
    app = app(consul=at(consul), sources=TWO_KEYS, files={"app.conf": "{{ a }}{{ b }}"}).start()
    app.shows("AB")
    eventually(lambda: consul.of("two/b")[-1].index, what="the blocking query")
    app.write(sources={"a": TWO_KEYS["a"]}, files={"app.conf": "{{ a }}"})
    app.shows("A")
    before = len(consul.of("two/b"))
    consul_server.put("two/b", "unseen")
    for value in ("C", "D"):  # the second one is further away than the least time between two answers
        consul_server.put("one/a", value)
        app.shows(value)

    assert len(consul.of("two/b")) == before
    assert [each["name"] for each in app.sidecar.pipeline()["sources"]] == ["a"]


# When the target is asked


def signalled(name: str) -> dict[str, Any]:
    return {"kind": "process", "match": {"name": name}, "verify": {"alive": True, "within": "50ms"}}


def test_changed_content_signals_and_equal_content_does_not(app, start, consul, consul_server):
    """Two files that changed together are one signal; a key that was touched is none, nor is a restart of the sidecar."""
    target = start.target("conf-target")
    consul_server.put("one/a", "A")
    files = {"app.conf": "{{ a }}", "other.conf": "{{ a }}{{ a }}"}
    app = app(consul=at(consul), sources={"a": TWO_KEYS["a"]}, files=files, target=signalled("conf-target")).start()
    eventually(app.sidecar.settled, what="the first reload")
    target.hear("signal SIGHUP")

    waited = eventually(lambda: consul.of("one/a")[-1].index, what="the blocking query")
    requests.put(f"{consul_server.address}/v1/kv/one/a?flags=7", data="A", timeout=5).raise_for_status()
    eventually(lambda: (consul.of("one/a")[-1].index or 0) > waited, what="the answer that says the same")
    assert app.generation == 1
    consul_server.put("one/a", "B")
    app.shows("BB", "other.conf")
    eventually(app.sidecar.settled, what="the second reload")
    assert app.generation == 2

    app.sidecar.stop()
    app.start()
    eventually(app.sidecar.settled, what="the restart")
    assert app.generation == 2
    assert target.end() == ["signal SIGHUP"]


def test_one_change_that_many_files_show_is_one_generation(app, consul, consul_server):
    """Several files and sources under a quiet time: no render leads to another one."""
    for key in ("one/a", "two/b", "tree/x", "tree/y"):
        consul_server.put(key, "1")
    sources = TWO_KEYS | {"tree": {"kind": "consul", "prefix": "tree/"}}
    files = {"app.conf": "{{ a }}{{ b }}", "b.conf": "{{ b }}{{ a }}", "c.conf": "{{ tree.x }}{{ a }}", "d.conf": "{{ tree }}"}
    app = app(consul=at(consul), sources=sources, files=files, timing={"min_interval": "0s", "settle": "50ms", "resync": "1s"}).start()
    app.shows("11")
    before = app.generation
    for count, value in enumerate(("2", "3", "4"), start=1):
        consul_server.put("one/a", value)
        app.shows(f"{value}1")
        assert app.generation == before + count
        os.kill(app.sidecar.pid, signal.SIGHUP)  # a look at all there is
    eventually(app.sidecar.settled, what="the last one")
    assert app.generation == before + 3


@pytest.mark.parametrize("settle", ["0s", "500ms"])
def test_a_child_starts_once_all_is_rendered(app, consul, consul_server, tmp_path: Path, settle: str):
    notes = tmp_path / "notes"
    script = "import sys, time; open(sys.argv[1], 'w').write(open('a.conf').read() + open('b.conf').read()); time.sleep(600)"
    target = {"kind": "exec", "command": ["sh", "-c", f'cd {tmp_path}/app/live && exec {sys.executable} -c "{script}" {notes}']}
    app = app(
        consul=at(consul),
        sources=TWO_KEYS,
        files={"a.conf": "{{ a }}", "b.conf": "{{ b }}"},
        target=target,
        timing={"min_interval": "0s", "settle": settle, "settle_max": "2s"},
    ).start()
    consul_server.put("one/a", "A")
    eventually(lambda: app.source("a")["up"], what="the first of two")
    assert app.sidecar.pipeline()["target"]["pid"] is None
    assert not notes.exists()
    consul_server.put("two/b", "B")

    eventually(lambda: notes.exists() and notes.read_text() == "AB", what="the child")


def test_once_starts_no_child(app, consul, consul_server, tmp_path: Path):
    """It lays out what the child will find; who runs the child is the sidecar."""
    consul_server.put("one/a", "A")
    notes = tmp_path / "notes"
    target = {"kind": "exec", "command": ["touch", str(notes)]}
    app = app(consul=at(consul), sources={"a": TWO_KEYS["a"]}, files={"app.conf": "{{ a }}"}, target=target)
    assert app.once().returncode == 0
    assert app.published() == "A"
    assert not notes.exists()


# Quiet times


def test_the_quiet_time_of_50_ms_is_bounded_by_250_ms():
    """It acts 50 ms after one change; another one after 25 ms puts that off; ever more of them never beyond 250 ms."""
    pace = Pace(settle=0.05, settle_max=0.25, min_interval=0.0)

    def acts(*changes: float) -> float:
        return round(pace.due(changes[0], changes[-1], whole=False, last_reload=None), 3)

    assert acts(0.0) == 0.05
    assert acts(0.0, 0.025) == 0.075
    assert acts(*(0.025 * tick for tick in range(100))) == 0.25


def test_changes_within_the_quiet_time_are_one_generation(app, consul, consul_server):
    """At a larger scale, since a busy machine may put 50 ms between any two steps."""
    for key in ("one/a", "two/b"):
        consul_server.put(key, "1")
    timing = {"min_interval": "0s", "settle": "1s", "settle_max": "5s"}
    app = app(consul=at(consul), sources=TWO_KEYS, files={"app.conf": "{{ a }}{{ b }}"}, timing=timing).start()
    app.shows("11")
    before = app.generation
    consul_server.put("one/a", "2")
    consul_server.put("two/b", "2")
    app.shows("22")

    assert app.generation == before + 1


def test_a_key_that_never_rests_is_published_all_the_same(app, consul, consul_server):
    """Its quiet time never comes, the longest wait does."""
    consul_server.put("one/a", "0")
    timing = {"min_interval": "0s", "settle": "30s", "settle_max": "500ms"}
    app = app(consul=at(consul), sources={"a": TWO_KEYS["a"]}, files={"app.conf": "{{ a }}"}, timing=timing).start()
    app.shows("0")
    writes = iter(range(1, 10_000))

    def write_and_look() -> bool:
        consul_server.put("one/a", str(next(writes)))
        return app.generation >= 3

    eventually(write_and_look, within=20, what="two generations while it changes")


# What only shows


def test_a_dry_run_prints_and_changes_nothing(app, consul, consul_server):
    """The text of files is shown, masked where it could be a secret; nothing is on the disk."""
    consul_server.put("one/a", "A")
    app = app(consul=at(consul), sources={"a": TWO_KEYS["a"]}, files={"app.conf": "greeting = {{ a }}"})
    done = app.once("--dry-run")

    assert done.returncode == 0
    assert "app.conf" in done.stdout
    assert "+greeting = A" in done.stdout
    assert not app.live.exists()


def test_a_check_of_the_configuration_touches_no_network(app, consul, vault):
    sources = {"a": TWO_KEYS["a"], "db": {"kind": "vault", "path": "secret/app"}}
    auth = {"token": "unused"}
    app = app(consul=at(consul), vault=at(vault) | {"auth": auth}, sources=sources, files={"app.conf": "{{ a }}{{ db.password }}"})
    assert reloader("check", app.file).returncode == 0
    assert consul.asked == vault.asked == []

    app.write(files={"app.conf": "{{ a "})
    assert reloader("check", app.file).returncode == 2
    assert consul.asked == vault.asked == []


def test_what_needs_no_server_is_rendered_without_one(app, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GREETING", "hello")
    app = app(sources={"own": {"kind": "env", "names": ["GREETING"]}}, files={"app.conf": "{{ own.GREETING }}"}).start()
    app.shows("hello")
    assert eventually(app.sidecar.ready)


def test_a_single_key_is_rendered(app, consul, consul_server):
    consul_server.put("one/a", "A")
    app = app(consul=at(consul), sources={"a": TWO_KEYS["a"]}, files={"app.conf": "{{ a }}"}).start()
    app.shows("A")
    assert eventually(app.sidecar.ready)


# Commands

COMMANDS: dict[str, tuple[list[str], bool]] = {
    "single": (["true"], True),
    "single, failing": (["false"], False),
    "words are words": (["test", "a | b && c $HOME", "=", "a | b && c $HOME"], True),
    "shell quoting": (["sh", "-c", "test \"$1\" = 'a  b'", "sh", "a  b"], True),
    "pipe": (["sh", "-c", "echo one | grep -q one"], True),
    "conditional": (["sh", "-c", 'if test -s "$0/app.conf"; then exit 0; fi; exit 1', "{staged}"], True),
    "and": (["sh", "-c", "true && false"], False),
    "or": (["sh", "-c", "false || true"], True),
    "background": (["sh", "-c", "sleep 4 & exit 0"], True),
    "background, in a session of its own": (["setsid", "--fork", "sleep", "4"], True),
    "environment": (["sh", "-c", 'test "$GIVEN" = x'], True),
}
"""Whether each lets the set through; the peers run theirs after a render, ours is the check before the publish."""


def test_commands_are_run_as_they_are_written(tmp_path: Path):
    """As a list of words, and through a shell only where a shell is named; with our environment, but for what a source reads of it."""
    for number, (command, _) in enumerate(COMMANDS.values()):
        volume = {
            "path": str(tmp_path / f"live-{number}"),
            "files": {"app.conf": {"content": "x"}},
            "check": {"command": command, "timeout": "2s"},
        }
        text = {"sources": {"own": {"kind": "env", "names": ["OTHER"]}}, "volume": volume, "target": {"kind": "none"}}
        (tmp_path / f"app-{number}.yaml").write_text(json.dumps(text))
    ended = reloader("once", *sorted(tmp_path.glob("*.yaml")), env={"GIVEN": "x", "OTHER": "x"})

    passed = {name: (tmp_path / f"live-{number}/app.conf").exists() for number, name in enumerate(COMMANDS)}
    assert passed == {name: expected for name, (_, expected) in COMMANDS.items()}, ended.stderr
    assert ended.returncode == 1


def test_a_command_of_nothing_is_refused(app):
    app = app(sources={"own": {"kind": "env", "names": ["PATH"]}}, files={"app.conf": "x"})
    app.write(volume={"path": str(app.live), "files": {"app.conf": {"content": "x"}}, "check": {"command": []}})
    refused = reloader("check", app.file)
    assert refused.returncode == 2
    assert "volume.check.command" in refused.stderr
