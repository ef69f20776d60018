"""The pipelines that run, made to match those that are wanted: what is equal keeps running, and nothing waits for one that ends."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from math import inf
from pathlib import Path

from reloader.backends.reads import Heartbeat
from reloader.internal import told
from reloader.plan import Pipeline as Plan
from reloader.running import Running, Shared
from reloader.status import PipelineReport
from reloader.volume import wish

REST = 10.0
"""How many seconds a target has, beside `verify.within`, to answer what it was asked before its pipeline is replaced."""
LOOK = 0.05
"""How often to look whether it did."""
AGAIN = 5.0
"""After how many seconds a pipeline that could not be started is started again."""


class NotMade(Exception):
    """A pipeline cannot be made; the message says which and why."""


class Crew:
    """Used by one thread, but for what is asked by hand and of heartbeats."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._clock = shared.world.clock
        self._wanted: dict[str, Plan] = {}
        self._made: dict[str, Running] = {}
        """Those that wait for the ones before them to end."""
        self.running: dict[str, Running] = {}
        self._leaving: dict[str, float] = {}
        """Since when each is to be replaced; it was asked to end, or is waited for until its target has answered."""
        self._parted: list[Running] = []
        """Ended; what they read is kept until all that is wanted runs, so that it is taken over with its connections and leases."""
        self._held: list[tuple[str, Callable[[], None]]] = []
        """By pipeline: what lets go of the leases that its earlier plan had, once its present one is confirmed."""
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()
        """Who is asked through the control socket, is not taken away meanwhile."""
        self.look_at = inf
        """When `converge` is to be called, on the boot clock."""

    def start(self, plans: Iterable[Plan]) -> None:
        """Start the first of all.

        Raises:
            VolumeLocked: another reloader has one of the volumes.

        """
        self._wanted = {plan.name: plan for plan in plans}
        opened = {name: Running(plan, self._shared) for name, plan in self._wanted.items()}
        for running in opened.values():
            self._shared.status.introduce(running.plan.name, running.plan.failure.mode)  # all, before the first of them reports
            running.pipeline.open()
        for name, running in opened.items():
            running.start()
            with self._lock:
                self.running[name] = running

    def want(self, plans: Iterable[Plan]) -> None:
        """Have exactly these run: the next `converge` begins with it.

        Raises:
            NotMade: one of them cannot be made, and nothing changed.

        """
        wanted = {plan.name: plan for plan in plans}
        made: dict[str, Running] = {}
        for name, plan in wanted.items():
            running = self.running.get(name)
            if running is not None and running.plan == plan and not running.pipeline.stopping:
                continue
            try:
                made[name] = Running(plan, self._shared)
            except Exception as error:
                _discard(made)
                raise NotMade(f"pipeline {name} cannot be made: {_told(error)}") from error
        _discard(self._made)
        self._wanted, self._made = wanted, made
        self._failed.clear()

    @property
    def troubles(self) -> tuple[str, ...]:
        """Return why pipelines that are wanted could not be started, or would not be by a restart."""
        locked = [f"{name}: {running.pipeline.locked}" for name, running in self.running.items() if running.pipeline.locked]
        return (*(f"{name}: {reason}" for name, reason in self._failed.items()), *locked)

    def converge(self) -> None:
        """Go one step towards what is wanted; never waits."""
        self.look_at = inf
        self._let_go()
        for name, running in tuple(self.running.items()):
            if self._wanted.get(name) != running.plan or running.pipeline.stopping:
                self._part_with(name, running)
            else:
                self._leaving.pop(name, None)
        for name, plan in self._wanted.items():
            if name not in self.running and not self._is_taken(plan):
                self._bring(name, plan)
        if self._parted and self._wanted.keys() == self.running.keys() and not self._leaving:
            self._forget_parted()

    def look(self) -> None:
        """Have refused content tried again everywhere."""
        for running in self.running.values():
            running.pipeline.retry()

    def ask(self, name: str | None, asked: wish.Wish) -> Mapping[str, "Future[str]"]:
        """Ask a pipeline, or each where that is meant; called by the threads of the control socket."""
        with self._lock:
            known = self.running
            if name is not None and name not in {*known, *self._wanted}:
                raise wish.NotPossible(f"there is no pipeline {name}; there are {', '.join(self._wanted)}")
            if not known or (name is not None and name not in known):
                what = f"pipeline {name} does not run" if name else "no pipeline runs"
                raise wish.NotPossible(f"{what} now; `reloader status` tells why")
            if name is None and asked.act == "rollback" and len(known) > 1:
                raise wish.NotPossible(f"which of them? --pipeline {', '.join(known)}")
            return {each: known[each].pipeline.ask(asked) for each in ([name] if name is not None else known)}

    def heartbeats(self) -> Iterator[Heartbeat]:
        """Yield the thread of each pipeline; one that died without being asked to is late."""
        for running in tuple(self.running.values()):
            died = not running.thread.is_alive() and not running.pipeline.stopping
            yield Heartbeat(running.thread.name, -inf if died else running.pipeline.due)

    def stop(self) -> None:
        """Ask all to end the step in hand."""
        for running in self.running.values():
            running.pipeline.stop()

    def forget(self) -> None:
        """Give back what all of them read from."""
        for running in (*self._parted, *self.running.values()):
            running.forget()

    def _part_with(self, name: str, running: Running) -> None:
        """Ask one to end, once its target has answered what it was asked; take it out once it has."""
        since = self._leaving.setdefault(name, self._clock.now())
        if not running.pipeline.stopping:
            patience = running.plan.target.verify.within + REST
            if running.pipeline.is_asking and self._clock.now() < since + patience:
                self._look(LOOK)
                return
            running.pipeline.stop()
        if not running.has_ended:
            return  # its end wakes us
        running.thread.join()
        with self._lock:
            del self.running[name]
        del self._leaving[name]
        self._parted.append(running)
        if name not in self._wanted:
            self._shared.status.drop(name)

    def _is_taken(self, plan: Plan) -> bool:
        """Return whether a pipeline that has not ended yet holds the volume."""
        return any(_overlap(plan, other.plan) for other in self.running.values() if other.plan.name in self._leaving)

    def _bring(self, name: str, plan: Plan) -> None:
        """Start one in the place of what ran before; where that fails, say so, and try again."""
        before = next((each for each in reversed(self._parted) if each.plan.name == name), None)
        try:
            new = self._made.pop(name, None) or Running(plan, self._shared)
            if before is not None:
                new.succeed(before)
            new.start()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others run on
            self._failed[name] = reason = f"cannot be started: {_told(error)}; tried again every {AGAIN:g} s"
            self._shared.status.put(PipelineReport(name=name, mode=plan.failure.mode, reasons=(reason,)))
            self._look(AGAIN)
            return
        self._failed.pop(name, None)
        with self._lock:
            self.running[name] = new

    def _forget_parted(self) -> None:
        """Let go of what ended, but for the leases that a target may still run on."""
        for old in self._parted:
            successors = [each for each in self.running.values() if each.plan.name == old.plan.name or _overlap(each.plan, old.plan)]
            self._held += [(each.plan.name, old.hold(each)) for each in successors]
            old.forget()
        self._parted = []
        self._shared.metrics.keep_only({name: running.names for name, running in self.running.items()})

    def _let_go(self) -> None:
        """Let go of the leases of earlier plans that nobody uses any more."""
        still = []
        for name, release in self._held:
            running = self.running.get(name)
            if running is None or running.is_confirmed:
                release()
            else:
                still.append((name, release))
        self._held = still

    def _look(self, within: float) -> None:
        self.look_at = min(self.look_at, self._clock.now() + within)


def _discard(made: Mapping[str, Running]) -> None:
    for running in made.values():
        running.forget()


def _told(error: Exception) -> str:
    """Return what was wrong: the machine's own words, where it is about too many threads or files."""
    return str(error) if isinstance(error, OSError | RuntimeError) else told(error)


def _overlap(one: Plan, other: Plan) -> bool:
    """Return whether two pipelines have the same volume, or one of them within the other's."""
    if one.volume is None or other.volume is None:
        return False
    first, second = (Path(os.path.realpath(volume.path)) for volume in (one.volume, other.volume))
    return first.is_relative_to(second) or second.is_relative_to(first)
