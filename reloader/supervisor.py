"""Starts, watches and stops every thread; takes a new plan by comparing it with the old one, so that what is equal keeps running."""

import errno
import gc
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

from reloader import __version__, logs
from reloader.backends import Backends
from reloader.backends.reads import Heartbeat
from reloader.control import Control, Desk
from reloader.crew import Crew, NotMade
from reloader.internal import told
from reloader.liveness import Liveness
from reloader.own import Loaded, OwnConfiguration, needs_restart, programs
from reloader.pipeline.turnstile import Turnstile
from reloader.plan import BackendPlan, Plan, Tls
from reloader.running import Shared
from reloader.server import Endpoints, Server
from reloader.state import state_directory
from reloader.status import Metrics, Status
from reloader.traces import traces
from reloader.world import World
from reloader.world.signals import PASSED_ON, Signals

log = logging.getLogger("reloader")

NOTED_WITHIN = 2.0
"""How many seconds a pipeline has to write down what the end of the program says of its set."""
TARGETS_END = 3.0
"""How many seconds targets have to end that end together with this process, where that decides what is revoked."""
LEAVE = 3.8
"""How many seconds there are at the end until no pipeline is waited for any more."""
COMMANDS_END = 1.5
"""How many seconds a command that runs is left alone then: most end by themselves."""
REVOKED_WITHIN = 1.0
"""How many seconds there are at the end to revoke what was issued."""
HANDED_OVER_WITHIN = 10.0
"""How many seconds a collector has to take traces, unless an `OTEL_` variable says otherwise."""
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
        shared = Shared(self._backends, self.status, self.metrics, world, Turnstile(), state, self._own.mailbox.nudge)
        self._traces = traces(__version__, lambda: world.session(Tls(), timeout=HANDED_OVER_WITHIN))
        self._crew = Crew(replace(shared, leave=self._give_up, trace=self._traces.take if self._traces else None))
        self._state = state
        self._control = Control(state, Desk(self.status, self._crew.ask).answer) if state else None
        self._no_control: str | None = None
        """Why it could not be opened last."""
        self._signals = signals or Signals()
        self._refused: tuple[str, ...] = ()
        """What is wrong with the configuration on the disk, as it was loaded last."""
        self._stopping = self._asked = self._unreaped = self._failed = self._spared = False
        self._stop_by = self._leave_by = self._due = inf
        self._look_from = -inf

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until the program ends that this process runs; return the exit status, which is its.

        Raises:
            VolumeLocked: another reloader has one of the volumes.

        """
        self._catch_signals()
        self._crew.start(self._plan.pipelines)
        if self._server is not None:
            self._server.start()
        self._open_control()
        self._own.follow(self._plan, self._backends)
        log.info("running", extra={"fields": {"version": __version__, "pipelines": ",".join(self._crew.running)}})
        while not self._is_over():
            self._wait(min(IDLE, self._look_at() - self._clock.now()))
            if not self._stopping:
                self._guarded_attend()
                self._spare_the_collector()
        if self._failed:
            self._hear(signal.SIGTERM)  # the program that we run has to end too
        self._leave()
        return int(self._failed) or self._world.service.status or 0

    def _spare_the_collector(self) -> None:
        """Take what there is once the pipelines run for lasting: to look through it again holds every thread up for 15 ms, in a change."""
        if not self._spared:
            gc.collect()
            gc.freeze()
            self._spared = True

    def _wait(self, timeout: float) -> None:
        """Return when something is to be done here, or after `timeout` seconds."""
        soon = self._unreaped or self._leave_by < inf
        timeout = max(0.0, min(timeout, SOON) if soon else timeout)
        self._due = self._clock.awake() + timeout + LONGEST_STEP
        self._own.mailbox.wait(timeout, (self._signals.descriptor,))
        for number in self._signals.take():
            self._hear(number)
        self._unreaped = not self._world.children.reap_orphans()

    def _look_at(self) -> float:
        """Return when something is to be done here that nobody wakes for, on the boot clock."""
        return min(self._own.look_at, self._crew.look_at, self._look_from if self._asked else inf)

    def _hear(self, number: int) -> None:
        """Take a signal: what is not for us is for the program, and what ends us ends both."""
        if number in (signal.SIGTERM, signal.SIGINT) and not self._stopping:
            self._stopping = True
            self._world.service.stop()
            self._stop_by = self._clock.now() + self._world.service.grace
        if number == signal.SIGHUP:
            self._asked = True
        elif number != signal.SIGCHLD:
            self._world.service.signal(number)

    def _give_up(self) -> None:
        """Leave with status 1; called by a pipeline's thread."""
        self._failed = True
        self._own.mailbox.nudge()

    def _is_over(self) -> bool:
        """Return whether it is time to leave: asked to, or after the program, once its pipeline wrote down what its end says of the set."""
        service, now = self._world.service, self._clock.now()
        if service.status is not None and self._leave_by == inf:
            self._leave_by = now + NOTED_WITHIN
            why = {"reason": service.failure} if service.failure else {}
            log.log(logging.ERROR if service.status else logging.INFO, "program ended", extra={"fields": {"status": service.status, **why}})
        return self._stopping or self._failed or now >= self._leave_by or (self._leave_by < inf and service.noted)

    def _guarded_attend(self) -> None:
        """Attend; a mistake of ours is told, and ends neither this process nor its pipelines."""
        try:
            self._attend()
        except Exception as error:
            self._refuse("configuration not taken; the old one runs on", (told(error),))
            self._own.judge(refused=True)  # so it is looked at again, and this may pass
            self._tell_configuration()
            log.debug("attending", exc_info=True)
            self._wait(BETWEEN_LOOKS)

    def _attend(self) -> None:
        """Do what was asked for, and what is due."""
        self._open_control()
        if self._asked and self._clock.now() >= self._look_from:
            self._look()
        self._own.look()
        if (loaded := self._own.take()) is not None:
            self._take(loaded)
        self._crew.converge()
        self._backends.tell_overdue()
        self.status.alive()  # who is late is known before somebody asks
        self._tell_configuration()

    def _look(self) -> None:
        """Look at everything, as SIGHUP asks for, however often it does."""
        self._asked, self._look_from = False, self._clock.now() + BETWEEN_LOOKS
        self._own.ask()
        self._crew.look()
        self._backends.look()
        self._backends.wake()

    def _take(self, loaded: Loaded) -> None:
        """Take a changed configuration, or keep the old one; all of it or nothing."""
        self._own.judge(refused=bool(loaded.mistakes))
        if loaded.plan is None:
            self._refuse("configuration refused; the old one runs on, and would not survive a restart", loaded.mistakes)
            return
        if restart := needs_restart(self._plan, loaded.plan):
            mistakes = tuple(f"{key} changed: that needs a restart" for key in restart)
            self._refuse("configuration not taken; the old one runs on until a restart", mistakes)
            return
        if loaded.plan != self._plan:
            try:
                self._crew.want(loaded.plan.pipelines)
            except NotMade as reason:
                self._own.judge(refused=True)
                self._refuse("configuration not taken; the old one runs on", (str(reason),))
                return
            self._change(loaded.plan)
        elif self._refused:
            log.info("configuration on the disk is the one that runs again")
        self._refused = ()
        self._own.follow(self._plan, self._backends)

    def _change(self, plan: Plan) -> None:
        if plan.log != self._plan.log:
            logs.set_up(plan.log)
        self._plan = plan
        self._backends.wake()
        log.info("configuration taken", extra={"fields": {"pipelines": ",".join(each.name for each in plan.pipelines)}})

    def _refuse(self, what: str, mistakes: tuple[str, ...]) -> None:
        if mistakes != self._refused:
            for mistake in mistakes:
                log.error("%s: %s", what, mistake)
        self._refused = mistakes

    def _tell_configuration(self) -> None:
        """Say whether what is on the disk runs, all of it."""
        mistakes = (*self._refused, *self._crew.troubles)
        self.status.config_successful, self.status.config_mistakes = not mistakes, mistakes

    def _open_control(self) -> None:
        """Listen on the control socket; without it all else runs on, and it is tried again with every look."""
        if self._control is None or self._control.is_open:
            return
        reason = None
        try:
            self._control.open()
        except OSError as error:
            reason = "another reloader listens there" if error.errno == errno.EADDRINUSE else error.strerror
        except RuntimeError as error:  # too many threads
            reason = str(error)
        if reason is not None and reason != self._no_control:
            log.warning("no control socket", extra={"fields": {"path": str(self._state), "reason": reason}})
        self._no_control = reason

    def _leave(self) -> None:
        """End every thread, within 5 s for all that can be ended; the program that we run has its own time."""
        self._stopping = True
        if self._control is not None:
            self._control.close()
        began = self._clock.now()
        self._await_ends(began + TARGETS_END)
        self._crew.stop()
        self._await_pipelines(min(began + TARGETS_END, self._clock.now() + COMMANDS_END))
        self._world.children.stop()
        self._await_pipelines(began + LEAVE)
        if self._traces is not None:
            self._traces.close()
        self._see_off()
        self._backends.revoke(self._unused(), REVOKED_WITHIN)
        self._crew.forget()
        if self._server is not None:
            self._server.close()
        if self._traces is not None:
            self._traces.join(began + LEAVE + REVOKED_WITHIN - self._clock.now())
        log.info("stopped")
        self._signals.close()

    def _await_pipelines(self, deadline: float) -> None:
        for running in self._crew.running.values():
            running.thread.join(max(0.0, deadline - self._clock.now()))

    def _await_ends(self, deadline: float) -> None:
        """Give the targets that end together with this process time to do so, where that decides what is revoked."""
        awaited = [each for each in self._crew.running.values() if each.revokes and each.plan.target.kind != "exec"]
        while self._clock.now() < deadline and not all(running.target_left for running in awaited):
            self._wait(SOON)

    def _unused(self) -> set[BackendPlan]:
        """Return the servers whose leases are to be revoked, and are used by no target any more."""
        every = self._crew.running.values()
        used = {plan for running in every if not (running.revokes and running.target_left) for plan in running.leasing}
        return {plan for running in every for plan in running.leasing} - used

    def _see_off(self) -> None:
        """Wait for the program's end, and bring it about when its time is over."""
        while self._world.service.pid is not None:
            left = self._stop_by - self._clock.now()
            if left <= 0:
                self._world.service.kill()
            self._wait(left if left > 0 else 1.0)

    def _heartbeats(self) -> Iterator[Heartbeat]:
        """Yield every thread that must report; none while they are being ended."""
        if self._stopping:
            return
        yield Heartbeat(threading.main_thread().name, self._due)
        yield from self._own.heartbeats()
        yield from self._crew.heartbeats()
        yield from self._backends.heartbeats()

    def _catch_signals(self) -> None:
        passed_on = PASSED_ON if programs(self._plan) else ()
        self._signals.catch((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, *passed_on))
