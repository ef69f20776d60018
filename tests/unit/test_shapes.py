"""JSON of the wrong shape where an answer should be: taken or refused, and never a mistake of ours that names neither server nor path."""

import copy
import json
from collections.abc import Callable, Iterator
from math import isfinite, isnan
from typing import Any

import pytest

from reloader.backends.consul import Backend as Consul, Since
from reloader.backends.consul.reads import Fold, Key, Nodes, Prefix, Read, Service, Services
from reloader.backends.reads import Fetched, ReadFailed
from reloader.backends.turns import Turns
from reloader.backends.vault import Backend as Vault, Secret, Write
from reloader.plan import Consul as ConsulPlan, Vault as VaultPlan, VaultAuth
from reloader.world import World
from tests.servers.misbehaving import Exchange, Misbehaving, html, misbehaving

JUNK = (None, True, -1, 0, 1e400, float("nan"), 10**400, "", "CANARY", [], [None], {}, {"a": None}, [[["CANARY"]]])
WORLD = World()


def spoilt(body: Any) -> Iterator[Any]:
    """Return all that differs from an answer in one place, and holds junk there."""
    yield from JUNK
    for name in list(body) if isinstance(body, dict) else range(len(body)) if isinstance(body, list) else ():
        for worse in spoilt(body[name]):
            changed = copy.copy(body)
            changed[name] = worse
            yield changed


def written(body: Any) -> bytes:
    return json.dumps(body).replace("Infinity", "1e400").encode()


def taken_or_refused(server: Misbehaving, read: Callable[[], Fetched]) -> None:
    try:
        fetched = read()
    except ReadFailed as failed:
        told = str(failed)
        assert told.startswith(f"{server.address}: ")
        assert "CANARY" not in told
    else:
        assert fetched.due > World().clock.now()
        assert not isnan(fetched.due)
        assert not isnan(fetched.reading.current_until)
        assert fetched.reading.expires is None or isfinite(fetched.reading.expires)


AUTH = {"client_token": "s.one", "accessor": "a", "lease_duration": 100, "renewable": True, "num_uses": 0, "token_type": "service"}
LEASE = {"lease_id": "pki/issue/web/1", "lease_duration": 100, "renewable": True}
VERSION = {"version": 3, "created_time": "then", "deletion_time": "", "destroyed": False}
VAULT: dict[str, Any] = {
    "auth/userpass/login/ann": {"auth": AUTH, "data": None},
    "auth/token/lookup-self": {
        "data": {"accessor": "a", "ttl": 100, "expire_time": "then", "creation_ttl": 100, "period": 0, "renewable": True, "num_uses": 0}
    },
    "sys/internal/ui/mounts/kv/app": {"data": {"path": "kv/", "type": "kv", "options": {"version": "2"}}},
    "sys/internal/ui/mounts/database/static-creds/app": {"data": {"path": "database/", "type": "database", "options": None}},
    "sys/capabilities-self": {"data": {"kv/metadata/app": ["read"]}},
    "kv/data/app": {"data": {"data": {"password": "x"}, "metadata": VERSION}},
    "kv/metadata/app": {"data": {"current_version": 3, "versions": {"3": VERSION}}},
    "database/static-creds/app": {"data": {"password": "x", "ttl": 5, "rotation_period": 10}},
    "pki/issue/web": {**LEASE, "data": {"certificate": "x", "expiration": 9999999999}},
    "sys/leases/renew": LEASE | {"data": None},
}


class Later(World().clock.__class__):
    """The machine's clock, some seconds later."""

    later = 0.0

    def now(self) -> float:
        return super().now() + self.later


def reads_of_vault(server: Misbehaving, path: str, password: str) -> None:
    """Read all that a client reads: logged in for the login, with a token for the rest; then what is due again."""
    clock = Later()
    world = World(clock=clock)
    userpass = VaultAuth(method="userpass", username="ann", password_file=password)
    auth = VaultAuth(token_file=password) if path == "auth/token/lookup-self" else userpass
    plan = VaultPlan(address=server.address, auth=auth)
    backend = Vault(plan, Turns(plan.address, plan.max_connections, world), world)
    try:
        for read in (Secret("kv/app"), Secret("database/static-creds/app"), Write("pki/issue/web", "{}")):
            taken_or_refused(server, lambda read=read: backend.fetch(read, None, 0))
        taken_or_refused(server, lambda: backend.fetch(Secret("kv/app"), backend.fetch(Secret("kv/app"), None, 0).state, 0))
        clock.later = 67
        taken_or_refused(server, lambda: backend.fetch(Write("pki/issue/web", "{}"), None, 0))
    finally:
        backend.close()


@pytest.mark.parametrize("path", VAULT)
def test_no_shape_of_an_answer_of_vault_is_a_mistake_of_ours(path, tmp_path):
    password = tmp_path / "password"
    password.write_text("s.password")
    with misbehaving(html) as server:
        for body in spoilt(VAULT[path]):
            answers = VAULT | {path: body}

            def behave(exchange: Exchange, answers: dict[str, Any] = answers) -> None:
                exchange.answer(written(answers[exchange.path.removeprefix("/v1/")]))

            server.behave = behave
            reads_of_vault(server, path, str(password))


KEYS = [{"Key": "app/flags", "Value": "eA==", "Flags": 0, "ModifyIndex": 7}]
INSTANCE = {
    "Node": {"Node": "n", "Address": "10.0.0.1"},
    "Service": {"ID": "web-1", "Address": "", "Port": 80, "Tags": ["a"], "Meta": {"b": "c"}},
}
CONSUL: list[tuple[Read, Any]] = [
    (Key("app/flags"), KEYS),
    (Prefix("app/"), KEYS),
    (Fold("app/"), KEYS),
    (Service("web"), [INSTANCE, INSTANCE]),
    (Services(), {"web": ["a"]}),
    (Nodes(), [{"Node": "n", "Address": "10.0.0.1"}]),
]


@pytest.mark.parametrize(("read", "body"), CONSUL, ids=lambda each: str(each) if isinstance(each, Read) else "")
def test_no_shape_of_an_answer_of_consul_is_a_mistake_of_ours(read, body):
    with misbehaving(html) as server:
        backend = _consul(server)
        for worse in spoilt(body):
            server.behave = lambda exchange, worse=worse: exchange.answer(written(worse), X_Consul_Index="7")
            taken_or_refused(server, lambda: backend.fetch(read, None, 0))
        backend.close()


@pytest.mark.parametrize("name", ["X_Consul_Index", "X_Consul_LastContact", "X_Consul_KnownLeader", "Retry_After"])
@pytest.mark.parametrize("text", ["", "-1", "-9e99", "nan", "inf", "1e999", "9" * 5000, "CANARY", "\u00b2", "0x7"])
def test_no_header_of_consul_is_a_mistake_of_ours(name, text):
    with misbehaving(html) as server:
        backend = _consul(server)
        for status in (200, 429, 503):
            headers = {"X_Consul_Index": "7", name: text}
            server.behave = lambda exchange, headers=headers, status=status: exchange.answer(KEYS, status=status, **headers)
            for state in (None, Since(7, token=0)):
                taken_or_refused(server, lambda state=state: backend.fetch(Key("app/flags"), state, 0.01))
        backend.close()


def _consul(server: Misbehaving) -> Consul:
    plan = ConsulPlan(address=server.address)
    backend = Consul(plan, Turns(plan.address, plan.max_connections, WORLD), WORLD)
    backend.is_wanted = lambda read: True
    return backend
