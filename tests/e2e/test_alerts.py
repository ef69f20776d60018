"""The shipped alerts in a real Prometheus that scrapes a real sidecar: each fires for its cause, and ends with it.

The rules are those that users get, but that they wait for a second instead of minutes, and that a value is stale after two seconds.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.app import process
from tests.e2e.sidecar import PROGRAM, Sidecar
from tests.kubelet import KubeletVolume
from tests.servers import running
from tests.servers.certificates import Authority
from tests.servers.consul import Consul
from tests.servers.prometheus import Prometheus
from tests.targets.started import Started, Starter, unique
from tests.waiting import eventually

RULES = (Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yaml").read_text()
UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def impatient(rules: str) -> str:
    """Return the rules as they are, with shorter waits."""
    waits, sooner = re.subn(r"^( +for:) \d+m$", r"\1 1s", rules, flags=re.MULTILINE), rules.count("> 300\n")
    assert waits[1] >= 9
    assert sooner == 1
    return waits[0].replace("> 300\n", "> 2\n")


class House:
    """A sidecar without capabilities, with a pipeline for each thing that can go wrong."""

    def __init__(self, folder: Path, consul: Consul, start: Starter) -> None:
        self._folder, self._start, self.consul = folder, start, consul
        self.mounts = {name: KubeletVolume(folder / name) for name in ("site", "tls")}
        self._authority = Authority(folder / "authority")
        self.names = {name: unique() for name in ("deaf", "foreign", "reader")}
        self.targets: dict[str, Started] = {}
        self._own: list[Path] = []
        consul.put("greeting", "hello")
        self.say("good")
        self.certify(days=1)
        for name in self.names:
            self.takes_signals(name)
        self.sidecar = Sidecar(folder / "sidecar", *self._pipelines(), program=[*UNPRIVILEGED, *PROGRAM])

    def _pipelines(self) -> list[Path]:
        site, tls = (f"{{files: {{kind: files, path: {self.mounts[name].path}}}}}" for name in ("site", "tls"))
        routes = "{routes: {kind: consul, key: greeting}}"
        text = "{app.conf: {content: \"{{ files['text'] }}\"}}"
        routed = '{app.conf: {content: "{{ routes }}"}}'
        targets = {name: process(self.names[name]) for name in self.names}
        targets["foreign"] = process("sh").replace("{name: sh}", f"{{cmdline: {self.names['foreign']}}}")
        self._write("stale", f"consul: {{address: {self.consul.address}}}", sources=routes, volume=routed)
        self._write("closed", f"consul: {{address: {self.consul.address}}}\nfailure: {{mode: closed, max_staleness: 2s}}", routes, routed)
        self._write("deaf", f"target: {targets['deaf']}", site, text)
        self._write("foreign", f"target: {targets['foreign']}", site, text)
        self._write("checked", sources=site, volume=text + ", check: {command: [grep, -rq, good, '{staged}']}")
        self._write("certified", sources=tls, volume="{tls.crt: {content: \"{{ files['tls.crt'] }}\"}}")
        self._write("mounted", f"target: {targets['reader']}", tls)
        return self._own

    def _write(self, name: str, more: str = "", sources: str = "", volume: str = "") -> None:
        file = self._folder / f"{name}.yaml"
        target = "" if "target:" in more else "target: {kind: none}\n"
        live = f"volume: {{path: {self._folder}/live-{name}, files: {volume}}}\n" if volume else ""
        file.write_text(f"sources: {sources}\n{live}{target}timing: {{min_interval: 0s}}\n{more}\n")
        self._own.append(file)

    def pipelines(self) -> list[dict[str, Any]]:
        """Return what /status says of each."""
        return list(self.sidecar.get("/status").json()["pipelines"])

    def say(self, text: str) -> None:
        self.mounts["site"].swap({"text": text})

    def certify(self, *, days: float) -> None:
        """Mount a certificate that ends in so many days, and began a day ago."""
        certificate, _ = self._authority.issue("web", days=days)
        self.mounts["tls"].swap({"tls.crt": certificate.read_bytes()})

    def takes_signals(self, name: str) -> None:
        """Have a target that reloads, in the place of the one before."""
        self._put(name, self._start.target(self.names[name], self.names[name]))

    def ignores_signals(self, name: str) -> None:
        self._put(name, self._start.target(self.names[name], "--handler", "ignore"))

    def is_foreign(self, name: str) -> None:
        """Have a target of another user, which takes the signal if somebody may send it."""
        self._put(name, self._start.run(*NOBODY, "sh", "-c", "trap : HUP; echo up; while :; do sleep 1; done", self.names[name]))

    def _put(self, name: str, target: Started) -> None:
        before = self.targets.pop(name, None)
        if before is not None:
            before.stop()
        self.targets[name] = target

    def break_configuration(self) -> None:
        self._own[0].write_text(f"{self._own[0].read_text()}surprise: 1\n")

    def mend_configuration(self) -> None:
        self._own[0].write_text(self._own[0].read_text().replace("surprise: 1\n", ""))


FIRING = {
    ("ReloaderSourceStale", "stale"),
    ("ReloaderSourceStale", "closed"),
    ("ReloaderClosed", "closed"),
    ("ReloaderReloadOwed", "deaf"),
    ("ReloaderPermissionDenied", "foreign"),
    ("ReloaderChangeNotPublished", "checked"),
    ("ReloaderCertificateNearEnd", "certified"),
    ("ReloaderCertificateNearEnd", "mounted"),
    ("ReloaderConfigurationRefused", ""),
}


@pytest.fixture
def house(tmp_path: Path, own_consul: Consul, start: Starter) -> Iterator[House]:
    house = House(tmp_path, own_consul, start)
    yield house
    house.sidecar.stop()


@pytest.mark.servers
@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to run something as another user")
def test_each_alert_fires_for_its_cause_and_ends_with_it(tmp_path: Path, house: House) -> None:
    house.sidecar.start()
    eventually(lambda: all(each["ready"] and not each["degraded"] for each in house.pipelines()), what="everything to be well")
    eventually(lambda: not any(each["owed"] for each in house.pipelines()), what="every target to run on it")
    with running(lambda: Prometheus(tmp_path / "prometheus", {"here": house.sidecar.port}, impatient(RULES))) as prometheus:
        enough = "min(count_over_time(reloader_closed[1m])) > 12"
        eventually(lambda: prometheus.query(enough), what="three seconds of history")
        assert prometheus.firing() == {}

        house.consul.stop(kill=True)
        house.ignores_signals("deaf")
        house.is_foreign("foreign")
        house.say("bad")
        house.certify(days=0.01)
        house.break_configuration()
        eventually(lambda: prometheus.firing().keys() == FIRING, within=60, what="every alert")
        for (_, pipeline), told in prometheus.firing().items():
            assert pipeline in told["summary"]
            assert "here" in told["summary"] + told["description"]
            assert not re.search(r"{{|no value|error", told["summary"] + told["description"])
        house.certify(days=-0.01)
        ended = {("ReloaderCertificateEnded", "certified"), ("ReloaderCertificateEnded", "mounted")}
        eventually(lambda: ended <= prometheus.firing().keys(), what="the end of the certificate")

        house.consul.start()
        house.consul.put("greeting", "hello again")
        house.takes_signals("deaf")
        house.takes_signals("foreign")
        house.say("good again")
        house.certify(days=1)
        house.mend_configuration()
        eventually(lambda: prometheus.firing() == {}, within=60, what="the end of every alert")

        house.sidecar.stop(kill=True)
        eventually(lambda: prometheus.firing().keys() == {("ReloaderDown", "")}, what="the alert on a sidecar that is gone")
        house.sidecar.start()
        eventually(lambda: prometheus.firing() == {}, what="its end")
