"""A real NGINX is given what it cannot use, without a check before it: what was confirmed comes back, and the rest goes on."""

import os
import shutil
import subprocess

import pytest

from tests.e2e.refusing import Asking, House
from tests.servers.nginx import HTTP_DEFAULTS
from tests.servers.resolver import Resolver
from tests.waiting import eventually

pytestmark = pytest.mark.servers


class NginxHouse(House):
    """NGINX, which the sidecar asks by SIGHUP."""

    signal = "HUP"
    files = """
    proxy.conf: {content: "{{ site['proxy.conf'] }}"}
    tls.crt: {content: "{{ tls['tls.crt'] }}"}
    tls.key: {content: "{{ tls['tls.key'] }}"}"""

    def match(self) -> str:
        return f"{{pidfile: {self.folder / 'server' / 'nginx.pid'}}}"

    def conf(self, text: str, *, main: str, http: str) -> str:
        tls = f"ssl_certificate {self.live}/tls.crt; ssl_certificate_key {self.live}/tls.key;"
        server = f"server {{ listen 127.0.0.1:{self.port} ssl; {tls} location / {{ return 200 {text}; }} }}"
        return f"{main}\nevents {{}}\nhttp {{ {HTTP_DEFAULTS} {http} {server} }}\n"

    def signals(self) -> int:
        """Return how often NGINX was asked, by its own account."""
        return self.server.error_log.read_text().count("signal 1 (SIGHUP) received")


def bad_directive(house: House) -> None:
    house.say("broken", http="bogus nonsense;")


def another_key(house: House) -> None:
    house.certify(key_of_another=True)


def unknown_name(house: House) -> None:
    house.say("broken", http="upstream late { server late.test:80; }")


def workers_that_end(house: House) -> None:
    """Each worker ends at once, and its master does not replace it: `working_directory` is entered by them alone."""
    house.say("broken", main=f"working_directory {house.folder}/nothing;")


def ends_at_once(house: House) -> None:
    """Spoil it so that the master ends: a module whose start ends the process, as one of another version may."""
    module = house.folder / "module.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", module, "-xc", "-"], input=ENDING, text=True, check=True)
    house.say("broken", main=f"load_module {module};")


ENDING = """
#include <unistd.h>
__attribute__((constructor)) static void end(void) { _exit(1); }
"""


@pytest.fixture
def house(tmp_path, nginx):
    made: list[NginxHouse] = []

    def make(**options: str) -> NginxHouse:
        made.append(NginxHouse(tmp_path, nginx, **options))
        return made[0]

    yield make
    for each in made:
        each.sidecar.stop()


@pytest.mark.parametrize("spoil", [bad_directive, another_key, unknown_name], ids=lambda spoil: spoil.__name__)
def test_what_the_master_refuses_is_taken_back(house, spoil):
    """Old workers serve on, one refusal is reported, the other source is delivered meanwhile, and the next good change at once."""
    house = house().begin()
    signals, certificate = house.signals(), spoil is another_key
    with Asking(house) as asking:
        house.spoil(lambda: spoil(house))
        eventually(lambda: house.sidecar.pipeline()["owed"] is None, what="the rollback to be confirmed")
        assert house.delivered()

        house.say("meanwhile") if certificate else house.certify()
        eventually(house.delivered, what="the change of the other source")
        status = house.sidecar.pipeline()
        assert {source["name"]: source["held"] for source in status["sources"]} == {"site": not certificate, "tls": certificate}
        assert (status["ready"], status["degraded"]) == (True, True)

        house.certify() if certificate else house.say("mended")
        eventually(house.delivered, what="the mended source")
        eventually(lambda: not house.sidecar.pipeline()["degraded"], what="nothing to be wrong")
    assert asking.failures == []
    assert asking.requests > 10
    assert house.refusals() == 1
    assert house.signals() - signals == 4


def test_workers_that_end_at_once_are_no_proof(house):
    """NGINX takes it and is left without a worker: what was confirmed comes back, and workers with it."""
    house = house().begin()
    house.spoil(lambda: workers_that_end(house))
    eventually(house.delivered, what="workers on what was confirmed")

    house.certify()
    eventually(house.delivered, what="the certificate")
    house.say("mended")
    eventually(house.delivered, what="the mended configuration")
    assert house.refusals() == 1


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_content_that_ends_the_master_is_taken_back_before_its_restart(house):
    """One that is restarted starts on what was confirmed, and the rest goes on."""
    house = house().begin()
    house.spoil(lambda: ends_at_once(house))
    assert not house.server.running

    house.server.stop()
    house.start_server()
    eventually(house.delivered, what="the restarted NGINX to be verified")

    house.certify()
    eventually(house.delivered, what="the certificate")
    house.say("mended")
    eventually(house.delivered, what="the mended configuration")
    assert house.refusals() == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for an /etc/resolv.conf of its own")
def test_a_name_that_resolves_after_20_seconds_is_tried_again_and_holds_up_nothing(house):
    """The master is deaf while it looks for a name: neither what is put back meanwhile nor the certificate is blamed for that."""
    house = house(retry="3s")
    with Resolver(house.folder, silent=20) as resolver:
        house.through = resolver.through
        house.begin()
        with Asking(house) as asking:
            house.spoil(lambda: unknown_name(house))
            house.certify()
            # Nothing is owed for no more than a moment: what is held is tried again at once then.
            eventually(lambda: house.served() == house.expected, within=15, what="the certificate")
            assert not resolver.speaks

            text, certificate = "broken", house.expected[1]
            eventually(lambda: house.served() == (text, certificate), within=40, what="the same content, once the name is known")
            eventually(house.sidecar.settled, what="its confirmation")
            eventually(lambda: not house.sidecar.pipeline()["degraded"], what="nothing to be wrong")

            house.say("mended")
            eventually(house.delivered, what="the next good change")
    assert asking.failures == []
    assert resolver.lookups > 2
    assert house.sidecar.metric("reloader_rollbacks_total") > 1
    assert house.refusals() == 1
    assert house.refusals_told() == 1
