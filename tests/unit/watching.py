"""One backend of Consul, and who waits for its reads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from reloader.backends import Backends
from reloader.plan import Consul as Plan
from reloader.world import World
from tests.recorder import Recorder

WORLD = World()


class Watching:
    """Watches reads at one address; `plan` is what the plan of the server has beside that."""

    def __init__(self, address: str, **plan: Any) -> None:
        self.plan = Plan(address=address, **plan)
        self._backends = Backends(WORLD)
        self.backend: Any = self._backends.acquire(self.plan)
        self.cancels: list[Callable[[], None]] = []

    def watch(self, read: Any) -> Recorder:
        """Keep reading; return where the outcomes go."""
        inbox = Recorder()
        self.cancels.append(self.backend.watch(read, inbox, "source"))
        return inbox

    def holds(self, number: int = 1) -> bool:
        """Whether that many blocking queries are open."""
        return sum(read is not None for read in tuple(self.backend._used.values())) == number

    def close(self) -> None:
        """End all of it."""
        self._backends.release(self.plan)


@contextmanager
def watching(address: str, **plan: Any) -> Iterator[Watching]:
    """Watch for a while."""
    watching = Watching(address, **plan)
    try:
        yield watching
    finally:
        watching.close()
