"""All connections in one thread: a client that is slow, silent or one of many costs a descriptor and a few KiB, never a thread."""

import errno
import logging
import os
import selectors
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from math import inf

from reloader.internal import told
from reloader.server.message import Answer, Refused, Request, encoded, head_of, parsed

log = logging.getLogger("reloader")

LIMIT = 5.0
"""How many seconds one connection may last: a request is a few lines, and the answer is small."""
FAREWELL = 1.0
"""How many seconds a client has, of those, to close after it was answered."""
CONNECTIONS = 128
"""How many there may be at once; for one more, one is cut, see `_crowding`."""
UNTAKEN = 16
"""How many of them may have an answer that the client does not take: each holds its memory."""
BATCH = 32
"""How many are accepted before those that are there are looked at again, well below `CONNECTIONS`: who asks at once is not cut."""
PAUSE = 0.5
"""How many seconds nothing is accepted when the machine gives no descriptor for it."""
CHUNK = 8 * 1024
DISCARDED = 64 * 1024
"""How many bytes are read after the request, as of a body, so that the client gets the answer rather than a reset."""
SEND_BUFFER = 64 * 1024
"""What the kernel keeps for a client that does not read, in bytes; else it may be megabytes."""

_AT_ONCE = struct.pack("ii", 1, 0)

Answering = Callable[[Request, str], Answer]


@dataclass(eq=False)
class Connection:
    """One client."""

    socket: socket.socket
    client: str
    """Its address."""
    until: float
    received: bytearray = field(default_factory=bytearray)
    left: memoryview = field(default_factory=lambda: memoryview(b""))
    """What of the answer it has not taken."""
    answered: bool = False
    discarded: int = 0


class Connections:
    """Accepts and serves until it is stopped; `answering` gets a request and the client's address, in the one thread of `serve`."""

    def __init__(self, listening: socket.socket, answering: Answering) -> None:
        self._listening = listening
        self._answering = answering
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._open: list[Connection] = []
        """The oldest first."""
        self._accepting_from = -inf
        self._unaccepted: str | None = None
        """Why nothing can be accepted now."""
        self._stopping = False
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # what is accepted has it too
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(listening, selectors.EVENT_READ)

    def serve(self) -> None:
        """Serve until `stop`, and then cut what is open."""
        while not self._stopping:
            ready = {key.fileobj: key.data for key, _ in self._selector.select(self._pause())}
            for connection in filter(None, ready.values()):
                self._step(connection)
            if self._listening in ready:
                self._accept()
            self._keep_time()
        for connection in [*self._open]:
            self._cut(connection)
        self._selector.close()

    def stop(self) -> None:
        """Have `serve` return; from any thread."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Let go of what a `serve` that returned, or never began, leaves."""
        self._listening.close()
        os.close(self._wake)

    def _pause(self) -> float | None:
        """Return how many seconds there is nothing to do but to wait for clients; None for ever."""
        due = min((connection.until for connection in self._open), default=inf)
        if self._accepting_from > -inf:
            due = min(due, self._accepting_from)
        return None if due == inf else max(0.0, due - time.monotonic())

    def _keep_time(self) -> None:
        now = time.monotonic()
        for connection in [each for each in self._open if each.until <= now]:
            self._cut(connection)
        if -inf < self._accepting_from <= now:
            self._accepting_from = -inf
            self._selector.register(self._listening, selectors.EVENT_READ)

    def _accept(self) -> None:
        for _ in range(BATCH):
            try:
                accepted, address = self._listening.accept()
                self._take(accepted, str(address[0]))
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # it left before we came
            except OSError as error:
                self._cannot_accept(error)
                return
            self._unaccepted = None

    def _cannot_accept(self, error: OSError) -> None:
        """Make room by cutting a client; wait where there is none, since the listener would be ready over and over."""
        reason = error.strerror or str(error)
        if reason != self._unaccepted:
            mend = "; raise the limit of open files" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
            log.error("cannot accept connections, so probes go unanswered", extra={"fields": {"reason": f"{reason}{mend}"}})
            self._unaccepted = reason
        if self._open:
            self._cut(_crowding(self._open))
        else:
            self._selector.unregister(self._listening)
            self._accepting_from = time.monotonic() + PAUSE

    def _take(self, accepted: socket.socket, client: str) -> None:
        if len(self._open) >= CONNECTIONS:
            self._cut(_crowding(self._open))
        accepted.setblocking(False)
        connection = Connection(accepted, client, time.monotonic() + LIMIT)
        try:
            self._selector.register(accepted, selectors.EVENT_READ, connection)
        except OSError:  # fs.epoll.max_user_watches
            accepted.close()
            raise
        self._open.append(connection)
        self._step(connection)  # most have asked already

    def _step(self, connection: Connection) -> None:
        """Go on with a client that is ready for it, unless it was cut meanwhile."""
        if connection not in self._open:
            return
        try:
            if connection.left:
                self._give(connection)
            elif connection.answered:
                self._discard(connection)
            else:
                self._read(connection)
        except BlockingIOError:
            return
        except OSError:
            self._cut(connection)  # the client left

    def _read(self, connection: Connection) -> None:
        data = connection.socket.recv(CHUNK)
        if not data:
            self._cut(connection)
            return
        before = len(connection.received)
        connection.received += data
        answer = self._answer(connection, before)
        if answer is not None:
            connection.answered = True
            connection.received.clear()
            connection.left = memoryview(answer)
            self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
            self._give(connection)

    def _answer(self, connection: Connection, before: int) -> bytes | None:
        """Return the whole answer, or None while the request is not complete."""
        try:
            head = head_of(connection.received, before)
            if head is None:
                return None
            request = parsed(head)
            return encoded(self._answering(request, connection.client), with_body=request.method != "HEAD")
        except Refused as refused:
            return encoded(refused.answer)
        except Exception as error:  # noqa: BLE001 - a mistake of ours
            log.error("request failed: %s", told(error))  # noqa: TRY400 - the text may quote a value
            return encoded(Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"this is a mistake in reloader; its log has more\n"))

    def _give(self, connection: Connection) -> None:
        connection.left = connection.left[connection.socket.send(connection.left) :]
        if not connection.left:
            self._say_farewell(connection)
            return
        untaken = [each for each in self._open if each.left]
        if len(untaken) > UNTAKEN:
            self._cut(_crowding(untaken))

    def _say_farewell(self, connection: Connection) -> None:
        connection.socket.shutdown(socket.SHUT_WR)
        connection.until = min(connection.until, time.monotonic() + FAREWELL)
        self._selector.modify(connection.socket, selectors.EVENT_READ, connection)

    def _discard(self, connection: Connection) -> None:
        data = connection.socket.recv(CHUNK)
        connection.discarded += len(data)
        if not data:
            self._forget(connection)
        elif connection.discarded > DISCARDED:
            self._cut(connection)

    def _cut(self, connection: Connection) -> None:
        """Reset a connection, so that the kernel keeps nothing for it."""
        with suppress(OSError):
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self._open.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()


def _crowding(connections: Iterable[Connection]) -> Connection:
    """Return the oldest connection of the address that has most, so that a flood cuts itself and not the kubelet."""
    there = list(connections)
    each = Counter(connection.client for connection in there)
    return max(there, key=lambda connection: each[connection.client])
