"""A sidecar, its volume and its application in virtual time: a real pipeline on a real directory; the rest does as it is told."""

import errno
import os
import random
import signal
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from reloader.pipeline import Parts, Pipeline
from reloader.pipeline.intake import Intake
from reloader.plan import Check, FailurePolicy, File, Pipeline as Plan, Source, Target as TargetPlan, Timing, Volume as VolumePlan
from reloader.snapshot import Failure, FailureKind, Mailbox, Outcome, Reading
from reloader.status import Metrics, PipelineReport, Status
from reloader.targets import Held, Instance, Judgement, Trouble, Verdict
from reloader.volume import Volume
from reloader.world import World
from reloader.world.clock import Clock
from reloader.world.disk import Disk
from tests.volumes import CHANGES_OF_DISK

NEEDS_ROOM = ("write_file", "make_directory", "make_link", "overwrite_file")
FILE = "app.json"


class Crash(BaseException):
    """The sidecar is killed here."""


class Machine:
    """Where it all runs: true time, which nobody in it can see, and what its clocks and its disk make of it."""

    def __init__(self) -> None:
        self.time = 1e6
        self.booted = self.time - 1000.0
        self.ahead = 1.7e9
        """By how much the wall clock is ahead of true time."""
        self.boots = 1
        self.disk_trouble: int | None = None
        self.crash_in: int | None = None
        """After how many more changes of the disk the sidecar is killed."""
        self.fail_in: int | None = None
        """After how many more changes of the disk one of them fails."""

    @property
    def now(self) -> float:
        return self.time - self.booted

    @property
    def wall(self) -> float:
        return self.time + self.ahead

    def reboot(self) -> None:
        self.boots += 1
        self.time += 20.0
        self.booted = self.time - 5.0


class MachineClock(Clock):
    """What one process sees of the time."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        super().__init__()

    def now(self) -> float:
        return self._machine.now

    def wall(self) -> float:
        return self._machine.wall

    def suspended(self) -> float:
        return 0.0

    def boot(self) -> str:
        return f"boot {self._machine.boots}"


def _call(name: str) -> Any:
    def call(disk: "MachineDisk", *args: Any) -> Any:
        disk.before(name, args)
        done = getattr(Disk, name)(disk, *args)
        disk.after(args)
        return done

    return call


class _MachineDisk(Disk):
    """Fails and dies as the machine says; its files bear the machine's time."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def before(self, name: str, args: tuple[Any, ...]) -> None:
        machine, number = self.machine, self.machine.disk_trouble
        if machine.crash_in is not None:
            machine.crash_in -= 1
            if machine.crash_in < 0:
                raise Crash
        if machine.fail_in is not None:
            machine.fail_in -= 1
            if machine.fail_in < 0:
                machine.fail_in, number = None, errno.EIO
        if number is not None and (number != errno.ENOSPC or name in NEEDS_ROOM):
            raise OSError(number, os.strerror(number), str(args[0]))

    def after(self, args: tuple[Any, ...]) -> None:
        for path in (each for arg in args if isinstance(arg, Path) for each in (arg, arg.parent)):
            if os.path.lexists(path):
                os.utime(path, (self.machine.wall, self.machine.wall), follow_symlinks=False)


MachineDisk = type("MachineDisk", (_MachineDisk,), {name: _call(name) for name in CHANGES_OF_DISK})


class Verification:
    """What the application says of one reload, or of its start."""

    def __init__(self, app: "App", instance: Instance) -> None:
        self._app, self._instance, self._reads = app, instance, app.reads
        self.proves_completion = app.proves_completion

    def judge(self) -> Judgement:
        app, now = self._app, self._app.machine.now
        if app.instance != self._instance:
            app.refused.add(self._reads)  # it died of it, as far as anybody can tell
            return Judgement(verdict=Verdict.ENDED, reason="it ended")
        if app.says == "refuses" or (app.says == "confirms" and app.reads is not None and "!" in app.reads):
            app.refused.add(app.reads)
            return Judgement(verdict=Verdict.REFUSED, reason="it does not take it")
        if app.says == "confirms":
            app.confirmed = app.reads
            return Judgement(verdict=Verdict.CONFIRMED)
        if app.says == "is silent":
            return Judgement(verdict=Verdict.UNKNOWN, reason="no answer")
        return Judgement(verdict=Verdict.PENDING, look_at=now + 5.0)


class App:
    """The application: a process that reads the volume when it starts and when it is told to; it outlives the sidecar."""

    proves_completion = True

    def __init__(self, machine: Machine, live: Path) -> None:
        self.machine, self._live = machine, live
        self._pids = 100
        self.instance: Instance | None = None
        self.reads: str | None = None
        """What it read last."""
        self.confirmed: str | None = None
        """What it said yes to last."""
        self.refused: set[str | None] = set()
        self.says = "confirms"
        """Or `refuses`, `is silent`, `takes its time`."""
        self.trouble: Trouble | None = None
        self.stubborn = False
        self.stops: list[str | None] = []
        """What the volume showed when each signal came that ends it."""
        self.asked = 0

    def appear(self) -> None:
        self._pids += 1
        self.instance = Instance(pid=self._pids, started=self.machine.now, boot=f"boot {self.machine.boots}")
        self.reads = self.shown

    def end(self) -> None:
        self.instance = self.reads = None

    @property
    def shown(self) -> str | None:
        """Return what a reader of the volume sees now."""
        path = self._live / FILE
        return path.read_text() if path.exists() else None

    def instances(self) -> tuple[Instance, ...]:
        if self.instance is None:
            raise Held(Trouble.ABSENT, "nobody is there")
        if self.trouble is Trouble.AMBIGUOUS:
            raise Held(self.trouble, "several are there")
        return (self.instance,)

    def reload(self, instance: Instance) -> Verification:
        if instance != self.instance:
            raise Held(Trouble.GONE, "it has ended")
        if self.trouble is not None:
            raise Held(self.trouble, "it may not be asked")
        self.asked += 1
        self.reads = self.shown
        assert self.reads is not None, "it was asked to read what is not there"
        return Verification(self, instance)

    def verify(self, instance: Instance) -> Verification:
        return Verification(self, instance)

    def stop(self, instance: Instance, number: int) -> None:
        if instance != self.instance:
            raise Held(Trouble.GONE, "it has ended")
        if self.trouble is not None:
            raise Held(self.trouble, "it may not be told to end")
        self.stops.append(self.shown)
        if not self.stubborn or number == signal.SIGKILL:
            self.end()

    def descriptors(self) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        pass


def make_plan(folder: Path, modes: dict[str, str], failure: FailurePolicy) -> Plan:
    """Return a pipeline whose one file holds the field `x` of each source, as JSON."""
    text = ", ".join(f'"{name}": "{{{{ {name}.x }}}}"' for name in modes)
    volume = VolumePlan(path=str(folder / "live"), files={FILE: File(content=f"{{{text}}}")}, check=Check(builtin=("json",)), keep=1)
    return Plan(
        name="app",
        sources={name: Source(kind="none", settings=None, on_failure=mode) for name, mode in modes.items()},  # type: ignore[arg-type]
        volume=volume,
        target=TargetPlan(kind="none", settings=None),
        timing=Timing(settle=0.0, min_interval=0.0),
        failure=failure,
    )


class Sidecar:
    """One run of it."""

    def __init__(self, plan: Plan, machine: Machine, app: App) -> None:
        self._app = app
        world = replace(World(), clock=MachineClock(machine), disk=MachineDisk(machine), random=random.Random(1))
        assert plan.volume is not None
        self.mailbox, self.volume = Mailbox(plan.sources), Volume(plan.volume, world)
        self.started = machine.time
        self.left = False
        self.shown_when_left: str | None = None
        status = Status(world.clock)
        metrics = Metrics(status, "0")
        intake = Intake("app", {}, self.mailbox, metrics)
        parts = Parts(plan, self.mailbox, self.volume, app, status, metrics, world, intake=intake, leave=self._leave)
        self.pipeline = Pipeline(parts)

    def _leave(self) -> None:
        self.left, self.shown_when_left = True, self._app.shown

    def cycle(self) -> float:
        """Run one as its thread does, but with no mistake of ours hidden."""
        self.pipeline._resync()
        return self.pipeline.cycle()

    @property
    def report(self) -> PipelineReport:
        return self.pipeline._parts.status.reports["app"]

    def put(self, name: str, outcome: Outcome) -> None:
        self.mailbox.put({name: outcome})

    def close(self) -> None:
        self.pipeline.close()
        self._free()

    def die(self) -> None:
        """End at once, unless it has; the kernel frees the lock."""
        self.volume._home.close()
        self._free()

    def _free(self) -> None:
        if not self.mailbox._closed:
            self.mailbox.close()


def reading(value: Any, machine: Machine, *, lasts: float = inf, expires: float | None = None) -> Reading:
    return Reading(value=value, at=machine.now, whole=True, current_until=machine.now + lasts, expires=expires)


def failure(kind: FailureKind, machine: Machine) -> Failure:
    return Failure(kind=kind, reason="as it was told to", at=machine.now)
