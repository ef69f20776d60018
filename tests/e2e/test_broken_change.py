"""A change that the program's own check refuses never gets to the program, and holds up no later one."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.e2e.sidecar import Sidecar
from tests.kubelet import KubeletVolume
from tests.servers.haproxy import Haproxy
from tests.servers.nginx import HTTP_DEFAULTS, Nginx
from tests.servers.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.servers

CONFIGURATION = """
sources: {{site: {{kind: files, path: {site}}}}}
volume:
  path: {live}
  files:
    server.conf: {{content: "{{{{ site['server.conf'] }}}}"}}
  check: {{command: {check}}}
target:
  match: {match}
  signal: {signal}
  verify: {{workers: true, within: 5s}}
timing: {{min_interval: 0s}}
"""


@dataclass(frozen=True)
class Kind:
    """A program: how it is configured, found and asked, and what it says of being asked."""

    text: str
    match: str
    signal: str
    log: Callable[[Nginx | Haproxy], Path]
    asked: str


KINDS = {
    "nginx": Kind(
        text=f"events {{}} http {{ {HTTP_DEFAULTS} server {{ listen 127.0.0.1:%(port)d; location / {{ return 200 %(text)s; }} }} }}\n",
        match="{{pidfile: {folder}/nginx.pid}}",
        signal="HUP",
        log=lambda server: server.error_log,
        asked="signal 1 (SIGHUP) received",
    ),
    "haproxy": Kind(
        text="defaults\n mode http\n timeout client 5s\n timeout connect 5s\n timeout server 5s\nfrontend web\n"
        " bind 127.0.0.1:%(port)d\n http-request return status 200 content-type text/plain string %(text)s\n",
        match="{{cmdline: {live}/server\\.conf}}",
        signal="USR2",
        log=lambda server: server.log,
        asked="Reloading HAProxy",
    ),
}


class House:
    """A program that serves one text, which comes from a mounted directory."""

    def __init__(self, folder: Path, kind: Kind, make: Callable[[Path, Path], Nginx | Haproxy]) -> None:
        self.kind, self.port = kind, free_port()
        self.site, self.live = KubeletVolume(folder / "site"), folder / "live"
        self.server = make(folder / "server", self.live / "server.conf")
        self.say("one")
        configuration = folder / "web.yaml"
        names = {"folder": folder / "server", "live": self.live}
        check = json.dumps(self.server.test_command("{staged}/server.conf"))
        given = {"match": kind.match.format(**names), "signal": kind.signal, "check": check}
        configuration.write_text(CONFIGURATION.format(site=self.site.path, live=self.live, **given))
        self.sidecar = Sidecar(folder / "sidecar", configuration, env=self.server.env)

    def start(self) -> None:
        self.sidecar.start()
        eventually(self.sidecar.ready, what="the first publish")
        self.server.start()
        eventually(self.sidecar.settled, what="the start of the program to be verified")

    def say(self, text: str) -> None:
        self.site.swap({"server.conf": self.kind.text % {"port": self.port, "text": text}})

    def spoil(self) -> None:
        self.site.swap({"server.conf": self.kind.text % {"port": self.port, "text": "two"} + "bogus nonsense\n"})

    def served(self) -> str:
        return requests.get(f"http://127.0.0.1:{self.port}/", headers={"Connection": "close"}, timeout=5).text

    def asked(self) -> int:
        return self.kind.log(self.server).read_text().count(self.kind.asked)


@pytest.fixture(params=list(KINDS))
def house(request, tmp_path):
    house = House(tmp_path, KINDS[request.param], request.getfixturevalue(request.param))
    yield house
    house.sidecar.stop()


def test_a_set_that_the_check_refuses_never_gets_to_the_program(house):
    """The old set stays, nobody is signalled, the refusal is counted and told; the next good change goes through, with one signal."""
    house.start()
    sidecar = house.sidecar
    eventually(lambda: house.served() == "one", what="the first set")
    before, asked = sidecar.pipeline()["generations"], house.asked()  # once, if it started in the tick of the publish

    house.spoil()
    eventually(lambda: sidecar.metric("reloader_refusals_total", stage="check") == 1, what="the refusal")
    refused = eventually(lambda: (known := sidecar.pipeline())["rejected"] and known, what="the status to say so")
    assert refused["rejected"].startswith("check: check command")
    assert "/server.conf:" in refused["rejected"]  # the place, as the program itself says it
    assert refused["ready"]
    assert refused["degraded"]
    assert refused["owed"] is None
    assert refused["generations"]["published"] == refused["generations"]["confirmed"] == before["published"]
    assert refused["generations"]["desired"] > before["published"]
    assert house.served() == "one"
    assert "bogus" not in (house.live / "server.conf").read_text()
    assert house.asked() == sidecar.metric("reloader_reloads_total") == asked

    house.say("three")
    eventually(lambda: house.served() == "three", what="the next good change")
    eventually(sidecar.settled, what="its confirmation")
    assert house.asked() == sidecar.metric("reloader_reloads_total") == asked + 1
    mended = sidecar.pipeline()
    assert (mended["rejected"], mended["degraded"]) == (None, False)
