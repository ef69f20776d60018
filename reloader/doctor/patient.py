"""What is examined: the configuration as far as it is valid, this machine, and a manifest where one was given."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

from reloader.doctor.finding import Evidence
from reloader.doctor.place import Machine, Place, place_of
from reloader.doctor.workload import Workload
from reloader.plan import Pipeline, Plan, Volume
from reloader.settings import Mistake
from reloader.world import World
from reloader.world.processes import Process, Processes

T = TypeVar("T")

_COMMANDS_WITH_A_PIPELINE = ("run", "once")


@dataclass(frozen=True, kw_only=True, eq=False)
class Patient:
    """What is examined; what one check found out is kept for the next one that asks."""

    plan: Plan = field(default_factory=lambda: Plan(pipelines=()))
    """The pipelines whose files are valid."""
    mistakes: tuple[Mistake, ...] = ()
    """What is wrong with the others."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """The file of each pipeline that has one."""
    machine: Machine = field(default_factory=Machine)
    workload: Workload | None = None
    """The Pod as the manifests have it, where they have one."""
    unfit: str = ""
    """Why the manifests that were given tell nothing."""
    world: World = field(default_factory=World)
    _known: dict[Hashable, object] = field(default_factory=dict, repr=False)

    @cached_property
    def place(self) -> Place:
        """Return where this is."""
        return self.shown[0]

    @cached_property
    def shown(self) -> tuple[Place, Evidence]:
        """Return where this is, and what shows it."""
        return place_of(self.machine)

    @property
    def is_there(self) -> bool:
        """Return whether this is where the reloader runs: a manifest that is examined where none runs is about somewhere else."""
        return (self.workload is None and not self.unfit) or (self.place is Place.POD and bool(self.siblings()))

    def volumes(self) -> Iterator[tuple[Pipeline, Volume]]:
        """Yield every pipeline that has a volume."""
        return ((pipeline, pipeline.volume) for pipeline in self.plan.pipelines if pipeline.volume is not None)

    def processes(self) -> tuple[Process, ...]:
        """Return all processes that can be seen."""
        return self.once("processes", lambda: tuple(_everyone(self.machine).all()))

    def reloaders(self) -> tuple[Process, ...]:
        """Return those that run a pipeline, the topmost of each tree."""
        found = {process.pid: process for process in self.processes() if command_of(process) in _COMMANDS_WITH_A_PIPELINE}
        return tuple(process for process in found.values() if process.parent not in found)

    def siblings(self) -> tuple[Process, ...]:
        """Return those of them that are in this container: of these one is the sidecar that this is about."""
        return tuple(process for process in self.reloaders() if self.machine.beside(process.pid))

    def outside(self) -> World:
        """Return the world as the running reloader sees it, which takes neither itself nor what it starts for the target."""
        return World(clock=self.world.clock, random=self.world.random, processes=_WithoutReloaders(str(self.machine.root / "proc")))

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return what `find` finds, which is asked the first time only."""
        if key not in self._known:
            self._known[key] = find()
        return cast("T", self._known[key])


def command_of(process: Process) -> str:
    """Return the command of a process that is this program; empty for any other."""
    names = [argument.rpartition("/")[2] for argument in process.argv]
    at = next((position for position, name in enumerate(names[:4]) if name == "reloader"), None)
    return next((word for word in process.argv[at + 1 :] if not word.startswith("-")), "") if at is not None else ""


def _everyone(machine: Machine) -> Processes:
    return Processes(str(machine.root / "proc"))


class _WithoutReloaders(Processes):
    """The processes without every reloader, and without what those started."""

    def all(self) -> Iterator[Process]:
        table = {process.pid: process for process in super().all()}
        return (process for process in table.values() if not any(map(command_of, _line(table, process))))


def _line(table: Mapping[int, Process], process: Process) -> Iterator[Process]:
    seen: set[int] = set()
    found: Process | None = process
    while found is not None and found.pid not in seen:
        seen.add(found.pid)
        yield found
        found = table.get(found.parent)
