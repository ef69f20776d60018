"""Starts, watches and stops every thread; takes a new plan by comparing it with the old one, so that what is equal keeps running."""

import errno
import logging
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from math import inf
from pathlib import Path

from reloader import __version__
from reloader.backends import Backends
from reloader.control import Control, Desk
from reloader.own import OwnConfiguration, needs_restart, programs
from reloader.pipeline.turnstile import Turnstile
from reloader.plan import BackendPlan, Pipeline as PipelinePlan, Plan
from reloader.running import LEAVE, Running, Shared
from reloader.server import Endpoints, Server
from reloader.state import state_directory
from reloader.status import Metrics, Status
from reloader.volume import VolumeLocked, wish
from reloader.world import World
from reloader.world.signals import PASSED_ON, Signals

log = logging.getLogger("reloader")

NOTED_WITHIN = 2.0
"""How many seconds a pipeline has to write down what the end of the program says of its set."""
REVOKED_WITHIN = 1.0
"""How many seconds there are at the end to revoke what was issued."""
SOON = 0.05
"""How long to sleep at most while there is a child to reap or an end to come."""
SETTLE = 0.1
"""How many seconds of quiet the own configuration must have: an editor writes in pieces."""


class Supervisor:
    """All pipelines of one process, its endpoints, and its own configuration."""

    def __init__(self, plan: Plan, files: tuple[Path, ...], load: Callable[[], Plan], world: World) -> None:
        self._plan = plan
        self._load = load
        self._world = world
        state = state_directory(plan.state)
        self._backends = Backends(world, state)
        self.status = Status(world.clock, alive=self._stuck)
        self.metrics = Metrics(self.status, __version__, self._backends.watch_modes)
        self._server = (
            Server(plan.server, Endpoints(self.status, self.metrics, plan.server.details)) if plan.server.listen != "off" else None
        )
        self._running: dict[str, Running] = {}
        self._control = Control(state, Desk(self.status, self._by_hand).answer) if state else None
        self._own = OwnConfiguration(files)
        self._shared = Shared(self._backends, self.status, self.metrics, world, Turnstile(), state, self._own.mailbox.nudge)
        self._held: list[tuple[str, Callable[[], None]]] = []
        """By pipeline: what lets go of the leases that its earlier plan had, once its present one is confirmed."""
        self._lock = threading.Lock()
        """Who is asked through the control socket, is not taken away meanwhile."""
        self._signals = Signals()
        self._stopping = self._asked = self._unreaped = False
        self._stop_by = self._leave_by = inf

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until the program ends that this process runs; return the exit status, which is its.

        Raises:
            VolumeLocked: another reloader has one of the volumes.
            ConfigurationInvalid: never; a bad change of the running configuration is refused and reported.

        """
        self._catch_signals()
        opened = {plan.name: self._made(plan) for plan in self._plan.pipelines}
        for running in opened.values():
            running.pipeline.open()
        for name, running in opened.items():
            self._running[name] = running
            running.start()
        if self._server is not None:
            self._server.start()
        self._open_control()
        self._own.watch(self._backends)
        log.info("running", extra={"fields": {"version": __version__, "pipelines": ",".join(opened)}})
        while not self._is_over():
            self._wait(60.0)
            while self._own.changing() and not self._stopping:
                self._wait(SETTLE)
            self._attend()
        self._leave()
        return self._world.service.status or 0

    def _wait(self, timeout: float) -> None:
        """Return when something is to be done here, or after `timeout` seconds."""
        soon = self._unreaped or self._leave_by < inf
        self._own.mailbox.wait(min(timeout, SOON) if soon else timeout, (self._signals.descriptor,))
        for number in self._signals.take():
            self._hear(number)
        self._unreaped = not self._world.children.reap_orphans()

    def _hear(self, number: int) -> None:
        """Take a signal: what is not for us is for the program, and what ends us ends both."""
        if number in (signal.SIGTERM, signal.SIGINT) and not self._stopping:
            self._stopping = True
            self._world.service.stop()
            self._stop_by = self._world.clock.now() + self._world.service.grace
        if number == signal.SIGHUP:
            self._asked = True
        elif number != signal.SIGCHLD:
            self._world.service.signal(number)

    def _is_over(self) -> bool:
        """Return whether it is time to leave: asked to, or after the program, once its pipeline wrote down what its end says of the set."""
        service, now = self._world.service, self._world.clock.now()
        if service.status is not None and self._leave_by == inf:
            self._leave_by = now + NOTED_WITHIN
            why = {"reason": service.failure} if service.failure else {}
            log.log(logging.ERROR if service.status else logging.INFO, "program ended", extra={"fields": {"status": service.status, **why}})
        return self._stopping or now >= self._leave_by or (self._leave_by < inf and service.noted)

    def _attend(self) -> None:
        """Do what was asked for: by SIGHUP a look at everything, by a change on the disk a look at the own configuration."""
        asked, self._asked = self._asked, False
        self._let_go()
        self._open_control()
        if asked:
            for running in self._running.values():
                running.pipeline.retry()
            self._backends.look()
        if (self._own.changed() or asked) and not self._stopping:
            self._reload_configuration()

    def _reload_configuration(self) -> None:
        """Take a changed configuration, or keep the old one and say that it would not survive a restart."""
        try:
            plan = self._load()
        except ValueError as invalid:
            self._refuse([str(mistake) for mistake in getattr(invalid, "mistakes", (invalid,))])
            return
        restart = needs_restart(self._plan, plan)
        if restart:
            self._refuse([f"{key} changed: that needs a restart" for key in restart])
            return
        self.status.config_successful, self.status.config_mistakes = True, ()
        if plan != self._plan:
            self._apply(plan)
            self._backends.wake()
            log.info("configuration taken")

    def _refuse(self, mistakes: list[str]) -> None:
        if tuple(mistakes) != self.status.config_mistakes:
            for mistake in mistakes:
                log.error("configuration refused; the old one runs on, and would not survive a restart: %s", mistake)
        self.status.config_successful, self.status.config_mistakes = False, tuple(mistakes)

    def _apply(self, plan: Plan) -> None:
        """Replace what differs. The new reads begin before the old ones end, so that shared backends keep connections and leases."""
        wanted = {each.name: each for each in plan.pipelines}
        for name, running in list(self._running.items()):
            if wanted.get(name) != running.plan:
                running.stop()
                self._replace(running, wanted.get(name))
        for name, each in wanted.items():
            if name not in self._running:
                self._replace(None, each)
        self._plan = plan

    def _replace(self, old: Running | None, plan: PipelinePlan | None) -> None:
        if plan is not None:
            new = self._made(plan)
            with suppress(VolumeLocked):  # what runs already runs on; the pipeline says so and tries again
                new.pipeline.open()
            new.start()
            with self._lock:
                self._running[plan.name] = new
        elif old is not None:
            with self._lock:
                del self._running[old.plan.name]
            self.status.drop(old.plan.name)
        if old is not None:
            if plan is not None:
                self._held.append((plan.name, old.hold(self._running[plan.name])))
            old.forget()

    def _let_go(self) -> None:
        """Let go of the leases of earlier plans that nobody uses any more."""
        still = []
        for name, release in self._held:
            running = self._running.get(name)
            if running is None or running.is_confirmed:
                release()
            else:
                still.append((name, release))
        self._held = still

    def _made(self, plan: PipelinePlan) -> Running:
        return Running(plan, self._shared)

    def _open_control(self) -> None:
        """Listen on the control socket; without it all else runs on, and it is tried again with every look."""
        if self._control is None or self._control.is_open:
            return
        try:
            self._control.open()
        except OSError as error:
            reason = "another reloader listens there" if error.errno == errno.EADDRINUSE else error.strerror
            log.warning("no control socket", extra={"fields": {"path": str(self._shared.state), "reason": reason}})

    def _by_hand(self, name: str | None, asked: wish.Wish) -> Mapping[str, "Future[str]"]:
        """Ask a pipeline, or each where that is meant; called by the threads of the control socket."""
        with self._lock:
            known = self._running
            if name is not None and name not in known:
                raise wish.NotPossible(f"there is no pipeline {name}; there are {', '.join(known)}")
            if name is None and asked.act == "rollback" and len(known) > 1:
                raise wish.NotPossible(f"which of them? --pipeline {', '.join(known)}")
            return {each: known[each].pipeline.ask(asked) for each in ([name] if name is not None else known)}

    def _leave(self) -> None:
        if self._control is not None:
            self._control.close()
        deadline = self._world.clock.now() + LEAVE
        self._await_ends(deadline - REVOKED_WITHIN)
        for running in self._running.values():
            running.pipeline.stop()
        for running in self._running.values():
            running.stop(deadline - self._world.clock.now())
        self._see_off()
        self._world.children.stop()
        self._backends.revoke(self._unused(), REVOKED_WITHIN)
        for running in self._running.values():
            running.forget()
        if self._server is not None:
            self._server.close()
        log.info("stopped")
        self._signals.close()

    def _await_ends(self, deadline: float) -> None:
        """Give the targets that end together with this process time to do so, where that decides what is revoked."""
        awaited = [each for each in self._running.values() if each.revokes and each.plan.target.kind != "exec"]
        while self._world.clock.now() < deadline and not all(running.target_left for running in awaited):
            self._wait(SOON)

    def _unused(self) -> set[BackendPlan]:
        """Return the servers whose leases are to be revoked, and are used by no target any more."""
        every = self._running.values()
        used = {plan for running in every if not (running.revokes and running.target_left) for plan in running.leasing}
        return {plan for running in every for plan in running.leasing} - used

    def _see_off(self) -> None:
        """Wait for the program's end, and bring it about when its time is over."""
        while self._world.service.pid is not None:
            left = self._stop_by - self._world.clock.now()
            if left <= 0:
                self._world.service.kill()
            self._wait(left if left > 0 else 1.0)

    def _stuck(self) -> tuple[str, ...]:
        if self._stopping:
            return ()  # the threads end, the program may take longer
        now = self._world.clock.now()
        late = [beat.thread for beat in self._backends.heartbeats() if beat.due < now]
        late += [each.thread.name for each in self._running.values() if not each.thread.is_alive() or each.pipeline.due < now]
        return tuple(late)

    def _catch_signals(self) -> None:
        passed_on = PASSED_ON if programs(self._plan) else ()
        self._signals.catch((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, *passed_on))
