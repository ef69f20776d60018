"""A Consul that is suddenly empty, or has less, next to a running sidecar and to one that restarts."""

import shutil
from pathlib import Path

import pytest

from tests.e2e.sidecar import Sidecar, reloader
from tests.servers.consul import Consul
from tests.waiting import eventually

pytestmark = pytest.mark.servers

CONFIGURATION = """
consul: {{address: '{address}'}}
sources:
  routes: {{kind: consul, prefix: routes/{guard}}}
  web: {{kind: consul, service: web{guard}}}
volume:
  path: {live}
  files:
    routes.txt: {{content: "{{{{ routes | dictsort | map('join', '=') | join(',') }}}}"}}
    web.txt: {{content: "{{{{ web | map(attribute='port') | join(',') }}}}"}}
target: {{kind: none}}
timing: {{min_interval: 0s, settle: 10ms}}
failure: {{startup_grace: 2s}}
"""


class Pod:
    """A sidecar that publishes a folder of keys and the ports of a service."""

    def __init__(self, folder: Path, consul: Consul, guard: str = "") -> None:
        self.consul, self.live, self.file = consul, folder / "live", folder / "pod.yaml"
        self.file.write_text(CONFIGURATION.format(address=consul.address, guard=guard and f", {guard}", live=self.live))
        self.sidecar = Sidecar(folder / "sidecar", self.file)

    def fill(self) -> None:
        for number in (1, 2, 3):
            self.consul.put(f"routes/{number}", "a")
            self.consul.register("web", port=8000 + number)

    def empty(self) -> None:
        # Not the whole tree at once: Consul 1.8 then tells those who wait for a folder of it only when their wait is over (measured).
        self.consul.delete("routes/", below=True)
        for number in (1, 2, 3):
            self.consul.deregister(f"web-{8000 + number}")

    def start(self) -> "Pod":
        self.sidecar.start()
        return self

    def shows(self, routes: str, ports: str) -> bool:
        return (self.live / "routes.txt").read_text() == routes and (self.live / "web.txt").read_text() == ports

    def is_full(self) -> bool:
        return self.shows("1=a,2=a,3=a", "8001,8002,8003")

    def source(self, name: str) -> dict:
        return next(each for each in self.sidecar.pipeline()["sources"] if each["name"] == name)

    def generation(self) -> int:
        return int((self.live / "..data").readlink().name.removeprefix(".."))


@pytest.fixture
def pod(tmp_path: Path, consul_server: Consul):
    made = []

    def make(guard: str = "") -> Pod:
        made.append(Pod(tmp_path, consul_server, guard))
        return made[0]

    yield make
    for each in made:
        each.sidecar.stop(kill=True)


def test_an_emptied_folder_and_service_are_no_answer_until_they_have_items_again(pod):
    """The last good set stays, the status says why, and what comes back is published."""
    full = pod()
    full.fill()
    full.start()
    eventually(full.is_full, what="the first set")
    for instance in ("web-8002", "web-8003"):
        full.consul.fail(instance)
    eventually(lambda: full.shows("1=a,2=a,3=a", "8001"), what="the last instance")
    before = full.generation()
    full.empty()
    eventually(lambda: all("items before" in (full.source(name)["failure"] or "") for name in ("routes", "web")), what="the refusal")
    assert full.shows("1=a,2=a,3=a", "8001")
    assert full.generation() == before

    full.consul.put("routes/4", "b")
    full.consul.register("web", port=8004)
    eventually(lambda: full.shows("4=b", "8004"), what="what is there again")
    eventually(lambda: full.source("routes")["failure"] is None, what="the status to tell of it")


def test_what_is_empty_from_the_first_is_published(pod):
    """A folder that nobody filled yet is an answer."""
    empty = pod().start()
    eventually(lambda: empty.shows("", ""), what="the empty set")
    empty.fill()
    eventually(empty.is_full, what="the full set")


def test_min_items_0_allows_empty(pod):
    full = pod("min_items: 0")
    full.fill()
    full.start()
    eventually(full.is_full, what="the first set")
    full.empty()
    eventually(lambda: full.shows("", ""), what="the empty set")


def test_a_number_of_items_is_asked_for_from_the_first(pod):
    """Nothing is published with fewer, and the status names the key."""
    poor = pod("min_items: 3")
    poor.consul.put("routes/1", "a")
    poor.start()
    eventually(lambda: "`min_items: 3`" in (poor.source("routes")["failure"] or ""), what="the refusal")
    assert not (poor.live / "routes.txt").exists()
    poor.fill()
    eventually(poor.is_full, what="the first set")


def test_a_shrink_that_goes_back_within_hold_is_not_published(pod):
    """The status shows what is there and what is used; nothing is reloaded for it."""
    full = pod("hold: 1h")
    full.fill()
    full.start()
    eventually(full.is_full, what="the first set")
    before = full.generation()
    full.consul.delete("routes/3")
    full.consul.fail("web-8003")
    eventually(lambda: all("3 items in use" in full.source(name)["detail"] for name in ("routes", "web")), what="the shrinks")
    assert full.is_full()
    full.consul.put("routes/3", "a")
    full.consul.recover("web-8003")
    eventually(lambda: all("in use" not in full.source(name)["detail"] for name in ("routes", "web")), what="their end")
    full.consul.put("routes/4", "b")
    eventually(lambda: full.shows("1=a,2=a,3=a,4=b", "8001,8002,8003"), what="more")

    assert full.generation() == before + 1


def test_a_shrink_that_lasts_is_published_once_hold_is_over(pod):
    """Though no other answer comes."""
    full = pod("hold: 1500ms")
    full.fill()
    full.start()
    eventually(full.is_full, what="the first set")
    full.consul.delete("routes/3")
    eventually(lambda: "3 items in use" in full.source("routes")["detail"], what="the shrink")
    assert full.is_full()
    eventually(lambda: full.shows("1=a,2=a", "8001,8002,8003"), what="the shorter set")
    eventually(lambda: "in use" not in full.source("routes")["detail"], what="the status to tell of it")


def test_a_restart_beside_an_emptied_consul_blanks_nothing(tmp_path, own_consul):
    """Whether the sidecar was asked to end or killed, whether it runs on or is asked for once."""
    pod = Pod(tmp_path, own_consul)
    pod.fill()
    pod.start()
    eventually(pod.is_full, what="the first set")
    pod.sidecar.stop(kill=True)
    own_consul.stop(kill=True)
    shutil.rmtree(tmp_path / "consul" / "data")
    own_consul.start()

    once, dry = reloader("once", pod.file), reloader("once", "--dry-run", pod.file)
    assert "items before" in once.stderr
    assert pod.is_full()
    assert "items before" in dry.stderr
    assert dry.returncode == 1
    pod.start()
    try:
        eventually(lambda: "items before" in (pod.source("routes")["failure"] or ""), what="the refusal")
        assert pod.is_full()
        pod.fill()
        own_consul.put("routes/4", "b")
        eventually(lambda: pod.shows("1=a,2=a,3=a,4=b", "8001,8002,8003"), what="what is there again")
    finally:
        pod.sidecar.stop()
