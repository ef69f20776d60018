"""Vault and OpenBao: what is read and issued there, and when it is due again.

Reading costs nothing and is polled. What a read or a write mints (a certificate, a leased credential) is minted again only when its
lifetime nears its end, whoever asks for a look.
"""

from collections.abc import Callable, Hashable
from math import inf
from pathlib import Path
from typing import Any, cast

from reloader.backends.reads import Fetched, Inbox, ReadFailed, ReadingBackend
from reloader.backends.turns import Turns
from reloader.backends.vault.client import LONGEST, Client
from reloader.backends.vault.issued import Issued, Read, Secret, Write, parameters_of
from reloader.backends.vault.keeping import Keeping
from reloader.backends.vault.leases import Leases
from reloader.backends.vault.reads import Reader
from reloader.plan import Vault
from reloader.snapshot import Reading
from reloader.world import World

__all__ = ["Backend", "Secret", "Write", "parameters_of"]

_ANSWERS_OF_A_READ = 3
"""The mount, what may be seen, and the secret."""


class Backend(ReadingBackend):
    """One server and identity."""

    def __init__(self, plan: Vault, turns: Turns, world: World) -> None:
        super().__init__(turns, world, longest_read=_ANSWERS_OF_A_READ * LONGEST)
        self._plan = plan
        self._client = Client(plan, turns, world)
        self._reader = Reader(self._client, world)
        self._leases = Leases(self._client, self._gate, turns, world, self._reader.issued, self.hurry, self.mended)
        self._keeping: Keeping | None = None
        self._confirmed: dict[tuple[Read, Inbox, str], float] = {}

    def fetch(self, read: Hashable, state: Any, hold: float) -> Fetched:  # noqa: ARG002 - Vault holds no request
        """Read or issue; what was issued and is not due stays as it is."""
        wanted, began = cast("Read", read), self._world.clock.now()
        issued = self._leases.current(wanted)
        try:
            if issued is not None:
                attended, asked = self._leases.attend(issued)
                return _fetched(attended, asked=asked)
            self._leases.awaits(wanted)
            had = self._reader.had(wanted, state)
        except ReadFailed as failed:
            # The last reading was current until this read was due, however long it took to fail.
            failed.current_until = began if issued is None else min(began, issued.due)
            raise
        return had if isinstance(had, Fetched) else _fetched(self._leases.take(had))

    def watch(self, read: Hashable, inbox: Inbox, name: str) -> Callable[[], None]:
        """Keep reading; see `reloader.backends.Backend`."""
        wanted = cast("Read", read)
        leave = super().watch(read, inbox, name)

        def left() -> None:
            leave()
            self._confirmed.pop((wanted, inbox, name), None)
            with self._lock:
                is_watched = wanted in self._watched
            if not is_watched:
                self._leases.abandon(wanted)

        return left

    def known(self, read: Hashable) -> Reading | None:
        """Return what was issued for a read and lives."""
        issued = self._leases.current(cast("Read", read))
        return None if issued is None else issued.reading()

    def rehearse(self, read: Hashable, *, issue: bool = True) -> str | None:
        """Write nothing, issue nothing that may not be revoked, and log in only with what is good more than once."""
        if self._plan.auth.secret_id_wrapped:
            return "not asked: the secret_id is wrapped, and can be unwrapped once only, by the sidecar"
        return self._reader.rehearsed(cast("Read", read), issue=issue)

    def repeatable(self, read: Hashable) -> bool:
        """Return whether it only reads."""
        return isinstance(read, Secret)

    def interval(self, read: Hashable) -> float:
        """Return how often it is asked for, at most: what has a lease is not polled, and renewed before that ends."""
        wanted = cast("Read", read)
        issued = self._leases.current(wanted)
        return min(wanted.poll or 0.0, inf if issued is None else issued.term)

    def wake(self) -> None:
        """Log in again at once, too."""
        self._client.identity.wake()
        super().wake()

    def keep_in(self, directory: Path) -> None:
        """Keep the token and what is issued in a directory, and take up what an earlier run left there; before the first read."""
        self._keeping = Keeping(directory, self._plan, self._client.identity, self._leases, self._world)
        self._keeping.adopt()
        self._leases.save = self._keeping.save

    def confirmed(self, read: Hashable, inbox: Inbox, name: str, at: float) -> None:
        """Take note that who waits for a read under `name` runs on what came at `at`; what it replaced is let go once all do."""
        wanted = cast("Read", read)
        with self._lock:
            watched = self._watched.get(wanted)
            if watched is None or (inbox, name) not in watched.waiting:
                return
            self._confirmed[wanted, inbox, name] = at
            oldest = min(self._confirmed.get((wanted, *waiting), -inf) for waiting in watched.waiting)
        self._leases.confirmed(wanted, oldest)

    def hold(self, read: Hashable) -> Callable[[], None]:
        """Keep alive what was issued for a read, whether somebody waits for it or not, until the returned function is called."""
        return self._leases.hold(cast("Read", read))

    def revoke(self) -> tuple[str, ...]:
        """Revoke all that was issued, and a token of ours; return why something could not be."""
        return self._leases.revoke()

    def free(self) -> None:
        """Close the connections; what was issued lives on, for the next run."""
        self._leases.close()
        if self._keeping is not None:
            self._keeping.close()
        self._client.close()


def _fetched(issued: Issued, *, asked: bool = True) -> Fetched:
    return Fetched(reading=issued.reading(), due=issued.due, asked=asked)
