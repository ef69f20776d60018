"""One pipeline with all that it holds: its reads, its volume, its target, its thread."""

import threading
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from reloader import sources, targets
from reloader.backends import Backends, Leasing
from reloader.backends.directory import Scan
from reloader.pipeline import Parts, Pipeline
from reloader.pipeline.guard import Guard, rules_of
from reloader.pipeline.intake import Intake, Waking
from reloader.pipeline.turnstile import Turnstile
from reloader.plan import BackendPlan, Directory, Pipeline as PipelinePlan, Volume as VolumePlan
from reloader.snapshot import Mailbox
from reloader.state import record_home
from reloader.status import Metrics, Status
from reloader.traces import Take
from reloader.volume import Mounted, Volume, wish
from reloader.volume.in_place import InPlace
from reloader.volume.layout import HOME
from reloader.world import World


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
    wake: Callable[[], None] = lambda: None
    """Have the supervisor look: a pipeline got where it waits for it."""
    leave: Callable[[], None] = lambda: None
    """Have the process leave with status 1."""
    trace: Take | None = None
    """Takes each change of a pipeline when it has ended."""


class Running:
    """One pipeline with all that it holds: its reads, its thread."""

    def __init__(self, plan: PipelinePlan, shared: Shared) -> None:
        self.plan = plan
        self._backends, self._wake, world = shared.backends, shared.wake, shared.world
        self._service = world.service
        self._acquired: list[BackendPlan] = []
        self._cancels: list[Callable[[], None]] = []
        self._leasing: dict[str, tuple[Leasing, Hashable]] = {}
        self._confirmed_at: Mapping[str, float] = {}
        self._templates = plan.volume.template_directories if plan.volume else ()
        world.children.withhold(name for each in plan.sources.values() if each.kind == "env" for name in each.settings.names)
        self._sources = {name: sources.make(each.kind, each.settings, plan.connections) for name, each in plan.sources.items()}
        self.mailbox = Mailbox(self.names)
        parsed = {name: (source, plan.sources[name].parse) for name, source in self._sources.items()}
        rules = {name: rules_of(plan.sources[name].settings, source.read) for name, source in self._sources.items()}
        guards = {name: Guard(each) for name, each in rules.items() if each is not None}
        self._intake = Intake(plan.name, parsed, self.mailbox, shared.metrics, guards)
        volume = (
            _volume(plan.volume, world) if plan.volume else Mounted(world, record_home(shared.state, plan.name) if shared.state else None)
        )
        target = targets.make(plan.target.kind, plan.target.settings, plan.target.verify, world)
        self.volume = volume
        parts = Parts(plan, self.mailbox, volume, target, shared.status, shared.metrics, world, self._look, shared.turnstile)
        self.pipeline = Pipeline(replace(parts, intake=self._intake, confirmed=self._confirm, leave=shared.leave, trace=shared.trace))
        self.thread = threading.Thread(target=self._run, name=f"pipeline {plan.name}", daemon=True)
        self._shared = shared
        self.has_ended = False
        """Whether the pipeline did its last step; the thread may live on for a moment."""

    def _run(self) -> None:
        try:
            self.pipeline.run()
        finally:
            self.has_ended = True  # before the wake: who comes while the thread is still alive is not woken again
            self._wake()  # who replaces this one waits for its end

    def read(self) -> None:
        """Begin to read every source and every template directory."""
        self._shared.metrics.introduce(self.plan.name, self.names)
        self._shared.status.introduce(self.plan.name, self.plan.failure.mode)
        for name, source in self._sources.items():
            backend = self._backends.acquire(source.backend)
            self._acquired.append(source.backend)
            self._cancels.append(backend.watch(source.read, self._intake, name))
            if isinstance(backend, Leasing):
                self._leasing[name] = (backend, source.read)
        for path in self._templates:
            directory = Directory(path=path)
            backend = self._backends.acquire(directory)
            self._acquired.append(directory)
            self._cancels.append(backend.watch(Scan(inside=True), self._intake, path))
        if self.plan.volume is not None:
            self._await_wishes(str(Path(self.plan.volume.path).absolute() / HOME))

    def _await_wishes(self, home: str) -> None:
        """Wake the pipeline when a wish is left; what it says, the pipeline reads itself."""
        directory = Directory(path=home)
        backend = self._backends.acquire(directory)
        self._acquired.append(directory)
        self._cancels.append(backend.watch(Scan(names=frozenset({wish.NAME}), alone=True), Waking(self.mailbox), home))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of what is read: the sources', and the directories of templates."""
        return (*self.plan.sources, *self._templates)

    @property
    def is_confirmed(self) -> bool:
        """Return whether the target runs on a set that was made of what this one read."""
        return bool(self._confirmed_at) or not self._sources

    @property
    def leasing(self) -> frozenset[BackendPlan]:
        """Return the servers that issue what is read."""
        return frozenset(self._sources[name].backend for name in self._leasing)

    @property
    def revokes(self) -> bool:
        """Return whether what was issued is to be revoked at the end."""
        vault = self.plan.connections.vault
        return vault is not None and vault.revoke_on_exit and bool(self._leasing)

    @property
    def target_left(self) -> bool:
        """Return whether the target ran on what is published, and was seen to be gone."""
        if self.plan.target.kind == "exec":
            return self._service.status is not None
        return self.pipeline.target_left

    @property
    def reads(self) -> frozenset[tuple[BackendPlan, Hashable]]:
        """Return what is read, and where."""
        return frozenset((source.backend, source.read) for source in self._sources.values())

    def hold(self, successor: "Running") -> Callable[[], None]:
        """Keep alive what was issued and the successor does not read, until the returned function is called."""
        held = {(self._sources[name].backend, read): backend for name, (backend, read) in self._leasing.items()}
        releases = ExitStack()
        for (plan, read), backend in held.items():
            if (plan, read) not in successor.reads:
                self._backends.acquire(plan)
                releases.callback(self._backends.release, plan)
                releases.callback(backend.hold(read))
        return releases.close

    def succeed(self, before: "Running") -> None:
        """Go on from what a pipeline that has ended knew, where that is remembered nowhere else; before the start."""
        if isinstance(self.volume, Mounted) and isinstance(before.volume, Mounted):
            self.volume.inherit(before.volume)

    def start(self) -> None:
        """Begin to read and to run; where not all of it can, what began is ended again.

        Raises:
            RuntimeError: too many threads.
            OSError: too many files.

        """
        try:
            self.read()
            self.thread.start()
        except BaseException:
            self.forget()
            raise

    def forget(self) -> None:
        """Give back what was read from; a backend that nobody else uses is closed."""
        for cancel in self._cancels:
            cancel()
        for plan in self._acquired:
            self._backends.release(plan)
        self._cancels, self._acquired = [], []
        if not self.thread.is_alive():
            self.mailbox.close()

    def _confirm(self, at: Mapping[str, float]) -> None:
        """Tell who issued what the target runs on that it does."""
        if not at or at == self._confirmed_at:
            return
        for name, (backend, read) in self._leasing.items():
            if name in at:
                backend.confirmed(read, self._intake, name, at[name])
        self._confirmed_at = at
        self._wake()

    def _look(self) -> None:
        for plan in {plan for plan in self._acquired if isinstance(plan, Directory)}:
            self._backends.get(plan).look()


def _volume(plan: VolumePlan, world: World) -> Volume:
    return InPlace(plan, world) if plan.in_place else Volume(plan, world)
