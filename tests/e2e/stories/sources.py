"""A source fails, at the start or later, and what it issued ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.failing import House, Moment
from tests.e2e.scenes import (
    EARLIER_OLD,
    EARLIER_YOUNG,
    NOTHING,
    RUN_OUT,
    SOURCE_OLD,
    SOURCE_YOUNG,
    STARTING,
    WELL,
    WITHDRAWN,
    Case,
    Cases,
    Scene,
    Story,
)
from tests.servers.openbao import OpenBao
from tests.waiting import eventually

CASES = Cases()


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
            made = Case(situations, lambda scene, make=make: story(scene, make(scene)), make is not makes[0])  # type: ignore[misc]
            CASES.add(f"{make.__name__} {story.__name__}", made)

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


@CASES.case(EARLIER_YOUNG, EARLIER_OLD, varies=True)
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


@CASES.case(EARLIER_YOUNG, EARLIER_OLD, varies=True)
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


@CASES.case(RUN_OUT, varies=True)
def a_lease_that_cannot_be_renewed(scene: Scene) -> Story:
    """A database user for six seconds, of a server that is gone; the target runs on it for as long as it likes."""
    house, server, database = scene.house, scene.vault(own=True), scene.database()
    database.connect(server)
    path = database.role(server, "app", ttl="6s", max_ttl="6s")
    yield from runs_out(scene, house, server, {"kind": "vault", "path": path}, "username")


@CASES.case(RUN_OUT, varies=True)
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


@CASES.case(WELL, varies=True)
def a_key_that_is_missing_has_a_default(scene: Scene) -> Story:
    server = scene.consul(default="usual")
    scene.house.begin()
    server.delete("app/text")
    yield Moment(WELL, volume="usual")


@CASES.case(WELL, varies=True)
def a_folder_that_is_empty_is_an_answer(scene: Scene) -> Story:
    server = scene.consul()
    scene.house.config["sources"]["routes"] = {"kind": "consul", "prefix": "routes/"}
    scene.house.config["volume"]["files"]["app.conf"]["content"] = "{{ site }} {{ routes | length }}"
    scene.house.begin()
    yield Moment(WELL, volume="one 0")
    server.put("routes/a", "b")
    yield Moment(WELL, volume="one 1")


@CASES.case(WITHDRAWN)
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
