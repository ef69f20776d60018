"""A real NGINX is given what it cannot use, without a check before it: what was confirmed comes back, and the rest goes on."""

import os
import shutil
import subprocess

import pytest

from tests.e2e.refusing import House, another_key, check_a_name_that_resolves_late, check_a_restart_after, check_that_it_is_taken_back
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
def house(tmp_path, nginx, closing):
    return lambda **options: closing(NginxHouse(tmp_path, nginx, **options))


@pytest.mark.parametrize("spoil", [bad_directive, another_key, unknown_name], ids=lambda spoil: spoil.__name__)
def test_what_the_master_refuses_is_taken_back(house, spoil):
    """Old workers serve on."""
    check_that_it_is_taken_back(house().begin(), spoil)


def test_workers_that_end_at_once_are_no_proof(house):
    """NGINX takes it and is left without a worker: what was confirmed comes back, and workers with it."""
    house = house().begin()
    house.spoil(lambda: workers_that_end(house))
    eventually(house.delivered, what="workers on what was confirmed")
    house.goes_on()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_content_that_ends_the_master_is_taken_back_before_its_restart(house):
    check_a_restart_after(house().begin(), ends_at_once)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for an /etc/resolv.conf of its own")
def test_a_name_that_resolves_after_20_seconds_is_tried_again_and_holds_up_nothing(house):
    house = house(retry="3s")
    with Resolver(house.folder, silent=20) as resolver:
        check_a_name_that_resolves_late(house, resolver, unknown_name)
    assert resolver.lookups > 2
    assert house.sidecar.metric("reloader_rollbacks_total") > 1
