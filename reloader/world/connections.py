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
        self._used: dict[Connection, bool] = {}  # whether one is in use; the one that was used last comes last

    def admit(self, connection: Connection) -> None:
        """Count one that is about to be opened for a request."""
        with self._lock:
            self._note(connection, in_use=True)

    def claim(self, connection: Connection) -> bool:
        """Keep one that is open for a request, until `release`; return False where it was ended meanwhile."""
        with self._lock:
            if connection not in self._used:
                return False
            self._note(connection, in_use=True)
            return True

    def release(self, connection: Connection) -> None:
        """Take that its request is over; one that was closed with that is none any more."""
        with self._lock:
            if connection in self._used:
                self._note(connection, in_use=False)

    def forget(self, connection: Connection) -> None:
        """Take that one was closed."""
        with self._lock:
            self._used.pop(connection, None)

    def _note(self, connection: Connection, *, in_use: bool) -> None:
        self._used.pop(connection, None)
        self._used[connection] = in_use
        idle = [each for each, used in self._used.items() if not used]
        for each in idle[: max(0, len(self._used) - self._most())]:
            del self._used[each]
            each.drop()
