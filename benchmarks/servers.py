"""Consul and OpenBao, started when a scenario first asks for them: one of each for the whole run, in the clear and with TLS."""

from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from tests.servers import Startable
from tests.servers.certificates import Authority
from tests.servers.consul import Consul
from tests.servers.openbao import OpenBao
from tests.servers.ports import free_port

Server = TypeVar("Server", bound=Startable)


class TwofoldConsul(Consul):
    """One that is asked in the clear, or with TLS by those who have a certificate."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder, authority)
        plain = free_port()
        self.config["ports"] = {**self.ports, "http": plain}
        self.tls_address, self.address = self.address, f"http://127.0.0.1:{plain}"


class TwofoldOpenBao(OpenBao):
    """One that is asked in the clear, or with TLS."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder)
        port = free_port()
        self.tls_address = f"https://127.0.0.1:{port}"
        certificate, key = authority.issue("127.0.0.1", "localhost")
        with (folder / "openbao.hcl").open("a") as configuration:
            configuration.write(
                f'listener "tcp" {{\n  address = "127.0.0.1:{port}"\n  cluster_address = "127.0.0.1:{free_port()}"\n'
                f'  tls_cert_file = "{certificate}"\n  tls_key_file = "{key}"\n}}\n'
            )


class Servers:
    """Those of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ends = ExitStack()

    @cached_property
    def authority(self) -> Authority:
        """Who signed the certificates of both."""
        return Authority(self._folder / "certificates")

    @cached_property
    def consul(self) -> TwofoldConsul:
        """Consul, which keeps its data on disk.

        Raises:
            UnavailableError: it cannot be had here.

        """
        return self._started(TwofoldConsul(self._folder / "consul", self.authority))

    @cached_property
    def openbao(self) -> TwofoldOpenBao:
        """OpenBao with a KV v2 at `kv/`.

        Raises:
            UnavailableError: it cannot be had here.

        """
        server = self._started(TwofoldOpenBao(self._folder / "openbao", self.authority))
        server.enable("kv", "kv", version="2")
        return server

    def close(self) -> None:
        """End them."""
        self._ends.close()

    def _started(self, server: Server) -> Server:
        self._ends.callback(server.stop, kill=True)
        server.start()
        return server
