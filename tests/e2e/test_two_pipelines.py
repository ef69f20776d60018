"""Two pipelines of one sidecar signal one NGINX: none is ever blamed for the set of the other."""

from pathlib import Path

import pytest
import requests

from tests.e2e.sidecar import Sidecar
from tests.kubelet import KubeletVolume
from tests.scale import rounds
from tests.servers.nginx import HTTP_DEFAULTS
from tests.servers.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.servers

CONFIGURATION = """
sources: {{site: {{kind: files, path: {site}}}}}
volume:
  path: {live}
  files:
    site.conf: {{content: "{{{{ site['site.conf'] }}}}"}}
target:
  match: {{pidfile: {pidfile}}}
  verify: {{workers: true, within: 500ms}}
timing: {{min_interval: 0s, settle: 10ms}}
failure: {{retry_refused: never}}
"""


class Half:
    """One pipeline: what it serves, and how it fares."""

    def __init__(self, folder: Path, name: str, pidfile: Path) -> None:
        self.name, self.port = name, free_port()
        self.site, self.live, self.file = KubeletVolume(folder / f"{name}-site"), folder / name, folder / f"{name}.yaml"
        self.file.write_text(CONFIGURATION.format(site=self.site.path, live=self.live, pidfile=pidfile))
        self.say("zero")

    def say(self, text: str, *, extra: str = "") -> None:
        server = f"server {{ listen 127.0.0.1:{self.port}; location / {{ return 200 {text}; }} }}"
        self.site.swap({"site.conf": f"{extra}\n{server}\n"})

    def served(self) -> str:
        return requests.get(f"http://127.0.0.1:{self.port}/", headers={"Connection": "close"}, timeout=5).text

    def generation(self) -> str:
        return str((self.live / "..data").readlink())


class House:
    """A static configuration that includes the sets of both."""

    def __init__(self, folder: Path, nginx) -> None:
        conf, pidfile = folder / "nginx.conf", folder / "server" / "nginx.pid"
        self.spoilt, self.good = Half(folder, "spoilt", pidfile), Half(folder, "good", pidfile)
        include = "".join(f"include {half.live}/site.conf; " for half in (self.spoilt, self.good))
        conf.write_text(f"events {{}}\nhttp {{ {HTTP_DEFAULTS} {include} }}\n")
        self.server = nginx(folder / "server", conf)
        self.sidecar = Sidecar(folder / "sidecar", self.spoilt.file, self.good.file, env=self.server.env)

    def start(self) -> None:
        self.sidecar.start()
        eventually(self.sidecar.ready, what="both first publishes")
        self.server.start()
        for half in (self.spoilt, self.good):
            eventually(lambda half=half: self.sidecar.settled(half.name), what=f"{half.name} to be confirmed")

    def counted(self, what: str, half: Half) -> float:
        stage = {"stage": "verify"} if what == "refusals" else {}
        return self.sidecar.metric(f"reloader_{what}_total", pipeline=half.name, **stage)

    def owed(self, half: Half) -> object:
        return self.sidecar.pipeline(half.name)["owed"]

    def change_both(self, number: int, *, together: bool) -> None:
        """Publish the next broken set and the next good one, and see each end as it should."""
        before = self.spoilt.generation()
        self.spoilt.say("broken", extra=f"bogus nonsense{number};")
        if not together:
            eventually(lambda: self.spoilt.generation() != before, every=0.002, what="the broken set on the volume")
        self.good.say(f"good-{number}")
        eventually(lambda: self.counted("refusals", self.spoilt) == number, what="the refusal")
        eventually(lambda: self.good.served() == f"good-{number}", what="the good set")
        eventually(lambda: self.owed(self.spoilt) is None and self.owed(self.good) is None, what="both to be confirmed")
        assert self.spoilt.generation() == before
        assert self.spoilt.served() == "zero"


@pytest.fixture
def house(tmp_path, nginx):
    house = House(tmp_path, nginx)
    yield house
    house.sidecar.stop()


def test_neither_is_blamed_for_the_set_of_the_other(house):
    """Good sets that are published while the other's broken one is out are taken and served, and only the broken ones are refused."""
    house.start()
    broken = rounds(4, 60)
    for number in range(1, broken + 1):
        house.change_both(number, together=number % 2 == 0)

    assert house.counted("rollbacks", house.spoilt) == broken
    assert house.counted("refusals", house.good) == house.counted("rollbacks", house.good) == 0
    assert not house.sidecar.pipeline("good")["degraded"]

    house.spoilt.say("mended")
    eventually(lambda: house.spoilt.served() == "mended", what="the mended set")
    eventually(lambda: not house.sidecar.pipeline("spoilt")["degraded"], what="nothing to be wrong")
