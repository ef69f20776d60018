"""Who talks: one object per server and identity, or per directory, shared by all pipelines.

A backend owns the connection, the token and when each read is done; a source only says what to read and what the answer means.
A backend of a new kind is one module or package here with a class `Backend`, found by the name of its plan's class in lower case.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from reloader.backends.directory import Backend as DirectoryBackend
from reloader.backends.reads import Heartbeat, Inbox, ReadingBackend
from reloader.backends.turns import Turns
from reloader.plan import BackendPlan, Consul, Directory, Local, Vault
from reloader.world import World

log = logging.getLogger("reloader")

LOCAL_READS = 4
"""How many reads that need no server are done at once, so that a slow one does not delay the others."""


class Backend(Protocol):
    """Runs reads and delivers what came of them; equal reads run once, however many wait for them."""

    def watch(self, read: Hashable, inbox: Inbox, name: str) -> Callable[[], None]:
        """Keep reading; put every outcome into `inbox` under `name`, the latest at once where there is one; return what ends it."""
        ...

    def look(self) -> None:
        """Read again what can be read without cost to anyone: a directory now, a poll when its backoff allows."""
        ...

    def heartbeats(self) -> tuple[Heartbeat, ...]:
        """Return the threads of this backend."""
        ...

    def close(self) -> None:
        """End every read and free the connection."""
        ...


@runtime_checkable
class Leasing(Backend, Protocol):
    """A backend whose server issues what it reads, for a time."""

    def keep_in(self, directory: Path) -> None:
        """Keep what is issued in a directory, and take up what an earlier run left there; before the first read."""
        ...

    def confirmed(self, read: Hashable, inbox: Inbox, name: str, at: float) -> None:
        """Take note that who waits for a read under `name` runs on what came at `at`; what it replaced is let go once all do."""
        ...

    def hold(self, read: Hashable) -> Callable[[], None]:
        """Keep alive what was issued for a read, whether somebody waits for it or not, until the returned function is called."""
        ...

    def revoke(self) -> tuple[str, ...]:
        """Revoke all that was issued, and a token of ours; return why something could not be."""
        ...


class Backends:
    """The backends in use; equal plans get the same one, and it is closed when nobody uses it any more."""

    def __init__(self, world: World, state: Path | None = None) -> None:
        self._world = world
        self._state = state
        self._open: dict[BackendPlan, tuple[Backend, int]] = {}
        self._turns: dict[str, Turns] = {}

    def acquire(self, plan: BackendPlan) -> Backend:
        """Return the backend of this plan; `release` it as often."""
        backend, users = self._open.get(plan) or (self._make(plan), 0)
        self._open[plan] = (backend, users + 1)
        self._bind(plan)
        return backend

    def release(self, plan: BackendPlan) -> None:
        """Give a backend back."""
        backend, users = self._open[plan]
        if users > 1:
            self._open[plan] = (backend, users - 1)  # never away meanwhile: other threads look for it
            return
        del self._open[plan]
        backend.close()
        self._bind(plan)

    def get(self, plan: BackendPlan) -> Backend:
        """Return the backend of a plan that was acquired."""
        return self._open[plan][0]

    def watch_modes(self) -> tuple[tuple[str, str], ...]:
        """Return how each directory is watched: its path, and `inotify` or `poll`."""
        return tuple(
            (plan.path, getattr(backend, "mode", "poll")) for plan, (backend, _) in tuple(self._open.items()) if isinstance(plan, Directory)
        )

    def look(self) -> None:
        """Ask every backend for a look."""
        for backend, _users in self._open.values():
            backend.look()

    def wake(self) -> None:
        """Have every read done now that failed at a server: what was wrong may be mended."""
        for backend, _users in self._open.values():
            if isinstance(backend, ReadingBackend):
                backend.wake()

    def tell_overdue(self) -> None:
        """Have what hangs in a file system count as unreachable."""
        for backend, _users in self._open.values():
            if isinstance(backend, DirectoryBackend):
                backend.tell_overdue()

    def revoke(self, plans: Iterable[BackendPlan], within: float) -> None:
        """Revoke all that these servers issued; what is not revoked after `within` seconds lives until its time is over."""
        backends = [self.get(plan) for plan in plans]
        threads = [threading.Thread(target=_revoke, args=(each,), daemon=True) for each in backends if isinstance(each, Leasing)]
        for thread in threads:
            thread.start()
        deadline = self._world.clock.now() + within
        for thread in threads:
            thread.join(max(0.0, deadline - self._world.clock.now()))

    def heartbeats(self) -> tuple[Heartbeat, ...]:
        """Return the threads of all backends."""
        return tuple(beat for backend, _users in tuple(self._open.values()) for beat in backend.heartbeats())

    def _make(self, plan: BackendPlan) -> Backend:
        module = import_module(f"reloader.backends.{type(plan).__name__.lower()}")
        backend: Backend = module.Backend(plan, self._turns_of(plan), self._world)
        if self._state is not None and isinstance(backend, Leasing):
            backend.keep_in(self._state)
        return backend

    def _turns_of(self, plan: BackendPlan) -> Turns | None:
        """Return the turns at one address: the bound on connections holds over all identities and pipelines."""
        if isinstance(plan, Directory):
            return None
        address, connections = _bound(plan)
        return self._turns.setdefault(address, Turns(address, connections, self._world))

    def _bind(self, plan: BackendPlan) -> None:
        """Have no more connections to an address than the strictest of the plans allows that are in use there."""
        if isinstance(plan, Directory):
            return
        address, _ = _bound(plan)
        bounds = [_bound(each) for each in self._open if not isinstance(each, Directory)]
        allowed = [connections for where, connections in bounds if where == address]
        if allowed and min(allowed) != self._turns[address].connections:
            self._turns[address].bound(min(allowed))


def _bound(plan: Vault | Consul | Local) -> tuple[str, int]:
    """Return an address, and how many connections to it a plan allows."""
    return ("local", LOCAL_READS) if isinstance(plan, Local) else (plan.address.rstrip("/"), plan.max_connections)


def import_clients(kinds: Iterable[str]) -> None:
    """Import what reads from the servers among these kinds of sources, as long as there is time for it."""
    for kind in {"consul", "vault"}.intersection(kinds):
        with suppress(ImportError):  # told when it is needed
            import_module(f"{__name__}.{kind}")


def _revoke(backend: Leasing) -> None:
    reasons = backend.revoke()
    for reason in reasons:
        log.warning("not revoked", extra={"fields": {"reason": reason}})
    if not reasons:
        log.info("leases revoked")
