"""The target refuses a set, is not there, cannot be asked, or does not confirm."""

import time

import requests

from reloader.status.metrics import FAILURES
from tests.e2e.failing import Application, House, Moment
from tests.e2e.scenes import ABSENT, NO_WAY_BACK, TAKEN_BACK, TROUBLED, UNDER_WAY, Cases, Scene, Story, without_rights
from tests.servers.nginx import HTTP_DEFAULTS
from tests.servers.ports import free_port
from tests.waiting import eventually

CASES = Cases()


@CASES.case(TAKEN_BACK)
def the_target_refuses_a_set(scene: Scene) -> Story:
    house = scene.house
    house.fail(max_staleness="4s")
    house.begin()
    house.say("refuse")
    yield Moment(TAKEN_BACK, ("rejected: ", "no new workers"), volume="one")
    eventually(lambda: house.sidecar.pipeline()["owed"] is None, what="the rollback to be confirmed")
    assert house.sidecar.metric("reloader_rollbacks_total") == 1
    yield Moment(TAKEN_BACK, ("rejected: ", "no new workers"), volume="one", lasts=True)


@CASES.case(NO_WAY_BACK)
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


@CASES.case(TAKEN_BACK, varies=True)
def nginx_refuses_a_set(scene: Scene) -> Story:
    NginxServer(scene)
    scene.house.fail(max_staleness="4s")
    scene.house.begin()
    scene.house.say("two; bogus")
    yield Moment(TAKEN_BACK, ("rejected: ", "no new workers"), volume="one")
    yield Moment(TAKEN_BACK, ("rejected: ", "no new workers"), volume="one", lasts=True)


@CASES.case(NO_WAY_BACK, varies=True)
def nginx_refuses_the_one_before_too(scene: Scene) -> Story:
    """For a file of its own that both include."""
    scene.house.faulty()
    nginx = NginxServer(scene)
    scene.house.begin()
    nginx.extra.write_text("bogus;")
    scene.house.say("two")
    yield Moment(NO_WAY_BACK, ("reload owed: ", "no new workers"), volume="one")
    nginx.extra.write_text("")


@CASES.case(ABSENT)
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


@CASES.case(ABSENT, varies=True)
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


@CASES.case(UNDER_WAY)
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


@CASES.case(TROUBLED, varies=True)
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


@CASES.case(TROUBLED, varies=True)
def a_target_of_another_user(scene: Scene) -> Story:
    house = scene.house
    without_rights(house)
    house.fail(startup_grace="3s")
    house.begin("nobody")
    house.say("two")
    yield from troubled("may not signal", "uid 65534", "runAsUser", "KILL")
    restart(house)


@CASES.case(TROUBLED)
def a_target_that_ignores_the_signal(scene: Scene) -> Story:
    house = scene.house
    house.fail(startup_grace="3s")
    house.begin("deaf")
    house.say("two")
    yield from troubled("ignores SIGHUP")
    restart(house)


@CASES.case(TROUBLED, varies=True)
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


@CASES.case(TROUBLED, varies=True)
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
