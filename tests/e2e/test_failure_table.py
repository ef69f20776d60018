"""The failure table, a case a row and more, for both modes: something fails, is told, and heals by itself.

What is expected is the README's own table. A case is a story: each `yield` is a moment that must come to be seen as that table says; after
the last one the cause is gone, and the newest content arrives.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
import requests

from reloader.status.metrics import FAILURES
from tests.e2e.failing import TOLD, Application, House, Moment, fill, make_read_only, small_volume
from tests.e2e.sidecar import PROGRAM, Sidecar, reloader
from tests.faults.pod import Mounts
from tests.scale import rounds
from tests.servers.consul import Consul
from tests.servers.nginx import HTTP_DEFAULTS
from tests.servers.openbao import OpenBao
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres
from tests.waiting import eventually

pytestmark = pytest.mark.servers

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


CASES: dict[str, Case] = {}


def case(*situations: str, varies: bool = False) -> Callable[[Callable[[Scene], Story]], Callable[[Scene], Story]]:
    """Add a story to the table, in which these situations come."""

    def add(story: Callable[[Scene], Story]) -> Callable[[Scene], Story]:
        name = story.__name__.replace("_", " ")
        assert name not in CASES
        CASES[name] = Case(situations, story, varies)
        return story

    return add


@dataclass(frozen=True)
class Failing:
    """A source that can fail: how it does, what is told of it, and how it is mended."""

    fail: Callable[[], object]
    told: tuple[str, ...]
    mend: Callable[[], object]


def consul_killed(scene: Scene) -> Failing:
    scene.house.faulty()  # for its quick retries
    server = scene.consul(own=True)
    return Failing(lambda: server.stop(kill=True), ("unreachable: ", server.address), server.start)


def key_missing(scene: Scene) -> Failing:
    server = scene.consul()
    return Failing(lambda: server.delete("app/text"), ("refused: ", "app/text: does not exist"), lambda: scene.house.say("back"))


def vault_killed(scene: Scene) -> Failing:
    scene.house.faulty()
    server = scene.vault(own=True)
    return Failing(lambda: server.stop(kill=True), ("unreachable: ", server.address), server.start)


def vault_sealed(scene: Scene) -> Failing:
    server = scene.vault(own=True)
    return Failing(server.seal, ("refused: ", "sealed"), server.unseal)


def vault_denied(scene: Scene) -> Failing:
    server = scene.vault()
    policies = server.client().sys

    def allow(path: str) -> None:
        policies.create_or_update_policy("table", f'path "{path}" {{ capabilities = ["read"] }}')

    return Failing(lambda: allow("nothing"), ("refused: ", "secret/app", "permission denied"), lambda: allow("secret/data/app"))


def secret_missing(scene: Scene) -> Failing:
    server = scene.vault()
    secrets = server.client().secrets.kv.v2
    return Failing(
        lambda: secrets.delete_metadata_and_all_versions("app", mount_point="secret"),
        ("refused: ", "secret/data/app: no such path"),
        lambda: scene.house.say("back"),
    )


def directory_missing(scene: Scene) -> Failing:
    mounted, away = scene.house.mounted.path, scene.folder / "away"
    return Failing(lambda: mounted.rename(away), (str(mounted),), lambda: away.rename(mounted))


SOURCES = (directory_missing, consul_killed, key_missing, vault_killed, vault_sealed, vault_denied, secret_missing)
UNREACHABLE = (directory_missing, consul_killed, vault_killed)


def each(makes: tuple[Callable[[Scene], Failing], ...], *situations: str) -> Callable[[Callable[[Scene, Failing], Story]], None]:
    """Add a story to the table for each of these sources, the first and variations of it."""

    def add(story: Callable[[Scene, Failing], Story]) -> None:
        for make in makes:
            name = f"{make.__name__} {story.__name__}".replace("_", " ")
            CASES[name] = Case(situations, lambda scene, make=make: story(scene, make(scene)), make is not makes[0])  # type: ignore[misc]

    return add


@each(SOURCES, SOURCE_YOUNG, SOURCE_OLD)
def while_it_runs(scene: Scene, source: Failing) -> Story:
    """What is published stays, whatever becomes of it."""
    house = scene.house
    house.fail(max_staleness="3s")
    house.begin()
    source.fail()
    house.source_fails(*source.told)
    yield Moment(SOURCE_YOUNG, volume="one")
    yield Moment(SOURCE_OLD, ("source site is not current (stale for more than 3 s): ", *source.told), volume="one")
    assert house.sidecar.metric("reloader_source_age_seconds", source="site") > 3
    source.mend()


@each(UNREACHABLE, STARTING, NOTHING)
def at_the_start(scene: Scene, source: Failing) -> Story:
    """The target is there before its configuration; `closed` has a fallback, and does not publish it."""
    house = scene.house
    house.fail(startup_grace="4s")
    if not scene.is_open:
        house.have_fallback()
    source.fail()
    house.application.start()
    house.start()
    yield Moment(STARTING, ("nothing is published yet", *source.told), target="nothing", started=False)
    yield Moment(NOTHING, source.told, target="nothing", started=scene.is_open)
    source.mend()


@each(UNREACHABLE, EARLIER_YOUNG, EARLIER_OLD)
def with_a_set_of_an_earlier_run(scene: Scene, source: Failing) -> Story:
    """Ages go on from the run that read it last."""
    house = scene.house
    house.begin().sidecar.stop()
    source.fail()
    house.start()
    house.source_fails(*source.told)
    yield Moment(EARLIER_YOUNG, volume="one")
    grow_old(house)
    yield Moment(EARLIER_OLD, ("source site is not current", *source.told), volume="one", started=scene.is_open)
    source.mend()


def grow_old(house: House) -> None:
    """Start once more, when what was read last is older than its limit."""
    eventually(lambda: house.sidecar.pipeline()["sources"][0]["age_seconds"] > 1, what="an age of a second")
    house.sidecar.stop()
    house.fail(max_staleness="1s")
    house.start()


@case(EARLIER_YOUNG, EARLIER_OLD, varies=True)
def a_step_of_the_clock_while_nothing_runs(scene: Scene) -> Story:
    """An hour ahead, and nothing is older for it; an hour back, and nothing is younger."""
    house = scene.house
    house.faulty()
    failing = directory_missing(scene)
    house.begin().sidecar.stop()
    failing.fail()
    house.control(wall=3600)
    house.start()
    yield Moment(EARLIER_YOUNG, volume="one")
    house.control(wall=-3600)
    grow_old(house)
    yield Moment(EARLIER_OLD, ("source site is not current",), volume="one", started=scene.is_open)
    failing.mend()


@case(EARLIER_YOUNG, EARLIER_OLD, varies=True)
def a_record_that_was_damaged_while_nothing_runs(scene: Scene) -> Story:
    """What is published is then as old as its files."""
    house = scene.house
    failing = directory_missing(scene)
    house.begin().sidecar.stop()
    failing.fail()
    (house.live / "..reloader" / "record.json").write_text("{")
    house.start()
    yield Moment(EARLIER_YOUNG, volume="one")
    grow_old(house)
    yield Moment(EARLIER_OLD, ("source site is not current",), volume="one", started=scene.is_open)
    failing.mend()


@case(REFUSED_FIRST, STARTING)
def the_check_refuses_the_first_set(scene: Scene) -> Story:
    house = scene.house
    refuse_by_check(house)
    house.fail(startup_grace="4s")
    house.say("bad")
    house.application.start()
    house.start()
    yield Moment(STARTING, ("nothing is published yet", "grep"), target="nothing", started=False)
    yield Moment(REFUSED_FIRST, ("grep",), target="nothing", started=False)


def refuse_by_check(house: House) -> None:
    """Have a check that refuses whatever has `bad` in it."""
    house.config["volume"]["check"] = {"command": ["grep", "-qv", "bad", "{staged}/app.conf"]}


@case(REFUSED_FIRST, STARTING)
def the_target_refuses_the_first_set(scene: Scene) -> Story:
    """It is withdrawn again."""
    house = scene.house
    house.fail(startup_grace="4s")
    house.say("refuse")
    house.application.start()
    house.start()
    yield Moment(STARTING, ("nothing is published yet", "no new workers"), target="nothing")
    yield Moment(REFUSED_FIRST, ("no new workers",), target="nothing")


@case(FALLBACK)
def a_fallback(scene: Scene) -> Story:
    """One that an `open` run published closes a `closed` one."""
    failing = directory_missing(scene)
    failing.fail()
    fall_back(scene)
    yield Moment(FALLBACK, ("failure.fallback is published",), volume="fallback")
    failing.mend()


def fall_back(scene: Scene) -> None:
    """Let the fallback be published, and taken by the target; then let the mode be that of the scene."""
    house = scene.house
    house.have_fallback()
    house.fail(mode="open", startup_grace="1s")
    house.application.start()
    house.start()
    eventually(lambda: house.reads() == house.application.runs_on() == "fallback", what="the fallback")
    eventually(lambda: house.sidecar.pipeline()["fallback"] and house.sidecar.pipeline()["owed"] is None, what="its confirmation")
    if not scene.is_open:
        house.sidecar.stop()
        house.fail(mode="closed")
        house.start()


@case(FALLBACK_REFUSED, varies=True)
def a_fallback_where_the_check_refused_the_first_set(scene: Scene) -> Story:
    refuse_by_check(scene.house)
    scene.house.say("bad")
    fall_back(scene)
    yield Moment(
        FALLBACK_REFUSED,
        ("failure.fallback is published, because the first set was refused", "check" if scene.is_open else "the check refused it before"),
        volume="fallback",
    )


@case(FALLBACK_REFUSED, varies=True)
def a_fallback_where_the_target_refused_the_first_set(scene: Scene) -> Story:
    scene.house.say("refuse")
    fall_back(scene)
    yield Moment(FALLBACK_REFUSED, ("failure.fallback is published, because the first set was refused",), volume="fallback")


@case(RUN_OUT, varies=True)
def a_lease_that_cannot_be_renewed(scene: Scene) -> Story:
    """A database user for six seconds, of a server that is gone; the target runs on it for as long as it likes."""
    house, server, database = scene.house, scene.vault(own=True), scene.database()
    database.connect(server)
    path = database.role(server, "app", ttl="6s", max_ttl="6s")
    yield from runs_out(scene, house, server, {"kind": "vault", "path": path}, "username")


@case(RUN_OUT, varies=True)
def a_certificate_that_cannot_be_renewed(scene: Scene) -> Story:
    house, server = scene.house, scene.vault(own=True)
    path = server.pki("pki", "tests").issue
    issue = {"kind": "vault", "path": path, "write": {"common_name": "web.test", "ttl": "6s"}}
    yield from runs_out(scene, house, server, issue, "serial_number")


def runs_out(scene: Scene, house: House, server: OpenBao, source: dict[str, Any], field: str) -> Story:
    house.faulty()
    scene.vault_token(server, 'path "*" { capabilities = ["read", "update"] }')
    house.config["sources"]["issued"] = source
    house.config["volume"]["files"]["app.conf"]["content"] = f"{{{{ site.text }}}} {{{{ issued.{field} }}}}"
    house.begin()
    server.stop(kill=True)
    text = house.reads()
    yield Moment(RUN_OUT, ("source issued is not current (its lease has run out)",), volume=text)
    server.start()


@case(WELL, varies=True)
def a_key_that_is_missing_has_a_default(scene: Scene) -> Story:
    server = scene.consul(default="usual")
    scene.house.begin()
    server.delete("app/text")
    yield Moment(WELL, volume="usual")


@case(WELL, varies=True)
def a_folder_that_is_empty_is_an_answer(scene: Scene) -> Story:
    server = scene.consul()
    scene.house.config["sources"]["routes"] = {"kind": "consul", "prefix": "routes/"}
    scene.house.config["volume"]["files"]["app.conf"]["content"] = "{{ site }} {{ routes | length }}"
    scene.house.begin()
    yield Moment(WELL, volume="one 0")
    server.put("routes/a", "b")
    yield Moment(WELL, volume="one 1")


@case(REJECTED)
def rendering_rejects(scene: Scene) -> Story:
    house = scene.house
    house.fail(max_staleness="3s")
    house.begin()
    house.mounted.swap({"other": "x"})
    yield Moment(REJECTED, ("rejected: ", "app.conf"), volume="one")
    yield Moment(REJECTED, ("rejected: ", "app.conf"), volume="one", lasts=True)


@case(REJECTED)
def the_check_rejects(scene: Scene) -> Story:
    """Content after content: what waits has waited since the first."""
    house = scene.house
    refuse_by_check(house)
    house.fail(max_staleness="3s")
    house.begin()
    house.say("bad")
    yield Moment(REJECTED, ("rejected: ", "grep"), volume="one")
    says = (f"bad {number}" for number in count())
    eventually(lambda: house.say(next(says)) or house.sidecar.metric("reloader_closed") or scene.is_open, every=0.2, what="it to close")
    yield Moment(REJECTED, ("rejected: ", "grep"), volume="one", lasts=True)


def unwritable(house: House, *told: str, volume: str | None = "one", target: str = "one") -> Story:
    """Have the source say something new that cannot be published, or not wholly."""
    house.say("two")
    yield Moment(UNWRITABLE, ("volume: ", *told), volume=volume, target=target)
    yield Moment(UNWRITABLE, ("volume: ", *told), volume=volume, target=target, lasts=True)


@case(UNWRITABLE)
def the_volume_is_full(scene: Scene) -> Story:
    scene.tmpfs()
    house = scene.house
    house.fail(max_staleness="3s")
    house.begin()
    fill(house.live / "filler")
    yield from unwritable(house, "the volume is full")
    (house.live / "filler").unlink()


@case(UNWRITABLE, varies=True)
def the_volume_becomes_read_only(scene: Scene) -> Story:
    mounts = scene.tmpfs()
    house = scene.house
    house.fail(max_staleness="3s")
    house.begin()
    make_read_only(mounts, house.path)
    yield from unwritable(house, "the volume is read-only")
    mounts.run("umount", "--lazy", house.path)


@case(UNWRITABLE, varies=True)
def the_disk_fails(scene: Scene) -> Story:
    house = scene.house
    house.faulty()
    house.fail(max_staleness="3s")
    house.begin()
    house.control({"calls": ["write_file"], "path": str(house.path), "error": "EIO"})
    yield from unwritable(house, "the disk failed")
    house.control()


@case(UNWRITABLE, varies=True)
def the_record_alone_cannot_be_written(scene: Scene) -> Story:
    """The set is published and confirmed, and a restart would not know of it."""
    house = scene.house
    house.faulty()
    house.fail(max_staleness="3s")
    house.begin()
    house.control({"calls": ["write_file"], "path": r"/record\.json", "error": "ENOSPC", "skip": 1})
    yield from unwritable(house, "record.json", "the volume is full", volume="two", target="two")
    house.control()


@case(UNWRITABLE)
def the_volume_is_replaced_by_a_file(scene: Scene) -> Story:
    house = scene.house
    house.fail(max_staleness="3s")
    house.begin()
    house.path.rename(scene.folder / "away")
    house.path.touch()
    yield from unwritable(house, str(house.path), volume=None)
    house.path.unlink()


@case(UNWRITABLE, varies=True)
def something_foreign_is_in_the_way(scene: Scene) -> Story:
    house = scene.house
    house.fail(max_staleness="3s")
    house.begin()
    (house.path / "..data_tmp").mkdir()
    yield from unwritable(house, "..data_tmp", "something of another program is in the way")
    (house.path / "..data_tmp").rmdir()


def not_taken(house: House, *told: str) -> Story:
    """Start on a set of an earlier run that cannot be taken over."""
    house.config["timing"]["resync"] = "1s"
    house.fail(max_staleness="3s")
    house.start()
    yield Moment(NOT_TAKEN, ("volume: ", *told), volume="one", started=False)
    yield Moment(NOT_TAKEN, ("volume: ", *told), volume="one", lasts=True, started=False)


@case(NOT_TAKEN, varies=True)
def the_volume_is_read_only_at_the_start(scene: Scene) -> Story:
    mounts = scene.tmpfs()
    house = scene.house
    house.begin().sidecar.stop()
    make_read_only(mounts, house.path)
    yield from not_taken(house, "the volume is read-only")
    mounts.run("umount", "--lazy", house.path)


@case(NOT_TAKEN, varies=True)
def the_record_is_of_another_user(scene: Scene) -> Story:
    house = scene.house
    without_rights(house)
    house.begin().sidecar.stop()
    home = house.path / "..reloader"
    os.chown(home, 1234, 1234)
    yield from not_taken(house, "..reloader was made by uid 1234", "runAsUser")
    os.chown(home, 0, 0)


def without_rights(house: House) -> None:
    """Let the sidecar be root without a capability, as a Pod has it that drops all."""
    if os.geteuid() != 0:
        pytest.skip("takes root to become another user")
    setpriv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    house.sidecar = Sidecar(house.folder / "sidecar", house.file, program=[*setpriv, *PROGRAM])


@case(TAKEN_BACK)
def the_target_refuses_a_set(scene: Scene) -> Story:
    house = scene.house
    house.fail(max_staleness="4s")
    house.begin()
    house.say("refuse")
    yield Moment(TAKEN_BACK, ("rejected: ", "no new workers"), volume="one")
    eventually(lambda: house.sidecar.pipeline()["owed"] is None, what="the rollback to be confirmed")
    assert house.sidecar.metric("reloader_rollbacks_total") == 1
    yield Moment(TAKEN_BACK, ("rejected: ", "no new workers"), volume="one", lasts=True)


@case(NO_WAY_BACK)
def the_target_refuses_the_one_before_too(scene: Scene) -> Story:
    house = scene.house
    house.faulty()
    house.begin("picky")
    house.application.refuses_all.touch()
    house.say("two")
    yield Moment(NO_WAY_BACK, ("reload owed: ", "no new workers"), volume="one")
    assert house.sidecar.pipeline()["owed"] is not None
    house.application.refuses_all.unlink()


class NginxServer:
    """An NGINX in the place of the application; what it serves is what it runs on."""

    def __init__(self, scene: Scene) -> None:
        self.house, self.port, self.extra = scene.house, free_port(), scene.folder / "extra.conf"
        self.extra.touch()
        self._nginx = scene.nginx(scene.house.path / "app.conf")
        self.pidfile = scene.folder / "server" / "nginx.pid"
        scene.house.application = self  # type: ignore[assignment]
        scene.house.config["target"]["match"]["pidfile"] = str(self.pidfile)
        scene.house.config["target"]["verify"]["within"] = "1500ms"
        scene.house.config["volume"]["files"]["app.conf"]["content"] = self.conf("{{ site.text }}")
        scene.house.reads = self.published  # type: ignore[method-assign]

    def conf(self, text: str) -> str:
        server = f"server {{ listen 127.0.0.1:{self.port}; location / {{ return 200 {text}; }} }}"
        return f"include {self.extra};\nevents {{}}\nhttp {{ {HTTP_DEFAULTS} {server} }}\n"

    def published(self) -> str:
        return str((self.house.live / "app.conf").read_text().partition("return 200 ")[2].partition(";")[0])

    @property
    def running(self) -> bool:
        return self._nginx.running

    def start(self) -> None:
        self._nginx.start()

    def stop(self) -> None:
        self._nginx.stop(kill=True)

    def runs_on(self) -> str:
        return requests.get(f"http://127.0.0.1:{self.port}/", headers={"Connection": "close"}, timeout=5).text

    def taken(self) -> list[str]:
        return self._nginx.error_log.read_text().splitlines()[-10:]


@case(TAKEN_BACK, varies=True)
def nginx_refuses_a_set(scene: Scene) -> Story:
    NginxServer(scene)
    scene.house.fail(max_staleness="4s")
    scene.house.begin()
    scene.house.say("two; bogus")
    yield Moment(TAKEN_BACK, ("rejected: ", "no new workers"), volume="one")
    yield Moment(TAKEN_BACK, ("rejected: ", "no new workers"), volume="one", lasts=True)


@case(NO_WAY_BACK, varies=True)
def nginx_refuses_the_one_before_too(scene: Scene) -> Story:
    """For a file of its own that both include."""
    scene.house.faulty()
    nginx = NginxServer(scene)
    scene.house.begin()
    nginx.extra.write_text("bogus;")
    scene.house.say("two")
    yield Moment(NO_WAY_BACK, ("reload owed: ", "no new workers"), volume="one")
    nginx.extra.write_text("")


@case(WITHDRAWN)
def what_was_withdrawn_is_not_back(scene: Scene) -> Story:
    """Also over a restart; the target runs on what it has."""
    house = scene.house
    failing = directory_missing(scene)
    house.fail(mode="closed", max_staleness="1s", when_closed=["not_ready", "withdraw"])
    house.start()
    eventually(house.reads, what="the first set")
    house.application.start()
    failing.fail()
    eventually(lambda: house.reads() is None, what="the withdrawal")
    house.sidecar.stop()
    house.fail(mode=scene.mode)
    house.start()
    yield Moment(WITHDRAWN, ("withdrawn until something good is there",), target="one", started=False)
    failing.mend()


@case(BY_HAND, WELL)
def a_generation_that_is_held(scene: Scene) -> Story:
    house = scene.house
    house.begin()
    house.say("two")
    yield Moment(WELL, volume="two")
    by_hand(house, "rollback")
    yield Moment(BY_HAND, ("was put back by hand, and is held",), volume="one")
    by_hand(house, "resume")


def by_hand(house: House, command: str) -> None:
    done = reloader(command, "--config", house.file)
    assert done.returncode == 0, done.stderr


@case(ABSENT)
def a_target_that_never_came(scene: Scene) -> Story:
    """However long that is, nobody is alarmed."""
    house = scene.house
    house.fail(startup_grace="1s", max_staleness="1s")
    house.start()
    yield Moment(ABSENT, volume="one")
    house.say("two")
    eventually(lambda: house.reads() == "two" and since_publish(house) > 2, what="more than each limit")
    yield Moment(ABSENT, volume="two")
    quiet(house)


@case(ABSENT, varies=True)
def a_target_that_left(scene: Scene) -> Story:
    house = scene.house
    house.fail(startup_grace="1s", max_staleness="1s")
    house.begin().application.stop()
    house.say("two")
    eventually(lambda: house.reads() == "two" and since_publish(house) > 2, what="more than each limit")
    yield Moment(ABSENT, volume="two")
    quiet(house)
    house.application.start()


def since_publish(house: House) -> float:
    return float(time.time() - house.sidecar.pipeline()["published_at"])


def quiet(house: House) -> None:
    """A reload is owed to nobody: no warning, no failure, no alarm."""
    owed = house.sidecar.pipeline()["owed"]
    assert owed.startswith("absent"), owed
    assert house.sidecar.metric("reloader_reload_owed") == 1
    assert house.sidecar.metric("reloader_target_trouble", reason="absent") == 1
    assert house.sidecar.metric("reloader_reloads_failed_total") == 0
    assert [house.sidecar.metric("reloader_signal_failures_total", reason=reason) for reason in FAILURES] == [0] * len(FAILURES)
    assert [line for line in house.sidecar.lines() if line.get("level") not in ("debug", "info")] == []


@case(UNDER_WAY)
def a_verification_that_goes_on(scene: Scene) -> Story:
    house = scene.house
    proved = scene.folder / "proved"
    proved.touch()
    house.config["target"]["verify"] = {"command": ["test", "-e", str(proved)], "within": "30s"}
    house.begin()
    proved.unlink()
    house.say("two")
    eventually(lambda: house.sidecar.pipeline()["owed"] == "owed: being verified", what="the verification")
    yield Moment(UNDER_WAY, volume="two")
    proved.touch()


def troubled(*told: str, volume: str = "two", target: str = "one") -> Story:
    yield Moment(TROUBLED, ("reload owed: ", *told), volume=volume, target=target)
    yield Moment(TROUBLED, ("reload owed: ", *told), volume=volume, target=target, lasts=True)


@case(TROUBLED, varies=True)
def several_targets(scene: Scene) -> Story:
    house = scene.house
    house.fail(startup_grace="4s")
    house.config["target"]["match"] = {"cmdline": rf"picky\.py {house.path}/app\.conf"}
    other = Application(scene.folder / "other", house.path / "app.conf")
    house.application.start()
    other.start()
    try:
        house.start()
        yield from troubled("2 processes match", str(other.pid), str(house.application.pid), volume="one", target="nothing")
    finally:
        other.stop()


@case(TROUBLED, varies=True)
def a_target_of_another_user(scene: Scene) -> Story:
    house = scene.house
    without_rights(house)
    house.fail(startup_grace="3s")
    house.begin("nobody")
    house.say("two")
    yield from troubled("may not signal", "uid 65534", "runAsUser", "KILL")
    restart(house)


@case(TROUBLED)
def a_target_that_ignores_the_signal(scene: Scene) -> Story:
    house = scene.house
    house.fail(startup_grace="3s")
    house.begin("deaf")
    house.say("two")
    yield from troubled("ignores SIGHUP")
    restart(house)


@case(TROUBLED, varies=True)
def a_target_that_the_signal_would_end(scene: Scene) -> Story:
    house = scene.house
    house.fail(startup_grace="3s")
    house.begin("raw")
    house.say("two")
    yield from troubled("has no handler for SIGHUP yet and would end by it")
    restart(house)


def restart(house: House) -> None:
    house.application.stop()
    house.application.start()


@case(TROUBLED, varies=True)
def a_target_that_never_confirms(scene: Scene) -> Story:
    """It took the signal, and the probe that is to prove it cannot run."""
    house = scene.house
    house.fail(startup_grace="3s")
    probe = scene.folder / "probe"
    probe.symlink_to("/bin/true")
    house.config["target"]["verify"] = {"command": [str(probe)], "within": "500ms"}
    house.begin()
    probe.unlink()
    house.say("two")
    yield from troubled(str(probe), target="two")
    probe.symlink_to("/bin/true")


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    with small_volume(tmp_path) as mounts:
        yield mounts


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path, mode: str) -> Iterator[Scene]:
    made = Scene(tmp_path, mode, request.getfixturevalue)
    yield made
    made.close()


MODES = ("open", "closed")


def told_here() -> Iterator[tuple[str, str]]:
    """Yield each case with each mode under which it is told; variations by turns under one of them in the short form."""
    variations = [name for name, case in CASES.items() if case.varies]
    for name, case in CASES.items():
        yield from ((name, mode) for mode in MODES if not case.varies or rounds(variations.index(name) % 2 == MODES.index(mode), True))


@pytest.mark.parametrize(("case", "mode"), list(told_here()))
def test_the_failure_table(case: str, scene: Scene) -> None:
    """Each moment of the story is seen as the README says, from every side; and afterwards the newest content arrives."""
    told, seen = CASES[case], set()
    for moment in told.story(scene):
        scene.house.sees(moment)
        seen.add(moment.situation)
    assert seen == set(told.situations)

    scene.house.say("healed")
    eventually(lambda: (scene.house.reads() or "").partition(" ")[0] == "healed", what="the newest content")
    eventually(scene.house.is_well, what="nothing to be wrong")


def test_every_situation_of_the_readme_has_a_case() -> None:
    assert {(situation, mode) for case, mode in told_here() for situation in CASES[case].situations} == set(product(TOLD, MODES))
