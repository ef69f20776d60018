"""Starts, watches and stops every thread; takes a new plan by comparing it with the old one, so that what is equal keeps running."""

import errno
import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from reloader import __version__, sources, targets
from reloader.backends import Backends
from reloader.backends.directory import Scan
from reloader.control import Control, Desk
from reloader.mask import masked_diff
from reloader.pipeline import Parts, Pipeline
from reloader.pipeline.content import mask_of
from reloader.pipeline.facts import why_not
from reloader.pipeline.intake import Intake, Waking
from reloader.pipeline.stages import StageFailed
from reloader.pipeline.turnstile import Turnstile
from reloader.plan import BackendPlan, Directory, Pipeline as PipelinePlan, Plan, Volume as VolumePlan
from reloader.render import Renderer
from reloader.server import Endpoints, Server
from reloader.snapshot import Mailbox
from reloader.state import record_home, state_directory
from reloader.status import Metrics, Status
from reloader.volume import Mounted, Volume, VolumeError, VolumeLocked, wish
from reloader.volume.in_place import InPlace
from reloader.volume.layout import HOME
from reloader.world import World
from reloader.world.signals import PASSED_ON, Signals

log = logging.getLogger("reloader")

LEAVE = 4.0
"""How many seconds the pipelines have to end the step in hand; the whole stop may take five."""
NOTED_WITHIN = 2.0
"""How many seconds a pipeline has to write down what the end of the program says of its set."""
SOON = 0.05
SETTLE = 0.1
"""How many seconds of quiet the own configuration must have: an editor writes in pieces."""


@dataclass(frozen=True)
class Shared:
    """What all pipelines of one process have in common."""

    backends: Backends
    status: Status
    metrics: Metrics
    world: World
    turnstile: Turnstile
    state: Path | None
    """The directory of `state.path`."""


class Running:
    """One pipeline with all that it holds: its reads, its thread."""

    def __init__(self, plan: PipelinePlan, shared: Shared) -> None:
        self.plan = plan
        self._backends, world = shared.backends, shared.world
        self._acquired: list[BackendPlan] = []
        self._cancels: list[Callable[[], None]] = []
        self._templates = Renderer(plan.volume).template_directories if plan.volume else ()
        self._sources = {name: sources.make(each.kind, each.settings, plan.connections) for name, each in plan.sources.items()}
        self.mailbox = Mailbox([*plan.sources, *self._templates])
        parsed = {name: (source, plan.sources[name].parse) for name, source in self._sources.items()}
        self._intake = Intake(plan.name, parsed, self.mailbox, shared.metrics)
        volume = (
            _volume(plan.volume, world) if plan.volume else Mounted(world, record_home(shared.state, plan.name) if shared.state else None)
        )
        target = targets.make(plan.target.kind, plan.target.settings, plan.target.verify, world)
        self.volume = volume
        self.pipeline = Pipeline(
            Parts(plan, self.mailbox, volume, target, shared.status, shared.metrics, world, self._look, shared.turnstile)
        )
        self.thread = threading.Thread(target=self.pipeline.run, name=f"pipeline {plan.name}", daemon=True)
        shared.metrics.introduce(plan.name)

    def read(self) -> None:
        """Begin to read every source and every template directory."""
        for name, source in self._sources.items():
            backend = self._backends.acquire(source.backend)
            self._acquired.append(source.backend)
            self._cancels.append(backend.watch(source.read, self._intake, name))
        for path in self._templates:
            directory = Directory(path=path)
            self._acquired.append(directory)
            self._cancels.append(self._backends.acquire(directory).watch(Scan(), self._intake, path))
        if self.plan.volume is not None:
            self._await_wishes(str(Path(self.plan.volume.path).absolute() / HOME))

    def _await_wishes(self, home: str) -> None:
        """Wake the pipeline when a wish is left; what it says, the pipeline reads itself."""
        directory = Directory(path=home)
        self._acquired.append(directory)
        self._cancels.append(self._backends.acquire(directory).watch(Scan(names=frozenset({wish.NAME})), Waking(self.mailbox), home))

    def start(self) -> None:
        """Begin to read and to run."""
        self.read()
        self.thread.start()

    def stop(self, within: float = LEAVE) -> None:
        """End the thread after the step in hand."""
        self.pipeline.stop()
        self.thread.join(max(0.0, within))

    def forget(self) -> None:
        """Give back what was read from; a backend that nobody else uses is closed."""
        for cancel in self._cancels:
            cancel()
        for plan in self._acquired:
            self._backends.release(plan)
        if not self.thread.is_alive():
            self.mailbox.close()

    def _look(self) -> None:
        for plan in {plan for plan in self._acquired if isinstance(plan, Directory)}:
            self._backends.get(plan).look()


def _volume(plan: VolumePlan, world: World) -> Volume:
    return InPlace(plan, world) if plan.in_place else Volume(plan, world)


class Supervisor:
    """All pipelines of one process, its endpoints, and its own configuration."""

    def __init__(self, plan: Plan, files: tuple[Path, ...], load: Callable[[], Plan], world: World) -> None:
        self._plan = plan
        self._load = load
        self._world = world
        self._backends = Backends(world)
        self.status = Status(world.clock, alive=self._stuck)
        self.metrics = Metrics(self.status, __version__, self._backends.watch_modes)
        self._shared = Shared(self._backends, self.status, self.metrics, world, Turnstile(), state_directory(plan.state))
        self._server = (
            Server(plan.server, Endpoints(self.status, self.metrics, plan.server.details)) if plan.server.listen != "off" else None
        )
        self._running: dict[str, Running] = {}
        self._control = Control(self._shared.state, Desk(self.status, self._by_hand).answer) if self._shared.state else None
        self._own = _Own(files)
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
        restart = _needs_restart(self._plan, plan)
        if restart:
            self._refuse([f"{key} changed: that needs a restart" for key in restart])
            return
        self.status.config_successful, self.status.config_mistakes = True, ()
        if plan != self._plan:
            self._apply(plan)
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
            old.forget()

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
        for running in self._running.values():
            running.pipeline.stop()
        deadline = self._world.clock.now() + LEAVE
        for running in self._running.values():
            running.stop(deadline - self._world.clock.now())
        self._see_off()
        self._world.children.stop()
        for running in self._running.values():
            running.forget()
        if self._server is not None:
            self._server.close()
        log.info("stopped")
        self._signals.close()

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
        passed_on = PASSED_ON if _programs(self._plan) else ()
        self._signals.catch((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, *passed_on))


class _Own:
    """Watches the files that the own configuration came from."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._names: dict[Path, set[str]] = {}
        for file in files:
            self._names.setdefault(file.absolute().parent, set()).add(file.name)
        self.mailbox = Mailbox(str(directory) for directory in self._names)
        self._seen: tuple[object, ...] = ()
        self._taken: tuple[object, ...] = ()

    def watch(self, backends: Backends) -> None:
        """Begin to watch."""
        for directory, names in self._names.items():
            backends.acquire(Directory(path=str(directory))).watch(Scan(names=frozenset(names)), self.mailbox, str(directory))

    def changing(self) -> bool:
        """Return whether something changed since this was asked last; that it cannot be read any more is a change too."""
        before, self._seen = self._seen, self._state()
        return before != self._seen

    def changed(self) -> bool:
        """Return whether something changed since this was asked last."""
        before, self._taken = self._taken, self._state()
        return before != self._taken

    def _state(self) -> tuple[object, ...]:
        standings = self.mailbox.take().standings.values()
        return tuple((standing.reading and standing.reading.value, standing.failure and standing.failure.reason) for standing in standings)


def _needs_restart(old: Plan, new: Plan) -> list[str]:
    """Return the keys that changed and cannot be taken while running."""
    keys = [key for key in ("server", "log", "state") if getattr(old, key) != getattr(new, key)]
    volumes = {each.name: each.volume.path for each in old.pipelines if each.volume}
    moved = [each.name for each in new.pipelines if each.volume and volumes.get(each.name, each.volume.path) != each.volume.path]
    before, after = _programs(old), _programs(new)
    programs = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return keys + [f"volume.path of {name}" for name in moved] + [f"target.command of {name}" for name in programs]


def _programs(plan: Plan) -> dict[str, Sequence[str]]:
    """Return the command of each pipeline that runs its target."""
    return {each.name: each.target.settings.command for each in plan.pipelines if each.target.kind == "exec"}


@dataclass(frozen=True)
class Outcome:
    """What came of a pipeline that ran once."""

    done: bool
    reasons: tuple[str, ...] = ()
    """Why it is not done, or what is wrong all the same."""
    diff: str = ""
    """What a dry run would change, secrets masked."""


def once(plan: Plan, world: World, *, dry_run: bool = False) -> Mapping[str, Outcome]:
    """Render and publish every pipeline once, or only say what that would change; neither signal nor revoke.

    Raises:
        VolumeLocked: another reloader has one of the volumes.

    """
    backends = Backends(world)
    status = Status(world.clock)
    shared = Shared(backends, status, Metrics(status, __version__), world, Turnstile(), state_directory(plan.state))
    quiet = [replace(each, target=replace(each.target, kind="none", settings=None)) for each in plan.pipelines]
    running = [Running(each, shared) for each in quiet]
    try:
        for each in running:
            if not dry_run:
                each.pipeline.open()
            each.read()
        return {each.plan.name: _preview(each) if dry_run else _publish(each) for each in running}
    finally:
        for each in running:
            each.pipeline.close()
            each.forget()


def _publish(running: Running) -> Outcome:
    done = running.pipeline.publish_once()
    return Outcome(done, running.pipeline.report().reasons)


def _preview(running: Running) -> Outcome:
    """Say what a publish would change."""
    snapshot = running.pipeline.await_snapshot()
    if snapshot.missing:
        return Outcome(done=False, reasons=tuple(f"source {name}: {why_not(snapshot.standings[name])}" for name in snapshot.missing))
    try:
        rendered = running.pipeline.content.preview(snapshot)
        published = running.volume.published_files()
    except (StageFailed, VolumeError) as failed:
        return Outcome(done=False, reasons=(str(failed),))
    return Outcome(done=True, diff=masked_diff(published, {name: file.data for name, file in rendered.items()}, mask_of(snapshot)))
