"""A real HAProxy is given what it cannot use, without a check before it: what was confirmed comes back, and the rest goes on."""

import pytest

from tests.e2e.refusing import Asking, House
from tests.waiting import eventually

pytestmark = pytest.mark.servers


class HaproxyHouse(House):
    """HAProxy in master-worker mode, which the sidecar asks by SIGUSR2."""

    signal = "USR2"
    files = """
    proxy.conf: {content: "{{ site['proxy.conf'] }}"}
    site.pem: {content: "{{ tls['tls.crt'] }}\\n{{ tls['tls.key'] }}"}"""

    def match(self) -> str:
        return f"{{cmdline: {self.live}/proxy\\.conf}}"

    def conf(self, text: str, *, main: str, http: str) -> str:
        timeouts = "".join(f"  timeout {which} 5s\n" for which in ("client", "connect", "server"))
        answer = f"http-request return status 200 content-type text/plain string {text}"
        web = f"frontend web\n  bind 127.0.0.1:{self.port} ssl crt {self.live}/site.pem\n  {answer}\n"
        return f"{main}\ndefaults\n  mode http\n{timeouts}{http}\n{web}"

    def signals(self) -> int:
        """Return how often HAProxy read its configuration again, by its own account."""
        return self.server.log.read_text().count("Reloading HAProxy")


def bad_directive(house: House) -> None:
    house.say("broken", main="bogus nonsense")


def another_key(house: House) -> None:
    house.certify(key_of_another=True)


def unknown_name(house: House) -> None:
    house.say("broken", http="backend late\n  server late late.test:80")


@pytest.fixture
def house(tmp_path, haproxy):
    house = HaproxyHouse(tmp_path, haproxy)
    yield house
    house.sidecar.stop()


@pytest.mark.parametrize("spoil", [bad_directive, another_key, unknown_name], ids=lambda spoil: spoil.__name__)
def test_what_the_master_refuses_is_taken_back(house, spoil):
    """The master waits with its old worker, one refusal is reported, the other source is delivered, and the next good change at once."""
    house.begin()
    signals, master, certificate = house.signals(), house.sidecar.pipeline()["target"]["pid"], spoil is another_key
    with Asking(house) as asking:
        house.spoil(lambda: spoil(house))
        eventually(house.delivered, what="the rollback to be confirmed")

        house.say("meanwhile") if certificate else house.certify()
        eventually(house.delivered, what="the change of the other source")
        assert house.sidecar.pipeline()["degraded"]

        house.certify() if certificate else house.say("mended")
        eventually(house.delivered, what="the mended source")
        eventually(lambda: not house.sidecar.pipeline()["degraded"], what="nothing to be wrong")
    assert asking.failures == []
    assert asking.requests > 10
    assert house.refusals() == 1
    assert house.signals() - signals == 4
    assert house.sidecar.pipeline()["target"]["pid"] == master
