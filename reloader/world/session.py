"""The one HTTP session under hvac and the Consul client: nothing waits for ever, follows a redirect, or takes endless data.

The timeouts of requests hold for each recv, so that a server that sends a byte now and then keeps a client for ever (measured with hvac
and py-consul). Here the time that is left is given to every recv and send on the socket: headers and body that drip end on time, without
a thread that watches. What a deadline cannot end is the lookup of a host name, which is the resolver's own affair.
"""

import contextlib
import io
import socket
import threading
import time
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from reloader.plan import Tls
from reloader.world.connections import Connections

CONNECT_TIMEOUT = 3.0
"""How many seconds a connection to one address may take, and its TLS handshake again."""
BODY_LIMIT = 64 * 2**20
"""How many bytes a body may have, unpacked."""

_CHUNK = 64 * 2**10
_REDIRECTS = range(300, 400)


class DeadlineExceeded(requests.Timeout):
    """The answer was not there, whole, when the time for the request was over."""


class RedirectRefused(requests.RequestException):
    """The answer sends us elsewhere, where our token must not go; the message names the host and no more of the location."""


class TooLarge(requests.RequestException):
    """The body is larger than `BODY_LIMIT`."""


class BoundedSession(requests.Session):
    """A session whose `timeout`, its own or a request's, is the deadline of the whole request.

    Every way in which a request fails is a `requests.RequestException`; of these, TLS files that are missing or no use are `SSLError`.
    Environment variables, `.netrc` and the verify, cert and redirect arguments of a request have no say. Nothing is retried. It keeps
    `connections` open at most, and no more than `among` leaves it, where there are several sessions to one address.
    """

    def __init__(self, tls: Tls, *, timeout: float, connections: int = 1, among: Connections | None = None) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = (tls.ca_file or True) if tls.verify else False
        self.cert = (tls.cert_file, tls.key_file) if tls.cert_file and tls.key_file else tls.cert_file
        self._timeout = timeout
        self._guard = _Guard(among or Connections(lambda: connections))
        adapter = _Adapter(self._guard, tls.server_name, connections)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request and return the answer with its body, all within the deadline.

        Raises:
            DeadlineExceeded: it took longer.
            RedirectRefused: the status is 3xx.
            TooLarge: the body is.

        """
        seconds = _total(kwargs.pop("timeout", None) or self._timeout)
        ours = {"stream": True, "verify": self.verify, "cert": self.cert, "timeout": (min(CONNECT_TIMEOUT, seconds), seconds)}
        self._guard.start(seconds)
        try:
            return _whole(super().send(request, **kwargs | ours))
        except requests.RequestException as error:
            if self._guard.expired():
                raise DeadlineExceeded(f"no complete answer within {seconds:g} s", request=request) from error
            raise
        except OSError as error:
            # requests looks for the files of verify and cert itself, and says so with a bare OSError.
            raise requests.exceptions.SSLError(str(error), request=request) from error
        finally:
            self._guard.end()

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: a redirect is never followed, nor its body read to get ready for that."""

    def close(self) -> None:
        """Free the connections; requests under way on other threads fail at once, and so do later ones."""
        self._guard.cut()
        super().close()


class _Guard:
    """The deadline and the connection of the request on each thread, and the sockets to cut when the session is closed."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._request = threading.local()
        self._lock = threading.Lock()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._closed = False

    def start(self, seconds: float) -> None:
        if self._closed:
            raise requests.ConnectionError("the session is closed")
        self._request.deadline = time.monotonic() + seconds
        self._request.connection = None

    def end(self) -> None:
        """Leave the connection of this thread's request to whoever needs one."""
        if self._request.connection is not None:
            self._connections.release(self._request.connection)

    def expired(self) -> bool:
        return bool(time.monotonic() >= self._request.deadline)

    def bound(self, sock: socket.socket) -> None:
        """Give the socket the time that is left to this thread's request."""
        left = self._request.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for the request is over")
        sock.settimeout(left)

    def opens(self, connection: "_Connection") -> None:
        """Take that a connection is about to be made for this thread's request."""
        self._request.connection = connection
        self._connections.admit(connection)

    def takes(self, connection: "_Connection") -> bool:
        """Take that this thread's request is to be sent on a connection that was kept open; return whether it still is."""
        self._request.connection = connection
        return self._connections.claim(connection)

    def closed(self, connection: "_Connection") -> None:
        """Take that a connection is no more."""
        self._connections.forget(connection)

    def admit(self, sock: socket.socket) -> socket.socket:
        """Return the new socket with every use of it bounded."""
        with self._lock:
            if self._closed:
                sock.close()
                raise ConnectionAbortedError("the session is closed")
            self._sockets.add(sock)
        return cast("socket.socket", _BoundedSocket(sock, self))

    def cut(self) -> None:
        with self._lock:
            self._closed = True
            for sock in self._sockets:
                _shut(sock)


class _BoundedSocket:
    """A socket as http.client uses one: `sendall`, and reads through `makefile`."""

    def __init__(self, sock: socket.socket, guard: _Guard) -> None:
        self._sock = sock
        self._guard = guard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, data: bytes) -> None:
        self._guard.bound(self._sock)
        self._sock.sendall(data)

    def shut(self) -> None:
        _shut(self._sock)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self._sock, self._guard))


class _BoundedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, guard: _Guard) -> None:
        self._sock = sock
        self._guard = guard
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._guard.bound(self._sock)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Connection(HTTPConnection):
    """One of those that the guard knows of."""

    def __init__(self, guard: _Guard, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._guard = guard

    def connect(self) -> None:
        self._guard.opens(self)
        super().connect()
        self.sock = self._guard.admit(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None and not self._guard.takes(self):
            self.close()  # another one is opened in its place
        super().request(*args, **kwargs)

    def close(self) -> None:
        self._guard.closed(self)  # first, so that nobody drops what has no socket any more
        super().close()

    def drop(self) -> None:
        """End it; it is closed by whoever finds it ended, as when the server did that."""
        cast("_BoundedSocket", self.sock).shut()


class _TlsConnection(_Connection, HTTPSConnection):
    """The same with TLS."""


class _Adapter(HTTPAdapter):
    def __init__(self, guard: _Guard, server_name: str | None, connections: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=connections, max_retries=0)
        self._connections = {"http": partial(_Connection, guard), "https": partial(_TlsConnection, guard)}
        self._names = {"server_hostname": server_name, "assert_hostname": server_name} if server_name else {}

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
        host, tls = super().build_connection_pool_key_attributes(*args, **kwargs)
        return host, tls | self._names

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = self._connections[pool.scheme]
        return pool


def _shut(sock: socket.socket) -> None:
    """End a connection, also under a thread that reads; SSLSocket's own shutdown would take the TLS state away from under it."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _total(timeout: Any) -> float:
    """Return the seconds of a requests timeout; of a pair, those for reading."""
    return float(timeout[1] if isinstance(timeout, tuple) else timeout)


def _whole(response: requests.Response) -> requests.Response:
    """Return the response with its body read."""
    with contextlib.ExitStack() as failed:
        failed.callback(response.close)
        if response.status_code in _REDIRECTS:
            raise RedirectRefused(_refusal(response), response=response)
        response._content = _body(response)  # noqa: SLF001 - as requests itself does when it is not told to stream
        failed.pop_all()
    return response


def _refusal(response: requests.Response) -> str:
    try:
        parts = urlsplit(response.headers.get("Location", ""))
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    except ValueError:
        host = None
    return f"status {response.status_code}: redirected to {host or 'another path'}, which is not followed"


def _body(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > BODY_LIMIT:
            raise TooLarge(f"the answer is larger than {BODY_LIMIT // 2**20} MiB", response=response)
    return bytes(body)
