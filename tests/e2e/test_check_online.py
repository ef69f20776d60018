"""`reloader check --online`: what each source says now, without a value, and without leaving anything behind at the server."""

from pathlib import Path

import pytest

from reloader import online as online_module
from reloader.world import World
from tests.e2e.hours import loaded
from tests.e2e.sidecar import reloader
from tests.servers.consul import Consul
from tests.servers.misbehaving import hang, misbehaving
from tests.waiting import eventually

pytestmark = pytest.mark.servers

CANARY = "canary-online-3d81f0"
RIGHTS = """
path "secret/data/*" { capabilities = ["read"] }
path "pki/issue/any" { capabilities = ["update"] }
path "database/creds/*" { capabilities = ["read"] }
"""
REVOKES = 'path "sys/leases/revoke" { capabilities = ["update"] }'


def configured(folder: Path, sources: dict[str, str], servers: str) -> Path:
    lines = "".join(f"  {name}: {{{text}}}\n" for name, text in sources.items())
    file = folder / "pod.yaml"
    file.write_text(f"{servers}\nsources:\n{lines}target: {{kind: none}}\n")
    return file


def told(file: Path, name: str) -> str:
    """Return what is told of a source; nothing of any value is."""
    answer = reloader("check", "--online", file)
    assert CANARY not in answer.stdout + answer.stderr
    return next(line for line in answer.stdout.splitlines() if f" {name}: " in line and line.split()[0] in {"answers", "FAILED"})


def vault(openbao, token: str) -> str:
    return f"vault: {{address: '{openbao.address}', auth: {{token: {token}}}}}"


def test_names_types_and_versions_are_told_and_no_value(tmp_path, openbao, consul_server: Consul):
    """Of files, variables, secrets, folders, services and keys."""
    openbao.enable("kv", "secret", version="2")
    for _ in range(2):
        openbao.put_kv2("secret", "app", {"password": CANARY, "port": 5432, "deep": {CANARY: CANARY}})
    consul_server.put("app/flags", CANARY)
    consul_server.put("app/json", f'{{"secret": "{CANARY}", "numbers": [1]}}')
    consul_server.register("web", port=8001, meta={"note": CANARY})
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount" / "tls.key").write_text(CANARY)
    sources = {
        "db": "kind: vault, path: secret/app",
        "flags": "kind: consul, key: app/flags",
        "parsed": "kind: consul, key: app/json, parse: json",
        "folder": "kind: consul, prefix: app/",
        "web": "kind: consul, service: web",
        "mount": f"kind: files, path: {tmp_path / 'mount'}",
    }
    file = configured(tmp_path, sources, f"{vault(openbao, openbao.policy_token(RIGHTS))}\nconsul: {{address: '{consul_server.address}'}}")
    answer = reloader("check", "--online", file)
    said = {line.split()[1].rstrip(":"): line for line in answer.stdout.splitlines() if line.split()[:1] == ["answers"]}

    assert CANARY not in answer.stdout + answer.stderr
    assert said["db"].endswith("a mapping of 3 (deep: mapping of 1, password: text, port: number); version 2")
    assert "text; index " in said["flags"]
    assert "a mapping of 2 (numbers: list of 1, secret: text)" in said["parsed"]
    assert "a mapping of 2 (flags: text, json: text)" in said["folder"]
    assert "a list of 1, each with id, address, port, tags, meta, node" in said["web"]
    assert "a mapping of 1 (tls.key: text)" in said["mount"]
    assert answer.returncode == 0


def test_what_all_sources_take_together_is_bounded(tmp_path, monkeypatch):
    """Of a server that hangs, however many there are: what is not begun in time is not asked."""
    monkeypatch.setattr(online_module, "ANSWERS_WITHIN", 0.0)
    with misbehaving(hang) as server:
        sources = "".join(f"  s{number}: {{kind: vault, path: secret/s{number}}}\n" for number in range(3))
        pipeline = loaded(
            f"vault: {{address: '{server.address}', auth: {{token: {CANARY}}}}}\nsources:\n{sources}target: {{kind: none}}\n", tmp_path
        )
        seen = online_module.online(pipeline, World())

    assert [(each.name, each.good) for each in seen] == [(f"s{number}", False) for number in range(3)]
    assert all("no answer within" in each.told for each in seen)
    assert not server.exchanges


def test_a_source_that_fails_is_told_and_is_a_failure(tmp_path, openbao, consul_server: Consul):
    """The others are read all the same; what is empty is told, and refused where items are asked for."""
    openbao.enable("kv", "secret", version="2")
    sources = {
        "missing": "kind: vault, path: secret/missing",
        "denied": "kind: vault, path: other/app",
        "empty": "kind: consul, prefix: nothing/",
        "few": "kind: consul, prefix: nothing/, min_items: 1",
    }
    file = configured(tmp_path, sources, f"{vault(openbao, openbao.policy_token(RIGHTS))}\nconsul: {{address: '{consul_server.address}'}}")
    answer = reloader("check", "--online", file)

    assert answer.returncode == 1
    assert "FAILED   missing: refused: " in answer.stdout
    assert "FAILED   denied: refused: " in answer.stdout
    assert "answers  empty: an empty mapping; index" in answer.stdout
    assert "FAILED   few: refused: an answer with 0 items" in answer.stdout
    assert reloader("check", file).returncode == 0


def test_a_server_that_is_down_is_told_within_its_deadline(tmp_path):
    file = configured(tmp_path, {"db": "kind: vault, path: secret/app"}, "vault: {address: 'http://127.0.0.1:1', auth: {token: t}}")

    assert "FAILED   db: unreachable: http://127.0.0.1:1" in told(file, "db")


def test_what_is_issued_is_revoked(tmp_path, openbao, database):
    """Its lease, its names and its end are told; nobody has that user afterwards."""
    path = database.role(openbao, "once", ttl="1h", max_ttl="2h")
    file = configured(tmp_path, {"db": f"kind: vault, path: {path}"}, vault(openbao, openbao.policy_token(RIGHTS + REVOKES)))
    line = told(file, "db")

    assert "a mapping of 2 (password: text, username: text); issued for 3600 s; expires in 3" in line
    assert line.split()[0] == "answers"
    assert len(openbao.audit(path)) == 1
    eventually(lambda: database.minted() == set(), what="the end of what was revoked")  # the server does that in its own time


def test_what_could_not_be_revoked_is_not_issued(tmp_path, openbao, database):
    path = database.role(openbao, "unasked", ttl="1h", max_ttl="2h")
    file = configured(tmp_path, {"db": f"kind: vault, path: {path}"}, vault(openbao, openbao.policy_token(RIGHTS)))

    assert "the token may read there; nothing was issued, since it may not revoke that" in told(file, "db")
    assert openbao.audit(path) == []
    assert database.minted() == set()


def test_what_a_login_gave_ends_with_its_token(tmp_path, openbao, database):
    """The token that was had for the check is revoked, and what hangs on it."""
    path = database.role(openbao, "app", ttl="1h", max_ttl="2h")
    openbao.client().sys.enable_auth_method("approle")
    openbao.client().sys.create_or_update_policy("online", RIGHTS)
    openbao.write("auth/approle/role/pod", token_policies="online")
    role_id = openbao.client().read("auth/approle/role/pod/role-id")["data"]["role_id"]
    secret_id = tmp_path / "secret-id"
    secret_id.write_text(openbao.write("auth/approle/role/pod/secret-id")["data"]["secret_id"])
    servers = f"vault: {{address: '{openbao.address}', auth: {{method: approle, role_id: {role_id}, secret_id_file: {secret_id}}}}}"
    before = len(openbao.audit("auth/token/revoke-self"))

    assert "issued for 3600 s" in told(configured(tmp_path, {"db": f"kind: vault, path: {path}"}, servers), "db")
    assert len(openbao.audit("auth/token/revoke-self")) > before
    eventually(lambda: database.minted() == set(), what="the end of what hung on the token")


def test_a_path_that_issues_is_not_written(tmp_path, openbao):
    """What the policy says is told instead, whether it is yes or no."""
    openbao.pki("pki", "tests root")
    before = len(openbao.audit("pki/issue/any", "pki/issue/other"))
    sources = {
        "tls": "kind: vault, path: pki/issue/any, write: {common_name: localhost}",
        "other": "kind: vault, path: pki/issue/other, write: {common_name: localhost}",
    }
    file = configured(tmp_path, sources, vault(openbao, openbao.policy_token(RIGHTS)))

    assert "answers  tls: the token may write there; nothing was issued" in told(file, "tls")
    assert 'path "pki/issue/other" { capabilities = ["update"] }' in told(file, "other")
    assert openbao.audit("pki/issue/any", "pki/issue/other")[before:] == []


def test_a_wrapped_secret_id_is_left_for_the_sidecar(tmp_path, openbao):
    """It can be unwrapped once only."""
    secret_id = tmp_path / "secret-id"
    secret_id.write_text(CANARY)
    auth = f"{{method: approle, role_id: r, secret_id_file: {secret_id}, secret_id_wrapped: true}}"
    file = configured(tmp_path, {"db": "kind: vault, path: secret/app"}, f"vault: {{address: '{openbao.address}', auth: {auth}}}")

    assert "not asked: the secret_id is wrapped" in told(file, "db")
