"""The connections that are open to one address, over all sessions: where there are more than its bound, those that idle give way."""

import threading
from collections.abc import Callable
from typing import Protocol


class Connection(Protocol):
    """What may be kept open from one request to the next."""

    def drop(self) -> None:
        """End it while it idles; whoever kept it finds out when it is to be used again."""


class Connections:
    """Those to one address; used by several threads at once. What is in use is never ended: that is bounded by who makes the requests."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._users: dict[Connection, int | None] = {}
        """The thread whose request each is in use for; the one that was used last comes last."""

    def admit(self, connection: Connection) -> None:
        """Count one that is about to be opened for a request."""
        with self._lock:
            self._note(connection, threading.get_ident())

    def claim(self, connection: Connection) -> bool:
        """Keep one that is open for a request, until `release`; return False where it was ended meanwhile."""
        with self._lock:
            if connection not in self._users:
                return False
            self._note(connection, threading.get_ident())
            return True

    def release(self, connection: Connection) -> None:
        """Take that the request of this thread is over; its connection may be closed by now, or in use by another thread."""
        with self._lock:
            if self._users.get(connection) == threading.get_ident():
                self._note(connection, None)

    def forget(self, connection: Connection) -> None:
        """Take that one was closed."""
        with self._lock:
            self._users.pop(connection, None)

    def _note(self, connection: Connection, user: int | None) -> None:
        self._users.pop(connection, None)
        self._users[connection] = user
        idle = [each for each, user in self._users.items() if user is None]
        for each in idle[: max(0, len(self._users) - self._most())]:
            del self._users[each]
            each.drop()
