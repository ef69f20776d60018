"""Leases that were revoked behind our back: what was issued is had anew once at once, and then after a longer and longer wait."""

import threading
from dataclasses import dataclass
from math import inf

from reloader.backends.vault.client import Client
from reloader.backends.vault.issued import Issued, Read
from reloader.schedule import Backoff
from reloader.snapshot import FailureKind
from reloader.world.clock import Clock

LOST = Backoff(base=2.0, cap=600.0)
"""How long to wait after an issue, when one lease after the other is gone."""


@dataclass
class _Loss:
    """Leases of one read that were gone, one after the other."""

    count: int = 0
    last_issue: float = -inf


class Losses:
    """Those of one backend; used by several threads at once."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._losses: dict[Read, _Loss] = {}

    def issued(self, issued: Issued) -> None:
        """Take that something was issued."""
        with self._lock:
            self._losses.setdefault(issued.read, _Loss()).last_issue = issued.at

    def lives(self, read: Read) -> None:
        """Take that the lease of a read was not lost: it was renewed, or lasted until it was replaced."""
        with self._lock:
            self._losses.pop(read, None)

    def lost(self, read: Read) -> None:
        """Take that the server does not know the lease of a read any more."""
        with self._lock:
            self._losses.setdefault(read, _Loss()).count += 1

    def awaits(self, read: Read) -> None:
        """Raise where nothing may be issued for a read yet.

        Raises:
            ReadFailed: leases of it were revoked again and again, and when it is issued anew.

        """
        with self._lock:
            loss = self._losses.get(read)
            if loss is None or loss.count <= 1:
                return
            wait = loss.last_issue + LOST.ceiling(loss.count - 1) - self._clock.now()
        if wait > 0:
            what = f"its lease was revoked {loss.count} times in a row; it is issued anew in {wait:.0f} s; look for who revokes it"
            failed = self._client.failure(FailureKind.REFUSED, read.path, what)
            failed.retry_after, failed.asked = wait, False
            raise failed
