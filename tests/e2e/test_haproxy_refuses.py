"""A real HAProxy is given what it cannot use, without a check before it: what was confirmed comes back, and the rest goes on."""

import os

import pytest

from tests.e2e.refusing import Asking, House
from tests.servers.resolver import Resolver
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


def ends_at_once(house: House) -> None:
    """Spoil it so that the master ends: a script that kills it, as a library of another version may."""
    script = house.folder / "ends.lua"
    script.write_text("os.execute('kill -KILL $PPID')\n")
    house.say("broken", main=f"global\n  lua-load {script}")


@pytest.fixture
def make(tmp_path, haproxy):
    made: list[HaproxyHouse] = []

    def make(**options: str) -> HaproxyHouse:
        made.append(HaproxyHouse(tmp_path, haproxy, **options))
        return made[0]

    yield make
    for house in made:
        house.sidecar.stop()


@pytest.fixture
def house(make):
    return make()


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


def test_content_that_ends_the_master_is_taken_back_before_its_restart(house):
    """One that is restarted starts on what was confirmed, and the rest goes on."""
    house.begin()
    house.spoil(lambda: ends_at_once(house))
    assert not house.server.running

    house.server.stop()
    house.start_server()
    eventually(house.delivered, what="the restarted HAProxy to be verified")

    house.certify()
    eventually(house.delivered, what="the certificate")
    house.say("mended")
    eventually(house.delivered, what="the mended configuration")
    assert house.refusals() == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for an /etc/resolv.conf of its own")
def test_a_name_that_resolves_later_is_tried_again_and_holds_up_nothing(make):
    """The master is deaf while it looks for a name: neither what is put back meanwhile nor the certificate is blamed for that."""
    house = make(retry="3s")
    with Resolver(house.folder, silent=20, patience=2) as resolver:
        house.through = resolver.through
        house.begin()
        master = house.sidecar.pipeline()["target"]["pid"]
        with Asking(house) as asking:
            house.spoil(lambda: unknown_name(house))
            house.certify()
            # Nothing is owed for no more than a moment: what is held is tried again at once then.
            eventually(lambda: house.served() == house.expected, within=15, what="the certificate")
            assert not resolver.speaks

            text, certificate = "broken", house.expected[1]
            eventually(lambda: house.served() == (text, certificate), within=40, what="the same content, once the name is known")
            eventually(house.sidecar.settled, what="its confirmation")

            house.say("mended")
            eventually(house.delivered, what="the next good change")
    assert asking.failures == []
    assert resolver.lookups > 1
    assert (house.refusals(), house.refusals_told()) == (1, 1)
    assert house.sidecar.pipeline()["target"]["pid"] == master
