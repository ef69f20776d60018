"""The own configuration, taken live: what is equal runs on, what is bad is refused, and a restart would find nothing else."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import pytest

from tests.e2e.app import App, heard, process
from tests.e2e.sidecar import Sidecar, reloader
from tests.kubelet import KubeletVolume
from tests.servers.counting import Counting
from tests.targets.started import unique
from tests.waiting import eventually


def taken(running: Sidecar) -> int:
    """Return how often a change was taken."""
    return sum(line.get("message") == "configuration taken" for line in running.lines())


def refused(running: Sidecar) -> list[str]:
    """Return what is wrong with the configuration on the disk, as the metric and the status say alike."""
    told = running.get("/status").json()["configuration"]
    assert told["successful"] == (not told["mistakes"])
    return list(told["mistakes"]) if running.metric("reloader_config_reload_successful") == 0 else []


class Probing(threading.Thread):
    """Asks a probe over and over, and keeps what was not good."""

    def __init__(self, running: Sidecar, *paths: str) -> None:
        super().__init__(daemon=True)
        self._running, self._paths, self._over = running, paths, threading.Event()
        self.bad: list[tuple[str, int, str]] = []
        self.asked = 0

    def run(self) -> None:
        while not self._over.wait(0.02):  # seldom enough to leave a slow machine its time
            for path in self._paths:
                answer = self._running.get(path)
                self.asked += 1
                if answer.status_code != 200:
                    self.bad.append((path, answer.status_code, answer.text))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


# What is equal runs on


def test_a_pipeline_that_is_equal_is_not_touched_by_a_change_of_another(tmp_path, start, sidecar):
    """Its thread is the same, its target stays held by the same pidfd and gets no signal, and it is ready all the time."""
    name = unique()
    target = start.target(name)
    app, other = App(tmp_path), App(tmp_path, "other")
    app.write(target=process(name))
    running = sidecar(app.file, other.file)
    assert heard(target) == "signal SIGHUP"
    eventually(lambda: running.settled("app"), what="the reload")
    before = held(running, target.pid)
    assert before
    with Probing(running, "/readyz/app", "/startupz", "/healthz") as probes:
        for number in range(5):
            other.write(content=f"changed {number}")
            eventually(lambda number=number: other.published() == f"changed {number}", what="the change of the other")
    assert probes.bad == []
    assert probes.asked
    assert held(running, target.pid) == before
    assert running.metric("reloader_reloads_total", pipeline="app") == 1
    app.say("two")
    assert heard(target) == "signal SIGHUP"
    assert target.end() == []


def held(running: Sidecar, pid: int) -> set[tuple[str, str]]:
    """Return the descriptors by which the sidecar holds a process: number, and identity of the pidfd."""
    found = set()
    for info in Path(f"/proc/{running.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if f"\nPid:\t{pid}\n" in info.read_text():
                found.add((info.name, str(Path(f"/proc/{running.pid}/fd/{info.name}").readlink())))
    return found


@pytest.mark.parametrize("volume", [True, False], ids=["on a volume", "watch and signal"])
def test_a_changed_pipeline_does_not_ask_its_target_again(app, start, sidecar, volume):
    """What was confirmed is confirmed, also where nothing but the process remembers it."""
    name = unique()
    target = start.target(name)
    app.say("one and a half")  # without a volume, one that started after the last change has read it
    more = {} if volume else {"volume": "null"}
    app.write(target=process(name), **more)
    running = sidecar(app.file)
    assert heard(target) == "signal SIGHUP"
    eventually(running.settled, what="the reload")
    with Probing(running, "/readyz/app", "/startupz") as probes:
        app.write(target=process(name, verify="{alive: true, within: 200ms}"), failure="{mode: closed}", **more)
        eventually(lambda: running.pipeline()["mode"] == "closed" and running.settled(), what="the change")
    assert probes.bad == []
    assert running.metric("reloader_reloads_total") == 1
    app.say("two")
    assert heard(target) == "signal SIGHUP"
    assert target.end() == []


def test_a_target_that_is_being_verified_is_not_asked_twice(app, start, sidecar):
    """The change waits for its answer."""
    name = unique()
    target = start.target(name)
    app.write(target=process(name, verify="{alive: true, within: 1500ms}"))
    running = sidecar(app.file)
    assert heard(target) == "signal SIGHUP"
    app.write(target=process(name, verify="{alive: true, within: 100ms}"), failure="{mode: closed}")
    eventually(lambda: running.pipeline()["mode"] == "closed" and running.settled(), what="the change")
    assert running.metric("reloader_reloads_total") == 1
    assert target.end() == []


def test_target_signal_and_failure_are_taken_live(app, start, sidecar):
    """Another process, another signal: the new target is asked for what it has not read, and the old one is left alone."""
    first, second = unique(), unique()
    one, two = start.target(first), start.target(second)
    app.write(target=process(first))
    running = sidecar(app.file)
    assert heard(one) == "signal SIGHUP"
    eventually(running.settled, what="the reload")
    app.write(target=process(second, signal="USR1"))
    assert heard(two) == "signal SIGUSR1"
    eventually(lambda: running.settled() and running.pipeline()["target"]["pid"] == two.pid, what="the other target")
    assert one.end() == []


def test_log_holds_at_once(app, sidecar):
    """The level of the file; that of the command line would win."""
    running = Sidecar(app.file.parent / "own", app.file)
    running._daemon.start(
        [*map(str, running._program), "run", str(app.file), "--listen", f"127.0.0.1:{running.port}"],
        ready=lambda: running.get("/metrics").ok,
    )
    try:
        app.write(log="{level: debug, format: logfmt}")
        eventually(lambda: 'message="configuration taken"' in running.log(), what="the change")
    finally:
        running.stop()


# Vault and Consul


@pytest.mark.servers
def test_unchanged_sources_cost_vault_no_login_and_no_lease(tmp_path, openbao, sidecar):
    """One login and one certificate, however often the pipeline changes around them; the audit log is the witness."""
    pki = openbao.pki("pki", "root")
    openbao.client().sys.enable_auth_method("userpass")
    openbao.client().sys.create_or_update_policy("own", f'path "{pki.issue}" {{ capabilities = ["update"] }}')
    openbao.write("auth/userpass/users/me", password="secret", token_policies="own")
    (tmp_path / "password").write_text("secret")
    app = App(tmp_path)
    auth = f"{{method: userpass, username: me, password_file: {tmp_path}/password}}"
    given = {
        "vault": f"{{address: '{openbao.address}', auth: {auth}}}",
        "reads": f"{{kind: vault, path: {pki.issue}, write: {{common_name: a.example, ttl: 1h}}}}",
    }
    app.write(**given, content="0 {{ site.serial_number }}")
    running = sidecar(app.file)
    eventually(lambda: (app.published() or "").startswith("0 "), what="the first publish")
    serial = str(app.published()).split()[1]
    for number in range(1, 6):
        app.write(**given, content=f"{number} {{{{ site.serial_number }}}}")
        eventually(lambda number=number: app.published() == f"{number} {serial}", what="the change")
    app.file.rename(tmp_path / "renamed.yaml")
    eventually(lambda: refused(running), what="a refusal")
    (tmp_path / "renamed.yaml").rename(app.file)
    eventually(lambda: not refused(running), what="the mended configuration")
    assert len(openbao.audit("auth/userpass/login")) == 1
    assert len(openbao.audit(pki.issue)) == 1


def connections(running: Sidecar, address: str) -> set[int]:
    """Return the sidecar's own ports of its connections to a server."""
    port = int(address.rpartition(":")[2])
    return {each.laddr.port for each in psutil.Process(running.pid).net_connections() if each.raddr and each.raddr.port == port}


@pytest.mark.servers
def test_a_good_change_is_taken_without_a_restart(tmp_path, consul_server, sidecar):
    """The same process, and the source keeps its connection, with the query on it that waits for news."""
    app = App(tmp_path)
    consul_server.put("greeting", "hello")
    app.write(consul=f"{{address: '{consul_server.address}'}}", reads="{kind: consul, key: greeting}", content="{{ site }}")
    running = sidecar(app.file)
    eventually(lambda: app.published() == "hello", what="the first publish")
    eventually(running.ready, what="readiness")
    pid, before = running.pid, connections(running, consul_server.address)
    assert len(before) == 1

    app.write(consul=f"{{address: '{consul_server.address}'}}", reads="{kind: consul, key: greeting}", content="{{ site }}, world")
    eventually(lambda: app.published() == "hello, world", what="the new content")
    consul_server.put("greeting", "good morning")
    eventually(lambda: app.published() == "good morning, world", what="a change after it")
    assert running.pid == pid
    assert running.running
    assert connections(running, consul_server.address) == before
    assert running.metric("reloader_config_reload_successful") == 1


@pytest.mark.servers
def test_an_unchanged_blocking_query_is_not_asked_again(tmp_path, consul_server, sidecar):
    """Beside it a source comes and goes; the query that waits for news stays the one it was, and brings the next change."""
    consul_server.put("one", "1")
    consul_server.put("two", "2")
    counting = Counting(consul_server.address)
    app = App(tmp_path)
    consul, reads = f"{{address: '{counting.address}'}}", "{kind: consul, key: one}"
    app.write(consul=consul, reads=reads, content="{{ site }}")
    running = sidecar(app.file)
    eventually(lambda: app.published() == "1", what="the first publish")
    sources = f"{{site: {reads}, other: {{kind: consul, key: two}}}}"
    app.write(consul=consul, sources=sources, content="{{ site }} {{ other }}")
    eventually(lambda: app.published() == "1 2", what="another source")
    app.write(consul=consul, reads=reads, content="{{ site }} again")
    eventually(lambda: app.published() == "1 again", what="its end")
    assert len([seen for seen in counting.requests() if seen.path == "/v1/kv/one"]) == 1, "all but the first are the query that waits"
    consul_server.put("one", "3")
    eventually(lambda: app.published() == "3 again", what="a change after it")
    assert running.running
    counting.refuse()


def test_no_change_of_a_source_is_lost_in_a_change_of_the_configuration(app, sidecar):
    """Both change at once, over and over; what is published ends with the last of both."""
    running = sidecar(app.file)
    eventually(running.ready, what="readiness")
    with Probing(running, "/readyz/app", "/startupz") as probes:
        for number in range(20):
            app.say(f"text {number}")
            app.write(content=f"{number} {{{{ site['text'] }}}}")
        eventually(lambda: app.published() == "19 text 19", what="the last of both")
    assert probes.bad == []


# Pipelines come, go and change their names


def test_pipelines_are_added_and_removed(tmp_path, sidecar):
    """A file that comes into the directory is noticed at once, and one that goes; the process stays started."""
    folder = tmp_path / "configurations"
    folder.mkdir()
    app, other = App(tmp_path), App(tmp_path, "other")
    app.file = app.file.rename(folder / "app.yaml")
    running = sidecar(RELOADER_CONFIG=str(folder))
    eventually(lambda: running.get("/startupz").ok, what="the start")
    with Probing(running, "/readyz/app", "/startupz") as probes:
        other.file = other.file.rename(folder / "other.yaml")
        eventually(lambda: other.published() == "one", what="the new pipeline")
        eventually(lambda: running.get("/readyz/other").ok, what="its readiness")
        other.file.rename(tmp_path / "other.yaml")
        eventually(lambda: running.get("/readyz/other").status_code == 404, what="its end")
    assert probes.bad == []
    assert [each["name"] for each in running.get("/status").json()["pipelines"]] == ["app"]
    other.say("two")
    app.say("two")
    eventually(lambda: app.published() == "two", what="a change of what is left")
    assert other.published() == "one"


def test_a_pipeline_under_another_name_takes_over_the_volume(app, start, sidecar):
    """With what is confirmed on it: nobody is asked again, and the next change goes through."""
    name = unique()
    target = start.target(name)
    app.write(target=process(name))
    running = sidecar(app.file)
    assert heard(target) == "signal SIGHUP"
    eventually(running.settled, what="the reload")
    app.write(target=process(name), name="renamed")
    eventually(lambda: running.settled("renamed"), what="the new name")
    assert running.get("/readyz/app").status_code == 404
    assert running.metric("reloader_reloads_total", pipeline="renamed") == 0
    app.say("two")
    assert heard(target) == "signal SIGHUP"
    assert target.end() == []
    assert "held by another" not in running.log()


def test_a_slow_end_of_the_old_holds_up_neither_the_new_name_nor_the_others(tmp_path, sidecar):
    """The volume is handed over when the check that runs has ended; meanwhile the other pipeline changes and is changed."""
    app, other = App(tmp_path), App(tmp_path, "other")
    gate = tmp_path / "gate"
    command = json.dumps(["sh", "-c", f"while ! test -e {gate}; do sleep 0.02; done"])
    volume = f"{{path: {app.live}, files: {{app.conf: {{content: x}}}}, check: {{command: {command}, timeout: 60s}}}}"
    app.write(volume=volume)
    running = sidecar(app.file, other.file)
    eventually(lambda: other.published() == "one", what="the other")
    app.write(volume=volume, name="renamed")
    other.write(content="changed {{ site['text'] }}")
    eventually(lambda: other.published() == "changed one", what="a change of the other")
    other.say("two")
    eventually(lambda: other.published() == "changed two", what="another change of it")
    assert app.published() is None
    gate.touch()
    eventually(lambda: app.published() == "x", what="the handover")
    eventually(lambda: running.get("/readyz/renamed").ok, what="its readiness")


# Where it comes from


def test_a_mounted_configmap_is_taken_by_each_swap(tmp_path, sidecar):
    """Two pipelines in one ConfigMap, with their template: one swap is one change."""
    app, other = App(tmp_path), App(tmp_path, "other")
    mounted = KubeletVolume(tmp_path / "mounted")

    def swap(number: int) -> None:
        app.write(volume=f"{{path: {app.live}, files: {{app.conf: {{template: {mounted.path}/app.j2}}}}}}")
        other.write(content=f"{number}")
        mounted.swap({"app.yaml": app.file.read_text(), "other.yaml": other.file.read_text(), "app.j2": f"{number} {{{{ site['text'] }}}}"})

    swap(0)
    running = sidecar(mounted.path)
    for number in range(5):
        swap(number)
        eventually(lambda number=number: (app.published(), other.published()) == (f"{number} one", str(number)), what="the swap")
    assert refused(running) == []
    assert not [line for line in running.lines() if line.get("level") == "error"]


BAD: dict[str, Callable[[App, Path], None]] = {
    "an unknown key": lambda app, _: app.write(tarrget="{kind: none}"),
    "vanished": lambda app, _: app.file.unlink(),
    "empty": lambda app, _: app.file.write_text(""),
    "half written": lambda app, _: app.file.write_text(app.file.read_text()[:-30]),
    "not YAML": lambda app, _: app.file.write_text("a: [b"),
    "not text": lambda app, _: app.file.write_bytes(b"\xff\xfe\x00"),
    "a directory": lambda app, _: (app.file.unlink(), app.file.mkdir()),
    "a link to itself": lambda app, _: (app.file.unlink(), app.file.symlink_to(app.file)),
    "a link to nothing": lambda app, _: (app.file.unlink(), app.file.symlink_to("nothing")),
    "an owner that is unknown": lambda app, _: app.write(
        volume=f"{{path: {app.live}, files: {{app.conf: {{content: a, owner: nobody-here}}}}}}"
    ),
    "a template with a mistake": lambda app, _: app.write(content="{% if %}"),
    "a template that is not there": lambda app, _: app.write(
        volume=f"{{path: {app.live}, files: {{app.conf: {{template: /nowhere/a.j2}}}}}}"
    ),
    "another volume": lambda app, tmp: app.write(volume=f"{{path: {tmp}/elsewhere, files: {{app.conf: {{content: x}}}}}}"),
    "another port": lambda app, _: app.write(server="{details: all}"),
    "another state": lambda app, tmp: app.write(state=f"{{path: {tmp}/state}}"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_change_is_refused_until_it_is_mended(app, sidecar, tmp_path, bad):
    """The old configuration runs on, the refusal is told as `check` tells it, and the right file mends it by itself."""
    running = sidecar(app.file)
    eventually(running.ready, what="readiness")
    with Probing(running, "/readyz/app", "/startupz", "/healthz") as probes:
        BAD[bad](app, tmp_path)
        mistakes = eventually(lambda: refused(running), what="the refusal")
        app.say("two")
        eventually(lambda: app.published() == "two", what="a change under the old configuration")
    assert probes.bad == []
    assert all(mistake in running.log() for mistake in mistakes)
    if not mistakes[0].endswith("that needs a restart") and "owner" not in bad:
        assert set(mistakes) <= set(reloader("check", app.file).stderr.splitlines())
    if app.file.is_dir():
        app.file.rmdir()
    else:
        app.file.unlink(missing_ok=True)
    app.write(content="mended {{ site['text'] }}")
    eventually(lambda: app.published() == "mended two", what="the mended configuration")
    eventually(lambda: not refused(running), what="the metric")
    assert not (tmp_path / "elsewhere").exists()


def test_what_needs_a_restart_is_named(app, sidecar, tmp_path):
    running = sidecar(app.file)
    eventually(running.ready, what="readiness")
    app.write(
        server="{details: all}", state=f"{{path: {tmp_path}/s}}", volume=f"{{path: {tmp_path}/e, files: {{app.conf: {{content: x}}}}}}"
    )
    restart = eventually(lambda: refused(running), what="the refusal")
    keys = ("server.details", "state.path", "volume.path of app")
    assert restart == [f"{key} changed: that needs a restart" for key in keys]
    assert "not taken; the old one runs on until a restart" in running.log()


def test_a_configuration_that_is_put_back_is_no_change(app, sidecar):
    """The metric heals, and nothing is made anew."""
    running = sidecar(app.file)
    eventually(running.ready, what="readiness")
    good = app.file.read_text()
    app.file.write_text("nonsense: true\n")
    eventually(lambda: refused(running), what="the refusal")
    app.file.write_text(good)
    eventually(lambda: not refused(running), what="the healing")
    assert taken(running) == 0


def test_a_directory_that_is_emptied_and_filled_again(tmp_path, sidecar):
    app, folder = App(tmp_path), tmp_path / "configurations"
    folder.mkdir()
    app.file = app.file.rename(folder / "app.yaml")
    running = sidecar(folder)
    eventually(running.ready, what="readiness")
    text = app.file.read_text()
    app.file.unlink()
    assert eventually(lambda: refused(running), what="the refusal") == [f"{folder}: no *.yaml in this directory"]
    folder.rmdir()
    app.say("two")
    eventually(lambda: app.published() == "two", what="a change under the old configuration")
    folder.mkdir()
    app.file.write_text(text)
    eventually(lambda: not refused(running), what="the healing")


def test_an_override_that_is_wrong_with_the_new_file_is_told(app, sidecar):
    app.write(vault="{address: 'http://localhost:1'}")
    running = sidecar(app.file, RELOADER_VAULT__ADDRESS="http://localhost:2")
    eventually(running.ready, what="readiness")
    app.write(vault="{address: 'http://localhost:1', auth: {method: bogus}}")
    eventually(lambda: "vault.auth.method" in str(refused(running)), what="the refusal")  # first of all it may be seen half written


def test_a_template_that_became_wrong_would_not_survive_a_restart(app, sidecar, tmp_path):
    """The pipeline keeps what is published, and the configuration says what a start would say."""
    template = tmp_path / "templates" / "app.j2"
    template.parent.mkdir()
    template.write_text("1 {{ site['text'] }}")
    app.write(volume=f"{{path: {app.live}, files: {{app.conf: {{template: {template}}}}}}}")
    running = sidecar(app.file)
    eventually(lambda: app.published() == "1 one", what="the first publish")
    template.write_text("2 {% if %}")
    mistakes = eventually(lambda: refused(running), what="the refusal")
    assert set(mistakes) <= set(reloader("check", app.file).stderr.splitlines())
    assert app.published() == "1 one"
    template.write_text("3 {{ site['text'] }}")
    eventually(lambda: app.published() == "3 one", what="the mended template")
    eventually(lambda: not refused(running), what="the healing")


def test_a_thousand_quick_changes_cost_little_and_end_with_the_last(app, sidecar):
    """Each is written in place or moved there; some of them are nonsense."""
    running = sidecar(app.file)
    eventually(running.ready, what="readiness")
    process_ = psutil.Process(running.pid)
    threads = process_.num_threads()
    began = time.monotonic()
    with Probing(running, "/healthz") as probes:
        for number in range(1000):
            if number % 3 == 2:
                app.file.write_text("nonsense: [")
            else:
                app.write(content=f"{number} {{{{ site['text'] }}}}")
        app.write(content="last {{ site['text'] }}")
        eventually(lambda: app.published() == "last one", what="the last")
    eventually(lambda: not refused(running), what="the metric")
    assert probes.bad == []
    assert taken(running) <= time.monotonic() - began + 2, "one a second at most"
    eventually(lambda: process_.num_threads() <= threads + 2, what="no thread left behind")


# What cannot be started


def test_a_new_pipeline_whose_volume_is_anothers_does_not_end_the_others(tmp_path, sidecar):
    """It is not ready until the volume is free, and neither is the configuration good: a start would be refused."""
    folder = tmp_path / "configurations"
    folder.mkdir()
    app, other = App(tmp_path), App(tmp_path, "other")
    app.file = app.file.rename(folder / "app.yaml")
    holder = sidecar(other.file)
    running = sidecar(RELOADER_CONFIG=str(folder))
    eventually(running.ready, what="readiness")
    other.write(timing="{resync: 1s}")
    other.file.rename(folder / "other.yaml")
    eventually(lambda: any("held by another" in reason for reason in running.pipeline("other")["reasons"]), what="the new pipeline")
    assert "held by another" in str(eventually(lambda: refused(running), what="the metric"))
    app.say("two")
    eventually(lambda: app.published() == "two", what="a change of the old one")
    assert holder.running
    holder.stop()
    eventually(lambda: running.get("/readyz/other").ok, what="the free volume")
    eventually(lambda: not refused(running), what="the metric")


# Signals


@pytest.mark.servers
def test_sighup_asks_for_a_look_at_once(tmp_path, openbao, sidecar):
    """A polled source is read long before its next poll."""
    openbao.enable("kv", "secret", version="2")
    openbao.put_kv2("secret", "app", {"user": "alice"})
    app = App(tmp_path)
    vault = f"{{address: '{openbao.address}', auth: {{token: {openbao.root_token}}}}}"
    app.write(vault=vault, reads="{kind: vault, path: secret/app, poll: 9h}", content="{{ site.user }}", failure="{max_staleness: never}")
    running = sidecar(app.file)
    eventually(lambda: app.published() == "alice", what="the first publish")
    openbao.put_kv2("secret", "app", {"user": "bob"})
    os.kill(running.pid, signal.SIGHUP)
    eventually(lambda: app.published() == "bob", what="the look")
    assert running.running


def test_sighup_tries_refused_content_again(app, sidecar, tmp_path):
    allowed = tmp_path / "allowed"
    check = json.dumps(["test", "-e", str(allowed)])
    app.write(
        volume=f"{{path: {app.live}, files: {{app.conf: {{content: x}}}}, check: {{command: {check}}}}}", failure="{retry_refused: never}"
    )
    running = sidecar(app.file)
    eventually(lambda: running.pipeline()["rejected"], what="the refusal")
    allowed.touch()
    os.kill(running.pid, signal.SIGHUP)
    eventually(lambda: app.published() == "x", what="the retry")


@pytest.mark.servers
def test_a_storm_of_sighups_is_one_look_a_second(tmp_path, openbao, sidecar):
    """And the process does its work meanwhile."""
    openbao.enable("kv", "secret", version="1")
    openbao.write("secret/app", user="alice")
    app, counting = App(tmp_path), Counting(openbao.address)
    vault = f"{{address: '{counting.address}', auth: {{token: {openbao.root_token}}}}}"
    app.write(vault=vault, reads="{kind: vault, path: secret/app, poll: 9h}", content="{{ site.user }}", failure="{max_staleness: never}")
    running = sidecar(app.file)
    eventually(lambda: app.published() == "alice", what="the first publish")
    before, began = reads_of(counting), time.monotonic()
    for _ in range(2000):
        os.kill(running.pid, signal.SIGHUP)
    assert running.get("/healthz").ok
    eventually(lambda: reads_of(counting) > before, what="a look")
    passed = time.monotonic() - began
    assert reads_of(counting) - before <= passed + 2
    counting.refuse()


def reads_of(counting: Counting) -> int:
    return sum(seen.path.endswith("/secret/app") for seen in counting.requests())
