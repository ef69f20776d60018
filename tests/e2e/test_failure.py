"""Fail-open and fail-closed, end to end: real servers killed and brought back, at start and while running."""

from pathlib import Path

import pytest

from tests.e2e.sidecar import Sidecar
from tests.waiting import eventually

pytestmark = pytest.mark.servers

CONFIGURATION = """
vault:  {{address: {vault}, auth: {{token: {token}}}}}
consul: {{address: {consul}}}
sources:
  greeting: {{kind: consul, key: app/greeting}}
  db:       {{kind: vault, path: secret/app, poll: 300ms}}
volume:
  path: {live}
  files:
    app.conf: {{content: "{{{{ greeting }}}} {{{{ db.user }}}}\\n"}}
target: {{kind: none}}
timing: {{min_interval: 0s}}
failure: {{mode: {mode}, startup_grace: 3s, max_staleness: 4s}}
"""


class House:
    """Both servers, and a sidecar that reads from them."""

    def __init__(self, folder: Path, openbao, consul, mode: str) -> None:
        self.servers = {"consul": consul, "vault": openbao}
        self.source = {"consul": "greeting", "vault": "db"}
        self.openbao, self.consul = openbao, consul
        openbao.enable("kv", "secret", version="2")
        self.live = folder / "live"
        configuration = folder / "app.yaml"
        text = CONFIGURATION.format(vault=openbao.address, token=openbao.root_token, consul=consul.address, live=self.live, mode=mode)
        configuration.write_text(text)
        self.sidecar = Sidecar(folder / "sidecar", configuration)
        self.say("hello", "alice")

    def say(self, greeting: str, user: str) -> None:
        self.consul.put("app/greeting", greeting)
        self.openbao.put_kv2("secret", "app", {"user": user})

    def published(self) -> str | None:
        file = self.live / "app.conf"
        return file.read_text() if file.exists() else None

    def seen(self) -> tuple[bool, bool, bool]:
        """Return whether it is ready, degraded and closed, as the endpoints and the metrics say."""
        pipeline = self.sidecar.pipeline()
        assert pipeline["closed"] == bool(self.sidecar.metric("reloader_closed"))
        assert pipeline["ready"] == self.sidecar.ready()
        return pipeline["ready"], pipeline["degraded"], pipeline["closed"]


READY, DEGRADED, CLOSED, WAITING = (True, False, False), (True, True, False), (False, True, True), (False, True, False)


@pytest.fixture(params=["open", "closed"])
def mode(request):
    return request.param


@pytest.fixture
def house(tmp_path, own_openbao, own_consul, mode):
    house = House(tmp_path, own_openbao, own_consul, mode)
    yield house
    house.sidecar.stop()


@pytest.mark.parametrize("backend", ["consul", "vault"])
def test_a_backend_that_dies_while_running(house, mode, backend):
    """Served while young; then open serves degraded and closed is not ready; healed by itself when the backend is back."""
    house.sidecar.start()
    eventually(lambda: house.published() == "hello alice\n", what="the first publish")
    eventually(lambda: house.seen() == READY, what="readiness")

    house.servers[backend].stop(kill=True)
    source = house.source[backend]
    eventually(lambda: house.sidecar.metric("reloader_source_up", source=source) == 0, what="the source to be down")
    assert house.seen() == READY

    eventually(lambda: house.seen() == (DEGRADED if mode == "open" else CLOSED), within=15, what="max_staleness")
    assert house.sidecar.metric("reloader_source_age_seconds", source=source) > 4
    assert house.sidecar.metric("reloader_source_errors_total", source=source, reason="unreachable") >= 1
    assert house.published() == "hello alice\n"
    assert house.sidecar.get("/healthz").status_code == 200

    house.servers[backend].start()
    house.say("good morning", "bob")
    eventually(lambda: house.published() == "good morning bob\n", within=60, what="the newest values")
    eventually(lambda: house.seen() == READY, what="readiness")


@pytest.mark.parametrize("backend", ["consul", "vault"])
def test_a_backend_that_is_down_at_the_start(house, mode, backend):
    """Not ready within the grace; after it open is ready but degraded, closed is not; both publish when the backend comes."""
    house.servers[backend].stop(kill=True)
    house.sidecar.start()
    eventually(lambda: house.sidecar.pipeline()["sources"], what="a report")
    assert house.seen() == WAITING
    assert house.sidecar.get("/startupz").status_code == 503

    eventually(lambda: house.seen() == (DEGRADED if mode == "open" else CLOSED), within=15, what="the end of the grace")
    assert house.sidecar.get("/startupz").status_code == (200 if mode == "open" else 503)
    assert house.published() is None

    house.servers[backend].start()
    eventually(lambda: house.published() == "hello alice\n", within=60, what="the first publish")
    eventually(lambda: house.seen() == READY, what="readiness")
    assert house.sidecar.get("/startupz").status_code == 200


def test_a_generation_of_an_earlier_run_is_served_while_it_is_young(house, mode):
    """With both backends down, a restarted sidecar goes on from the record: ages continue."""
    house.sidecar.start()
    eventually(lambda: house.seen() == READY, what="readiness")
    house.sidecar.stop()
    for server in house.servers.values():
        server.stop(kill=True)

    house.sidecar.start()
    assert house.published() == "hello alice\n"
    eventually(lambda: house.seen() == READY, what="readiness")
    eventually(lambda: house.seen() == (DEGRADED if mode == "open" else CLOSED), within=15, what="max_staleness")
    assert house.published() == "hello alice\n"

    for server in house.servers.values():
        server.start()
    eventually(lambda: house.seen() == READY, within=60, what="readiness")
