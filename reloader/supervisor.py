"""Starts, watches and stops every thread; takes a new plan by comparing it with the old one, so that what is equal keeps running."""

import errno
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

from reloader import __version__, logs
from reloader.backends import Backends
from reloader.backends.reads import Heartbeat
from reloader.control import Control, Desk
from reloader.crew import Crew, NotMade
from reloader.liveness import Liveness
from reloader.own import Loaded, OwnConfiguration, needs_restart, programs
from reloader.pipeline.turnstile import Turnstile
from reloader.plan import BackendPlan, Plan
from reloader.running import Shared
from reloader.server import Endpoints, Server
from reloader.state import state_directory
from reloader.status import Metrics, Status
from reloader.world import World
from reloader.world.signals import PASSED_ON, Signals

log = logging.getLogger("reloader")

NOTED_WITHIN = 2.0
"""How many seconds a pipeline has to write down what the end of the program says of its set."""
LEAVE = 3.5
"""How many seconds the pipelines have at the end for the step in hand, and targets to end that end together with this process."""
COMMANDS_END = 1.5
"""How many seconds of that a command that runs is left alone: most end by themselves."""
REVOKED_WITHIN = 1.0
"""How many seconds there are at the end to revoke what was issued."""
SOON = 0.05
"""How long to sleep at most while there is a child to reap or an end to come."""
IDLE = 10.0
"""How long to sleep at most: what hangs is told, and what is wished by hand is taken up, without being woken for it."""
BETWEEN_LOOKS = 1.0
"""How many seconds pass at least between two looks that SIGHUP asks for."""
LONGEST_STEP = 60.0
"""How many seconds this thread may take for one step; later is stuck."""


class Supervisor:
    """All pipelines of one process, its endpoints, and its own configuration."""

    def __init__(self, plan: Plan, files: tuple[Path, ...], load: Callable[[], Plan], world: World, signals: Signals | None = None) -> None:
        """`files` are where the plan came from: files, or directories whose files count; `load` reads it anew."""
        self._plan = plan
        self._world, self._clock = world, world.clock
        state = state_directory(plan.state)
        self._backends = Backends(world, state)
        self.status = Status(world.clock, alive=Liveness(world.clock, self._heartbeats).stuck)
        self.metrics = Metrics(self.status, __version__, self._backends.watch_modes)
        self._server = (
            Server(plan.server, Endpoints(self.status, self.metrics, plan.server.details)) if plan.server.listen != "off" else None
        )
        self._own = OwnConfiguration(files, load, world.clock)
        wake = self._own.mailbox.nudge
        self._crew = Crew(Shared(self._backends, self.status, self.metrics, world, Turnstile(), state, wake, self._give_up))
        self._state = state
        self._control = Control(state, Desk(self.status, self._crew.ask).answer) if state else None
        self._signals = signals or Signals()
        self._refused: tuple[str, ...] = ()
        """What is wrong with the configuration on the disk, as it was loaded last."""
        self._stopping = self._asked = self._unreaped = self._failed = False
        self._stop_by = self._leave_by = self._due = inf
        self._look_from = -inf
