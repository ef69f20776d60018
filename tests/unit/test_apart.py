"""The process that loads the configuration in the place of the sidecar: it says the same, and leaves nothing and tells nothing."""

import gc
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest

from reloader import settings
from reloader.plan import Plan
from reloader.settings import apart
from reloader.settings.apart import Loading
from reloader.world.children import Children
from tests.bad_configs import bad_configs
from tests.unit.test_hardening import NOBODY, needs_root, seen_by_another
from tests.waiting import eventually

WHOLE = """\
vault: {address: https://vault:8200, tls: {ca_file: /ca.pem}, auth: {token: CANARY-plan}}
consul: {address: http://consul:8500, token: CANARY-plan}
sources:
  site: {kind: files, path: /etc/site, parse: json, on_failure: open, max_staleness: never}
  routes: {kind: consul, prefix: a/, hold: 5s}
  db: {kind: vault, path: secret/app, write: {ttl: 1h, times: 3, renewed: true}}
  tools: {kind: env, names: [HOME]}
volume:
  path: /srv/live
  files:
    a.json: {content: "{{ db.a }}", mode: "0600", owner: "1000"}
  check: {command: [cat, "{staged}"], timeout: 5s, builtin: [json, {max_change: 50%}]}
target: {match: {name: nginx, uid: 0}, signal: USR1, verify: {http: "http://localhost/", body: "^ok", json: {a: [1, null]}, status: 204}}
timing: {settle: 1s}
failure: {mode: closed, when_closed: [withdraw, {stop_target: QUIT}], max_staleness: never}
server: {listen: "127.0.0.1:9", details: all}
state: {path: /run/reloader}
log: {level: debug, format: logfmt}
"""


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.yaml"
    path.write_text(WHOLE)
    return path


def asked(*files: Path, environ: Mapping[str, str] | None = None) -> apart.Asked:
    return files, (), "", None, {**os.environ, **(environ or {})}


def loaded(*files: Path, environ: Mapping[str, str] | None = None) -> Plan:
    return Loading(asked(*files, environ=environ), Children()).plan()


def failure(loading: Loading) -> str:
    with pytest.raises(ChildProcessError) as failed:
        loading.plan()
    return str(failed.value)


def test_the_plan_is_the_same(whole):
    """Every kind of value that a plan can hold comes over, and the environment counts as it does here."""
    environ = {"RELOADER_TIMING__SPLAY": "7s", "CONSUL_HTTP_TOKEN": "not used"}
    plan = loaded(whole, environ=environ)
    assert plan == settings.find(*asked(whole, environ=environ))[0]
    assert plan.pipelines[0].timing.splay == 7


def test_the_kinds_of_sources_are_told_before_it_is_known_whether_they_are_right(whole):
    told: list[frozenset[str]] = []
    Loading(asked(whole), Children()).plan(told.append)
    whole.write_text("sources: {a: {kind: consul}, b: {kind: [vault]}, c: {kind: nothing}, d: vault}")
    with pytest.raises(settings.ConfigurationInvalid):
        Loading(asked(whole), Children()).plan(told.append)
    assert told == [{"files", "consul", "vault", "env"}, {"consul", "nothing"}]


def test_so_is_that_of_a_pipeline_without_a_file(tmp_path):
    without = ((), (str(tmp_path),), "nginx", "USR2", {})
    assert Loading(without, Children()).plan() == settings.find(*without)[0]


def test_the_mistakes_are_the_same():
    """All of them at their places, of every configuration that is refused."""
    files = [each.path for each in bad_configs()]
    with pytest.raises(settings.ConfigurationInvalid) as here:
        settings.find(*asked(*files))
    with pytest.raises(settings.ConfigurationInvalid) as there:
        loaded(*files)
    assert there.value.mistakes == here.value.mistakes
    assert str(there.value) == str(here.value)


@pytest.mark.parametrize("file", ["whole.yaml", "missing.yaml"])
def test_it_leaves_nothing(whole, file):
    """No process and no descriptor, whether there is a plan or not."""
    gc.collect()
    children, before = Children(), descriptors()
    loading = Loading(asked(whole.parent / file), children)
    with nullcontext() if file == whole.name else pytest.raises(settings.ConfigurationInvalid):
        loading.plan()
    with pytest.raises(ProcessLookupError):
        os.kill(loading.pid, 0)
    assert descriptors() <= before  # what was there may be collected meanwhile
    with children.forking() as ours:
        assert ours == set()


def descriptors() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


def test_one_that_is_killed_is_told(tmp_path):
    os.mkfifo(tmp_path / "waits.yaml")
    loading = Loading(asked(tmp_path / "waits.yaml"), Children())
    os.kill(loading.pid, 9)
    told = "the configuration cannot be loaded: the process that does it was ended by SIGKILL; "
    assert failure(loading) == f"{told}is there memory for it, some 40 MiB for a moment?"


def test_one_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "waits.yaml")
    monkeypatch.setattr(apart, "LONGEST", 0.5)
    loading = Loading(asked(tmp_path / "waits.yaml"), Children())
    assert failure(loading) == "the configuration cannot be loaded: it takes longer than 0.5 s"
    with pytest.raises(ProcessLookupError):
        os.kill(loading.pid, 0)


def test_one_that_cannot_be_started_is_told(whole, monkeypatch):
    monkeypatch.setattr(apart, "PROGRAM", "/no/such/python")
    with pytest.raises(ChildProcessError, match="cannot be loaded: No such file or directory"):
        Loading(asked(whole), Children())


def test_a_mistake_of_ours_is_told_without_its_text(whole, tmp_path, monkeypatch):
    (tmp_path / "pydantic.py").write_text("raise KeyError('CANARY')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert failure(Loading(asked(whole), Children())).startswith("internal error: KeyError in settings/model.py:")


@needs_root
@pytest.mark.parametrize("name", ["VAULT_TOKEN", "PASSWORD"])
def test_nothing_secret_is_on_its_command_line_or_in_its_environment(tmp_path, monkeypatch, name):
    """What it is told, it is told through the socket: also what no name gives away as secret."""
    monkeypatch.setenv(name, "CANARY")
    os.mkfifo(tmp_path / "waits.yaml")
    loading = Loading(asked(tmp_path / "waits.yaml"), Children())
    try:
        of_it = Path(f"/proc/{loading.pid}")
        command = eventually((of_it / "cmdline").read_text, what="the command line")
        environment = eventually((of_it / "environ").read_text, what="the environment")
    finally:
        os.kill(loading.pid, 9)
        failure(loading)
    assert "reloader.settings" in command
    assert "CANARY" not in command + environment
    assert str(tmp_path) not in command


@needs_root
def test_it_is_closed_to_its_own_user_before_it_knows_anything():
    """One that waits for the question is closed already: neither its environment nor its memory can be seen, nor the socket taken."""
    ours, theirs = socket.socketpair()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with ours, theirs, subprocess.Popen([*NOBODY, sys.executable, "-P", "-c", apart.CODE], stdin=theirs, env=env) as child:
        try:
            eventually(lambda: set(seen_by_another(child.pid).values()) == {False}, what="that it is closed")
        finally:
            child.kill()
