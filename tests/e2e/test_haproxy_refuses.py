"""A real HAProxy is given what it cannot use, without a check before it: what was confirmed comes back, and the rest goes on."""

import os

import pytest

from tests.e2e.refusing import House, another_key, check_a_name_that_resolves_late, check_a_restart_after, check_that_it_is_taken_back
from tests.servers.resolver import Resolver

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


def unknown_name(house: House) -> None:
    house.say("broken", http="backend late\n  server late late.test:80")


def ends_at_once(house: House) -> None:
    """Spoil it so that the master ends: a script that kills it, as a library of another version may."""
    script = house.folder / "ends.lua"
    script.write_text("os.execute('kill -KILL $PPID')\n")
    house.say("broken", main=f"global\n  lua-load {script}")


@pytest.fixture
def house(tmp_path, haproxy, closing):
    return lambda **options: closing(HaproxyHouse(tmp_path, haproxy, **options))


@pytest.mark.parametrize("spoil", [bad_directive, another_key, unknown_name], ids=lambda spoil: spoil.__name__)
def test_what_the_master_refuses_is_taken_back(house, spoil):
    """The master waits with its old worker."""
    check_that_it_is_taken_back(house().begin(), spoil)


def test_content_that_ends_the_master_is_taken_back_before_its_restart(house):
    check_a_restart_after(house().begin(), ends_at_once)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for an /etc/resolv.conf of its own")
def test_a_name_that_resolves_later_is_tried_again_and_holds_up_nothing(house):
    house = house(retry="3s")
    with Resolver(house.folder, silent=20, patience=2) as resolver:
        check_a_name_that_resolves_late(house, resolver, unknown_name)
    assert resolver.lookups > 1
