"""The HTTP endpoints: small answers, bounded connections, nothing that a slow client could hold up."""

import errno
import socket
import threading

from reloader.plan import Server as Plan
from reloader.server.connections import Connections
from reloader.server.endpoints import Endpoints
from reloader.server.message import Answer, Request

__all__ = ["Endpoints", "Server"]

BACKLOG = 256
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""What a kernel without IPv6 says, or one in which it is turned off."""


class Server:
    """Serves the endpoints in a thread of its own until it is closed."""

    def __init__(self, plan: Plan, endpoints: Endpoints) -> None:
        def answer(request: Request, client: str) -> Answer:
            return endpoints.answer(request.target, client, request.host)

        host, port = _address(plan.listen)
        listening = _listening(host, port)
        self.port = int(listening.getsockname()[1])
        """The port it listens on."""
        self._connections = Connections(listening, answer)
        self._thread = threading.Thread(target=self._connections.serve, name="http", daemon=True)

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and cut what is open."""
        self._connections.stop()
        if self._thread.ident is not None:
            self._thread.join()
        self._connections.close()


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    return host.strip("[]") or "::", int(port)


def _listening(host: str, port: int) -> socket.socket:
    """Return a listening socket; the address for all of IPv6 takes IPv4 too, and means IPv4 alone where there is no IPv6."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        if host != "::" or error.errno not in _NO_IPV6:
            raise
        return socket.create_server(("0.0.0.0", port), backlog=BACKLOG)  # noqa: S104 - what the operator asked for: all addresses
