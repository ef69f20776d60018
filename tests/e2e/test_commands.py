"""The command line as users run it: what each command does, says, and leaves with."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import psutil
import pytest

from reloader import __version__
from reloader.world.processes import TICK
from tests.bad_configs import DIRECTORY, BadConfig, bad_configs
from tests.e2e.app import App, heard, process
from tests.e2e.sidecar import reloader
from tests.kubelet import KubeletVolume
from tests.servers.ports import free_port
from tests.targets.started import unique
from tests.waiting import eventually

REFUSED = Path(__file__).with_name("refused.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that never answers; whether somebody came can be seen."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


# What is refused


REFUSALS = [*(("check", bad) for bad in bad_configs()), *(("run", bad) for bad in bad_configs()[::10])]
"""Some with `run`, each of which takes a process of its own; that this one says the same of all of them is tested where it is."""


@pytest.fixture(scope="module")
def refusals() -> dict[tuple[str, Path], dict[str, object]]:
    """What came of every bad configuration with `check`, and of some with `run`."""
    calls = [(command, bad.path) for command, bad in REFUSALS]
    given = json.dumps([[command, str(path)] for command, path in calls])
    ended = subprocess.run([sys.executable, str(REFUSED)], input=given, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    return dict(zip(calls, json.loads(ended.stdout), strict=True))


@pytest.mark.parametrize(("command", "bad"), REFUSALS, ids=lambda each: each if isinstance(each, str) else each.path.stem)
def test_a_bad_configuration_is_refused_before_anything_starts(refusals, command: str, bad: BadConfig):
    """Status 2, every mistake told and no other, and no thread, connection or child."""
    refused = refusals[command, bad.path]
    assert refused["status"] == 2
    assert bad.unexpected(refused["said"].splitlines()[1:]) == ([], [])
    assert refused["did"] == []


def test_the_observer_sees_what_a_good_configuration_leads_to(app):
    """What finds nothing in refusals would find something: `once` starts threads."""
    given = json.dumps([["once", str(app.file)], ["check", str(app.file)]])
    ended = subprocess.run([sys.executable, str(REFUSED)], input=given, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    once, check = json.loads(ended.stdout)
    assert (once["status"], check["status"]) == (0, 0)
    assert "thread" in once["did"]
    assert check["did"] == []


@pytest.mark.parametrize("command", ["check", "run", "once"])
def test_a_refused_configuration_never_comes_near_its_backend(tmp_path, silent, command):
    """The real command, with a backend that would notice."""
    file = tmp_path / "app.yaml"
    file.write_text(f"consul: {consul(silent)}\nsources: {{a: {{kind: consul, key: a}}}}\ntargett: {{kind: none}}\n")
    refused = reloader(command, file)
    assert refused.returncode == 2
    assert f"{file}:3:1: targett: unknown key" in refused.stderr
    assert "target" in refused.stderr
    assert refused.stdout == ""
    with pytest.raises(BlockingIOError):
        silent.accept()


@pytest.mark.parametrize("stem", ["typos", "empty", "syntax_error"])
def test_check_and_run_say_the_same_of_a_bad_file(stem):
    said = {command: reloader(command, DIRECTORY / f"{stem}.yaml") for command in ("check", "run")}
    assert [each.returncode for each in said.values()] == [2, 2]
    assert said["check"].stderr == said["run"].stderr


def test_the_mistakes_of_two_files_are_told_together(app, tmp_path):
    other = App(tmp_path, "other")
    other.write(volume="{path: /x}")
    refused = reloader("check", app.file, DIRECTORY / "typos.yaml", other.file)
    assert refused.returncode == 2
    assert f"{DIRECTORY}/typos.yaml:" in refused.stderr
    assert f"{other.file}:" in refused.stderr


# check


def test_check_lists_what_is_read_written_and_signalled(app):
    app.write(target=process("nginx", signal="USR1"))
    checked = reloader("check", app.file)
    assert checked.returncode == 0
    assert f"site: files path {app.site.path}" in checked.stdout
    assert f"{app.live}/app.conf" in checked.stdout
    assert "nginx" in checked.stdout
    assert "USR1" in checked.stdout
    assert checked.stderr == ""
    assert not app.live.exists()


def test_check_shows_values_as_they_are_written(app, silent):
    app.write(consul=consul(silent), reads="{kind: consul, service: web, passing: false, hold: 90s}", content='"{{ site | length }}"')
    assert "site: consul service web, passing false, hold 90s\n" in reloader("check", app.file).stdout


def test_check_touches_no_backend(app, silent):
    app.write(consul=consul(silent), reads="{kind: consul, key: a}")
    assert reloader("check", app.file).returncode == 0
    with pytest.raises(BlockingIOError):
        silent.accept()


# once


def test_once_publishes_signals_nobody_and_frees_the_lock(app, start):
    name = unique()
    target = start.target(name)
    app.write(target=process(name))
    assert reloader("once", app.file).returncode == 0
    assert app.published() == "one"
    app.say("two")
    assert reloader("once", app.file).returncode == 0
    assert app.published() == "two"
    assert target.end() == []


def test_what_once_published_is_confirmed_by_the_run_after_it(app, start, sidecar):
    """An init container and the sidecar after it share the volume's record: a target between them has read it already."""
    name = unique()
    app.write(target=process(name))
    assert reloader("once", app.file).returncode == 0
    target = start.target(name)
    running = sidecar(app.file)
    eventually(running.settled, what="the target to be verified")
    assert target.end() == []


def test_once_fails_when_a_source_never_answers(app, silent):
    """Exit 1 after the grace, which source it was, and no volume with half a set."""
    app.write(consul=consul(silent), reads="{kind: consul, key: a}", failure="{startup_grace: 1s}")
    failed = reloader("once", app.file)
    assert failed.returncode == 1
    assert "source site: it has not answered yet" in failed.stderr
    assert app.published() is None
    assert accepted(silent)

    preview = reloader("once", "--dry-run", app.file)
    assert (preview.returncode, preview.stdout) == (1, "")
    assert "source site: it has not answered yet" in preview.stderr


def test_once_fails_when_a_source_is_not_there(app):
    app.write(reads="{kind: files, path: /nowhere}", failure="{startup_grace: 1s}")
    for arguments in ((), ("--dry-run",)):
        failed = reloader("once", *arguments, app.file)
        assert failed.returncode == 1
        assert "source site: refused: /nowhere does not exist" in failed.stderr


def test_once_fails_when_the_check_says_no(app):
    app.write(volume=f"{{path: {app.live}, files: {{a: {{content: x}}}}, check: {{command: ['false']}}}}")
    failed = reloader("once", app.file)
    assert failed.returncode == 1
    assert "reloader: app: check command 'false' ended with status 1" in failed.stderr
    assert not (app.live / "a").exists()


def test_a_dry_run_shows_the_diff_and_writes_nothing(app):
    preview = reloader("once", "--dry-run", app.file)
    assert preview.returncode == 0
    assert "+++ b/app.conf" in preview.stdout
    assert "+one" in preview.stdout
    assert not app.live.exists()


def test_a_dry_run_of_what_is_published_shows_nothing(app):
    """Also where files name the directory of their generation, which would be another one."""
    app.write(content="{{ generation }} {{ site['text'] }}")
    reloader("once", app.file)
    before = sorted((path, path.lstat().st_mtime_ns) for path in app.live.rglob("*"))
    preview = reloader("once", "--dry-run", app.file)
    assert (preview.returncode, preview.stdout) == (0, "nothing would change\n")
    app.say("two")
    changed = reloader("once", "--dry-run", app.file).stdout
    assert f"-{app.live}/..1 ********\n" in changed  # what was secret of the old set, nobody knows any more
    assert f"+{app.live}/..1 two\n" in changed
    assert sorted((path, path.lstat().st_mtime_ns) for path in app.live.rglob("*")) == before


def test_a_dry_run_masks_secrets_and_needs_no_lock(app, sidecar):
    """Beside a running sidecar; both the old secret and the new one are hidden, and the change is not."""
    app.write(reads="{kind: env, names: [PASSWORD]}", content="user=web password={{ site.PASSWORD }}")
    sidecar(app.file, PASSWORD="canary-old")
    eventually(lambda: app.published() == "user=web password=canary-old", what="the first publish")
    preview = reloader("once", "--dry-run", app.file, env={"PASSWORD": "canary-new"})
    assert preview.returncode == 0
    assert preview.stdout.count("user=web password=********") == 2
    assert "canary" not in preview.stdout + preview.stderr
    assert app.published() == "user=web password=canary-old"


def test_a_dry_run_that_cannot_be_rendered_says_why(app):
    app.write(content="{{ site['text'] + 1 }}")
    failed = reloader("once", "--dry-run", app.file)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "app.conf" in failed.stderr
    assert "Traceback" not in failed.stderr


# run: the volume, the port, the end


def test_a_second_one_on_the_same_volume_leaves_and_says_who_has_it(app, sidecar):
    first = sidecar(app.file)
    for command in (("run", "--listen", "off"), ("once",)):
        second = reloader(*command, app.file)
        assert second.returncode == 3
        assert f"{app.live} is held by another reloader: process {first.pid} on {socket.gethostname()}" in second.stderr
    assert first.running


def test_a_port_in_use_is_told(app, silent):
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    failed = reloader("run", "--listen", address, app.file)
    assert failed.returncode == 1
    assert f"cannot listen on {address}: Address already in use; set server.listen" in failed.stderr


def test_an_address_that_is_no_name_is_told_as_the_resolver_tells_it(app):
    failed = reloader("run", "--listen", "nobody.invalid:9533", app.file)
    assert failed.returncode == 1
    assert failed.stderr.startswith("reloader: cannot listen on nobody.invalid:9533: ")
    assert "Unknown error" not in failed.stderr


def test_it_leaves_during_a_verification_and_the_next_run_asks_again(app, start, sidecar):
    """SIGTERM cuts the wait short, status 0; what was owed is still owed."""
    name = unique()
    target = start.target(name, "--workers", "2", "--refuse", expect="workers")
    target.hear("up")
    app.write(target=process(name, verify="{workers: true, within: 60s}"))
    first = sidecar(app.file)
    assert "SIGHUP" in heard(target)
    eventually(lambda: first.pipeline()["owed"] == "owed: being verified", what="the verification")

    os.kill(first.pid, signal.SIGTERM)
    eventually(lambda: not first.running, within=5, what="its end")
    assert first.status == 0

    sidecar(app.file)
    assert "SIGHUP" in heard(target)


def test_it_leaves_while_a_source_hangs_and_a_check_runs(app, sidecar, silent, tmp_path):
    """Nothing that waits for somebody else holds up the end, and no child stays behind."""
    pid_file = tmp_path / "check.pid"
    command = json.dumps(["sh", "-c", f"echo $$ > {pid_file}; exec sleep 60"])
    app.write(volume=f"{{path: {app.live}, files: {{a: {{content: x}}}}, check: {{command: {command}, timeout: 60s}}}}")
    hanging = App(tmp_path, "hanging")
    hanging.write(consul=consul(silent), reads="{kind: consul, key: a}")
    running = sidecar(app.file, hanging.file)
    child = int(eventually(pid_file.read_text, what="the check"))
    eventually(lambda: accepted(silent), what="the read")

    os.kill(running.pid, signal.SIGTERM)
    eventually(lambda: not running.running, within=8, what="its end")
    assert running.status == 0
    eventually(lambda: not psutil.pid_exists(child), what="the end of the check")


def consul(listening: socket.socket) -> str:
    """Return the configuration of a Consul at this socket."""
    return f"{{address: 'http://127.0.0.1:{listening.getsockname()[1]}'}}"


def accepted(listening: socket.socket) -> bool:
    connection, _ = listening.accept()
    connection.close()
    return True


# run without a file


def watching(folder: Path) -> KubeletVolume:
    mounted = KubeletVolume(folder / "mounted")
    mounted.swap({"app.conf": "one"})
    return mounted


def next_tick() -> None:
    """Return when a process that is started now is younger than what happened until now, as far as its start time tells."""
    now = time.monotonic()
    eventually(lambda: time.monotonic() > now + 2 * TICK)


QUICK = {"RELOADER_TARGET__VERIFY__WITHIN": "100ms", "RELOADER_TIMING__MIN_INTERVAL": "0s"}


def test_watch_and_signal_needs_no_file(tmp_path, start, sidecar):
    """A target that is younger than the content has read it: no signal at the start, then one for each swap."""
    mounted, name = watching(tmp_path), unique()
    next_tick()
    target = start.target(name)
    running = sidecar("--watch", str(mounted.path), "--process", name, **QUICK)
    eventually(running.settled, what="the start of the target to be verified")
    for text in ("two", "three"):
        number = running.pipeline()["generations"]["published"]
        mounted.swap({"app.conf": text})
        assert heard(target) == "signal SIGHUP"
        eventually(lambda number=number: running.settled() and running.pipeline()["generations"]["published"] > number, what=text)
    assert running.metric("reloader_reloads_total") == 2
    assert target.end() == []


def test_watch_and_signal_asks_a_target_that_is_older_than_the_content(tmp_path, start, sidecar):
    """Once: it may not have read what was mounted after it started."""
    name = unique()
    target = start.target(name)
    mounted = watching(tmp_path)
    running = sidecar("--watch", str(mounted.path), "--process", name, "--signal", "USR1", **QUICK)
    assert heard(target) == "signal SIGUSR1"
    eventually(running.settled, what="the reload to be verified")
    assert target.end() == []


def test_the_variables_of_another_sidecar_are_understood(tmp_path, start, sidecar):
    mounted, name = watching(tmp_path), unique()
    next_tick()
    target = start.target(name)
    running = sidecar(CONFIG_DIR=str(mounted.path), PROCESS_NAME=name, RELOAD_SIGNAL="SIGUSR2", **QUICK)
    eventually(running.settled, what="the start of the target to be verified")
    mounted.swap({"app.conf": "two"})
    assert heard(target) == "signal SIGUSR2"


def test_no_configuration_at_all_is_told():
    refused = reloader("run", env={"RELOADER_CONFIG": ""})
    assert refused.returncode == 2
    assert "no configuration: name a file" in refused.stderr


# status


def test_status_shows_what_the_running_one_knows(app, start, sidecar):
    name = unique()
    target = start.target(name)
    app.write(target=process(name))
    running = sidecar(app.file)
    eventually(running.settled, what="the reload")
    table = reloader("status", "--address", f"127.0.0.1:{running.port}")
    assert table.returncode == 0
    assert "app  ready (fail-open)" in table.stdout
    assert f"target   process pid {target.pid}" in table.stdout
    assert "site (files)  current" in table.stdout

    whole = reloader("status", "--json", "--address", f"127.0.0.1:{running.port}")
    assert whole.returncode == 0
    document = json.loads(whole.stdout)
    jsonschema.validate(document, json.loads((ROOT / "docs/status.schema.json").read_text()))
    assert document["pipelines"][0]["generations"] == {"desired": 1, "published": 1, "confirmed": 1}


def test_status_finds_the_address_in_the_configuration(app, sidecar):
    running = sidecar(app.file)
    app.write(server=f"{{listen: '127.0.0.1:{running.port}'}}")
    eventually(running.ready, what="readiness")
    assert "app  ready" in reloader("status", app.file).stdout


def test_status_fails_while_something_may_not_be_relied_on(app, sidecar):
    app.write(reads="{kind: files, path: /nowhere}")
    running = sidecar(app.file)
    eventually(lambda: running.pipeline()["sources"], what="a report")
    shown = reloader("status", "--address", f"127.0.0.1:{running.port}")
    assert shown.returncode == 1
    assert "app  not ready" in shown.stdout
    assert "/nowhere does not exist" in shown.stdout


@pytest.mark.parametrize("what", ["nobody", "a stranger", "off"])
def test_status_says_when_nobody_can_be_asked(app, silent, what):
    address = {"nobody": f"127.0.0.1:{free_port()}", "a stranger": "localhost:notaport", "off": None}[what]
    app.write(server="{listen: 'off'}")
    failed = reloader("status", *(["--address", address] if address else [app.file]))
    assert failed.returncode == 1
    assert failed.stderr.startswith("reloader: ")
    assert "server.listen" in failed.stderr
    assert failed.stderr.count("\n") == 1


# Several pipelines


def test_a_pipeline_with_a_dead_backend_holds_up_no_other(tmp_path, silent, sidecar):
    app, dead = App(tmp_path), App(tmp_path, "dead")
    dead.write(consul=f"{{address: 'http://127.0.0.1:{silent.getsockname()[1]}'}}", reads="{kind: consul, key: a}", content="{{ site }}")
    running = sidecar(dead.file, app.file)
    eventually(lambda: app.published() == "one", what="the first publish")
    app.say("two")
    eventually(lambda: app.published() == "two", what="a change")
    assert running.get("/readyz/app").status_code == 200
    assert running.get("/readyz/dead").status_code == 503
    assert running.get("/readyz").status_code == 503
    assert running.get("/healthz").status_code == 200
    assert dead.published() is None


def test_version():
    shown = reloader("--version")
    assert (shown.returncode, shown.stdout) == (0, f"reloader {__version__}\n")


@pytest.mark.parametrize("command", ["once", "run"])
def test_an_owner_that_is_unknown_here_is_refused_at_the_start(tmp_path: Path, command: str):
    """`check` accepts it: it may run on another machine than the Pod."""
    site = tmp_path / "site"
    site.mkdir()
    configuration = tmp_path / "app.yaml"
    configuration.write_text(
        f"sources: {{site: {{kind: files, path: {site}}}}}\n"
        f"volume: {{path: {tmp_path}/live, files: {{app.conf: {{content: a, owner: nobody-of-that-name}}}}}}\n"
        "target: {kind: none}\n"
    )

    assert reloader("check", configuration).returncode == 0
    refused = reloader(command, configuration)

    assert refused.returncode == 2
    assert "app: volume.files.app.conf: owner 'nobody-of-that-name' is unknown in this container: write its number" in refused.stderr
    assert not (tmp_path / "live").exists()
