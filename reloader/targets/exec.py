"""A program that the reloader runs itself, as its child: started on the first set, asked to reload by a signal."""

from collections.abc import Iterator
from math import inf
from signal import SIGHUP, SIGKILL, SIGSTOP

from reloader.plan import Verify
from reloader.targets import Held, Trouble, process
from reloader.targets._find import Finder, Match
from reloader.targets._ready import Ready
from reloader.world import World
from reloader.world.processes import TICK, Process
from reloader.written import Duration, Signal, plain, signal_name

RETRY = 1.0
"""How many seconds to wait where it could not be started for a reason that may pass, such as too many processes."""


@plain
class Settings:
    """Which program, which signal and when it may get that, and how long it may take to end."""

    command: tuple[str, ...]
    signal: Signal = SIGHUP.value
    timeout: Duration = 30.0
    min_uptime: Duration = 0.0
    ready: Ready | None = None

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the text of what cannot be run or signalled."""
        if not self.command:
            yield "command", 'expected a program and its arguments, such as [nginx, -g, "daemon off;"]'
        if self.signal in (SIGKILL, SIGSTOP):
            yield "signal", f"expected a signal that a process can handle, which {signal_name(self.signal)} is not"
        if self.ready is not None:
            yield from self.ready.mistakes()


class _Child(Finder):
    """Knows which process is meant, without a search."""

    def __init__(self, world: World) -> None:
        super().__init__(Match(), world)
        self._world = world

    def find(self) -> Process:
        """Return the child of this process."""
        service = self._world.service
        pid = service.pid
        if service.status is not None:
            service.noted = True  # what it was asked is judged before it is looked for
            raise Held(Trouble.ABSENT, service.failure or f"the program ended with status {service.status}")
        if pid is None:
            raise Held(Trouble.NOT_READY if service.failure else Trouble.ABSENT, service.failure or "the program is not started yet")
        try:
            return self._world.processes.look(pid)
        except ProcessLookupError:
            raise Held(Trouble.GONE, f"pid {pid} has just ended") from None

    def still(self, process: Process) -> bool:
        """Return whether it is this one."""
        return process.pid == self._world.service.pid


class Target(process.Target):
    """Started by `start`, and then a process like others; it ends with this process, and this process with it."""

    def __init__(self, settings: Settings, verify: Verify, world: World) -> None:
        asked = process.Settings(signal=settings.signal, min_uptime=settings.min_uptime, ready=settings.ready)
        super().__init__(asked, verify, world)
        self._finder = _Child(world)
        self._command = settings.command
        self._timeout = settings.timeout
        self._start_at: float | None = None

    def start(self) -> float:
        """Start it once a start time, which is exact to a tick only, is surely later than the publish; return when to call again."""
        service, now = self._world.service, self._world.clock.now()
        service.grace = self._timeout
        if self._start_at is None:
            self._start_at = now + TICK
        elif now > self._start_at:
            service.start(self._command, self._world.children)
            self._start_at = now + RETRY
        return inf if service.is_settled else self._start_at
