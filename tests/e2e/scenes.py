"""What a story of the failure table is made of: a situation of the README, a scene, and the table of the stories.

A story is told in moments: each `yield` is one that must come to be seen as the README's table says. After the last one the cause is gone.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.failing import House, Moment
from tests.e2e.sidecar import PROGRAM, Sidecar
from tests.faults.pod import Mounts
from tests.servers.consul import Consul
from tests.servers.openbao import OpenBao
from tests.servers.postgres import Postgres

WELL = "all is well"
STARTING = "at the start, nothing is published yet, within `startup_grace`"
NOTHING = "the same, `startup_grace` is over"
REFUSED_FIRST = "the same, because a check or the target refused the first set of all"
FALLBACK = "`failure.fallback` is published, because nothing else ever was"
FALLBACK_REFUSED = "the same, and a check or the target refused the first set of all"
EARLIER_YOUNG = "at the start, a set of an earlier run is there, its sources younger than `max_staleness`"
EARLIER_OLD = "the same, a source older"
SOURCE_YOUNG = "a source cannot be read or is refused, its value younger than `max_staleness`"
SOURCE_OLD = "the same, older"
RUN_OUT = "the lease or the certificate of a source has run out"
REJECTED = "rendering or the check rejects new content; what is published stays"
UNWRITABLE = "the volume, or its record alone, cannot be written (full, read-only, something foreign in the way)"
NOT_TAKEN = "at the start, the volume is read-only, or its record cannot be read, as after a change of the UID; what is published stays"
TAKEN_BACK = "the target refuses a set; the one before is back on the volume, and confirmed"
NO_WAY_BACK = "the target refuses what is published, and there is nothing good to go back to"
WITHDRAWN = "it closed before and withdrew what was published, and nothing good came since"
BY_HAND = "a person put an earlier generation back"
ABSENT = "the target does not run"
UNDER_WAY = "a reload is under way"
TROUBLED = "the target cannot be told from others, may not be signalled, ignores the signal, or does not confirm"

Story = Iterator[Moment]


class Scene:
    """Where a story takes place: the house, and the real servers that it asks for."""

    def __init__(self, folder: Path, mode: str, ask: Callable[[str], Any]) -> None:
        self.folder, self.mode, self._ask = folder, mode, ask
        self.house = House(folder, mode)

    @property
    def is_open(self) -> bool:
        return self.mode == "open"

    def consul(self, *, own: bool = False, **settings: Any) -> Consul:
        """Have the house read its text from a Consul: `settings` are of the source beside its key."""
        server: Consul = self._ask("own_consul" if own else "consul_server")
        self.house.config |= {"consul": {"address": server.address}}
        self.house.config["sources"]["site"] = {"kind": "consul", "key": "app/text", **settings}
        self.house.config["volume"]["files"]["app.conf"]["content"] = "{{ site }}"
        self.house.say = lambda text: server.put("app/text", text)  # type: ignore[method-assign]
        self.house.say("one")
        return server

    def vault(self, *, own: bool = False) -> OpenBao:
        """Have the house read its text from an OpenBao, with a token that may do just that."""
        server: OpenBao = self._ask("own_openbao" if own else "openbao")
        server.enable("kv", "secret", version="2")
        self.vault_token(server, 'path "secret/data/app" { capabilities = ["read"] }')
        self.house.config["sources"]["site"] = {"kind": "vault", "path": "secret/app", "poll": "200ms"}
        self.house.say = lambda text: server.put_kv2("secret", "app", {"text": text})  # type: ignore[method-assign]
        self.house.say("one")
        return server

    def vault_token(self, server: OpenBao, policy: str) -> None:
        server.client().sys.create_or_update_policy("table", policy)
        token = server.client().auth.token.create(policies=["table"], ttl="1h")["auth"]["client_token"]
        self.house.config["vault"] = {"address": server.address, "auth": {"token": token}}

    def database(self) -> Postgres:
        server: Postgres = self._ask("_shared_postgres")
        return server

    def nginx(self, conf: Path) -> Any:
        return self._ask("nginx")(self.folder / "server", conf)

    def tmpfs(self) -> Mounts:
        """Move the house to where its volume is a tmpfs of 400 KiB."""
        mounts: Mounts = self._ask("mounts")
        self.house = House(self.folder, self.mode, enter=mounts.enter, seen_from=mounts.seen(Path("/")))
        return mounts

    def close(self) -> None:
        self.house.close()


@dataclass(frozen=True)
class Case:
    """One case of the table."""

    situations: tuple[str, ...]
    story: Callable[[Scene], Story]
    varies: bool
    """Whether other cases show the same under both modes: then the short form tells it under one of them."""


class Cases(dict[str, Case]):
    """Stories by their names; `case` adds one."""

    def case(self, *situations: str, varies: bool = False) -> Callable[[Callable[[Scene], Story]], Callable[[Scene], Story]]:
        """Add a story, in which these situations come."""

        def add(story: Callable[[Scene], Story]) -> Callable[[Scene], Story]:
            self.add(story.__name__, Case(situations, story, varies))
            return story

        return add

    def add(self, name: str, case: Case) -> None:
        name = name.replace("_", " ")
        assert name not in self
        self[name] = case


def refuse_by_check(house: House) -> None:
    """Have a check that refuses whatever has `bad` in it."""
    house.config["volume"]["check"] = {"command": ["grep", "-qv", "bad", "{staged}/app.conf"]}


def without_rights(house: House) -> None:
    """Let the sidecar be root without a capability, as a Pod has it that drops all."""
    if os.geteuid() != 0:
        pytest.skip("takes root to become another user")
    setpriv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    house.sidecar = Sidecar(house.folder / "sidecar", house.file, program=[*setpriv, *PROGRAM])
