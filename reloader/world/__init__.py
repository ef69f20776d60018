"""The outside as one frozen object: clock, random numbers, disk, processes, children, HTTP sessions.

Everything that the house asks of the machine comes in through a `World`, so that a test can step the clock, fail a write or kill the
program at any call, and the product needs no switch for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import TYPE_CHECKING

from reloader.world.children import Children
from reloader.world.clock import Clock
from reloader.world.disk import Disk
from reloader.world.processes import Processes
from reloader.world.service import Service

if TYPE_CHECKING:
    from reloader.plan import Tls
    from reloader.world.connections import Connections
    from reloader.world.session import BoundedSession


def open_session(tls: "Tls", *, timeout: float, connections: int = 1, among: "Connections | None" = None) -> "BoundedSession":
    """Return a new bounded HTTP session; the libraries under it are imported only now."""
    from reloader.world.session import BoundedSession  # noqa: PLC0415 - requests costs 7 MiB that files mode never needs

    return BoundedSession(tls, timeout=timeout, connections=connections, among=among)


@dataclass(frozen=True)
class World:
    """What the house knows of the outside; every part is replaceable."""

    clock: Clock = field(default_factory=Clock)
    random: Random = field(default_factory=SystemRandom)
    disk: Disk = field(default_factory=Disk)
    processes: Processes = field(default_factory=Processes)
    children: Children = field(default_factory=Children)
    service: Service = field(default_factory=Service)
    session: "Callable[..., BoundedSession]" = open_session
