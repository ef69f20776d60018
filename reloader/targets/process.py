"""A process, or several, that take their configuration on a signal."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from signal import SIGHUP, SIGKILL, SIGSTOP
from typing import NoReturn

from reloader.plan import Verify
from reloader.targets import Held, Instance, Trouble, Verification
from reloader.targets._find import Finder, Match, described, is_executing, is_wrapper
from reloader.targets._probing import Probed, probe_of
from reloader.targets._proofs import Alive, Life, Taking, Turnover, Workers
from reloader.targets._ready import Readiness, Ready
from reloader.world import World
from reloader.world.processes import Process
from reloader.written import Duration, Signal, plain, signal_name

MIN_UPTIME = 5.0
"""How old a process must be to get a signal where nothing else proves that it survives; by then most have installed their own handler."""


@plain
class Settings:
    """Which process, which signal, and when it may get that."""

    match: Match = Match()
    signal: Signal = SIGHUP.value
    min_uptime: Duration = 0.0
    ready: Ready | None = None

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the text of what no process can satisfy."""
        if replace(self.match, all=False) == Match():
            yield "match", "expected at least one of name, cmdline, pidfile and uid"
        if self.match.uid is not None and self.match.uid < 0:
            yield "match.uid", "expected a user id, 0 or more"
        if self.signal in (SIGKILL, SIGSTOP):
            yield "signal", f"expected a signal that a process can handle, which {signal_name(self.signal)} is not"
        if self.ready is not None:
            yield from self.ready.mistakes()


@dataclass(frozen=True)
class _Taken:
    """A process that is held."""

    life: Life
    instance: Instance
    who: str
    readiness: Readiness | None
    turnover: Turnover = field(default_factory=Turnover)


class Target:
    """Found once and then held, so that its end is known at once, and a reload of the only one costs no scan."""

    def __init__(self, settings: Settings, verify: Verify, world: World) -> None:
        self._settings = settings
        self._signal = settings.signal
        self._signal_name = signal_name(settings.signal)
        self._verify = verify
        self._probe = probe_of(verify, world)
        self._world = world
        self._finder = Finder(settings.match, world)
        self._taken: tuple[_Taken, ...] = ()
        self._sure = False

    def instances(self) -> tuple[Instance, ...]:
        """Return the process, which is not searched while it lives and matches; or all of them, always searched: one may be new."""
        self._keep(taken for taken in self._taken if self._is_meant(taken.life))
        if self._settings.match.all or not self._taken or not self._sure:
            self._take(self._search())
        if not self._taken:
            raise Held(Trouble.NOT_READY, f"what matches {self._settings.match} is executing a program just now")
        return tuple(taken.instance for taken in self._taken)

    def find(self) -> Instance:
        """Return the process, or the first."""
        return self.instances()[0]

    def reload(self, instance: Instance) -> Verification:
        """Send the signal, once the process is known to survive it."""
        taken = self._taken_as(instance)
        try:
            self._check_survives(taken)
            begin = partial(self._reload_verification, taken)  # with the state from before the signal
            verification = Taking(taken.life, self._world, self._signal, begin, within=self._verify.within)
            self._world.processes.signal(taken.life.grip, self._signal)
        except ProcessLookupError:
            raise _gone(instance) from None
        except PermissionError:
            self._not_permitted(taken)
        return verification

    def stop(self, instance: Instance, signal: int) -> None:
        """Send it a signal that ends it, whether it is ready for one or not."""
        taken = self._taken_as(instance)
        try:
            self._world.processes.signal(taken.life.grip, signal)
        except ProcessLookupError:
            raise _gone(instance) from None
        except PermissionError:
            self._not_permitted(taken)

    def verify(self, instance: Instance) -> Verification:
        """Return what will prove that it runs since its start, or that it has workers, or says that it is well."""
        life, within = self._taken_as(instance).life, self._verify.within
        if self._probe is not None:
            return Probed(self._probe, self._world.clock, within=within, after="its start was seen", life=life)
        if self._verify.workers:
            return Workers(life, self._world, frozenset, within=within, after="its start was seen", lacking="no worker")
        return Alive(life, self._world.clock, since=instance.started, within=within, after="its start")

    def descriptors(self) -> tuple[int, ...]:
        """Return the pidfds of those whose end was not waited for yet."""
        grips = (taken.life.grip for taken in self._taken if taken.life.wakes())
        return tuple(grip.descriptor for grip in grips if grip.descriptor is not None)

    def close(self) -> None:
        """Let go of them."""
        self._keep(())

    def _keep(self, kept: Iterable[_Taken]) -> None:
        """Let go of the others."""
        kept = tuple(kept)
        for taken in self._taken:
            if taken not in kept:
                taken.life.release()
        self._taken = kept

    def _search(self) -> list[Process]:
        try:
            return self._finder.find_all() if self._settings.match.all else [self._finder.find()]
        except Held:
            self._keep(taken for taken in self._taken if self._executes_one_of_all(taken))
            if not self._taken:
                raise
            return []

    def _executes_one_of_all(self, taken: _Taken) -> bool:
        """Return whether a search may have missed it, because for some milliseconds it has no arguments."""
        try:
            return self._settings.match.all and is_executing(self._world.processes.look(taken.life.grip.pid))
        except ProcessLookupError:
            return False

    def _is_meant(self, life: Life) -> bool:
        try:
            return not life.ended and self._finder.still(self._world.processes.look(life.grip.pid))
        except ProcessLookupError:
            return False

    def _take(self, found: list[Process]) -> None:
        """Hold the processes that were found, unless they are held already."""
        # A wrapper is no lasting answer: what it starts may match as well.
        self._sure = not any(is_wrapper(process) for process in found)
        identities = {(process.pid, process.started) for process in found}
        self._keep(taken for taken in self._taken if _identity(taken) in identities or self._executes_one_of_all(taken))
        held = {_identity(taken) for taken in self._taken}
        gone = None
        for process in found:
            if (process.pid, process.started) in held:
                continue
            try:
                self._taken += (self._hold_on(process),)
            except Held as held_up:
                gone = held_up
        if gone is not None and not self._taken:
            raise gone

    def _hold_on(self, process: Process) -> _Taken:
        instance = Instance(pid=process.pid, started=process.started, boot=self._world.clock.boot())
        try:
            life = Life(self._world.processes.hold(process.pid), self._world.processes)
        except ProcessLookupError:
            raise _gone(instance) from None
        # Only what is read while it is held is known to be about this process and no later one.
        if life.grip.started != process.started or not self._is_meant(life):
            life.release()
            raise _gone(instance)
        ready = self._settings.ready
        readiness = None if ready is None else Readiness(ready, self._world, started=process.started)
        return _Taken(life, instance, described(process), readiness)

    def _taken_as(self, instance: Instance) -> _Taken:
        for taken in self._taken:
            if taken.instance == instance and not taken.life.ended:
                return taken
        raise _gone(instance)

    def _check_survives(self, taken: _Taken) -> None:
        masks = self._world.processes.masks(taken.instance.pid)
        who, name = taken.who, self._signal_name
        if masks.ignores(self._signal):
            mend = "start it without nohup, or set target.signal to one that it handles"
            self._hold(Trouble.IGNORED, f"{who} ignores {name}: {mend}")
        if not masks.catches(self._signal):
            fate = "the kernel would drop it" if taken.instance.pid == 1 else "would end by it"
            self._hold(Trouble.NOT_READY, f"{who} has no handler for {name} yet and {fate}")
        self._check_age(taken, masks.proves_nothing(self._signal))
        if taken.readiness is not None and (lacking := taken.readiness.lacking()):
            raise Held(Trouble.NOT_READY, f"{who} is not ready for {name}: {lacking}")

    def _check_age(self, taken: _Taken, proves_nothing: bool) -> None:
        age, least, why = self._world.clock.now() - taken.instance.started, self._settings.min_uptime, "target.min_uptime says so"
        if proves_nothing and taken.readiness is None and least < MIN_UPTIME:
            least, why = MIN_UPTIME, "it catches or blocks every signal, which proves nothing; a target.ready probe tells sooner"
        if age < least:
            self._hold(Trouble.NOT_READY, f"{taken.who} gets no {self._signal_name} until it is {least:g} s old: {why}")

    def _hold(self, trouble: Trouble, message: str) -> NoReturn:
        # It may be the wrong one, seen before the right one was there.
        self._sure = False
        raise Held(trouble, message)

    def _reload_verification(self, taken: _Taken) -> Verification:
        """Return what will prove a reload that is asked for now, with the state from before it."""
        life, clock, within, after = taken.life, self._world.clock, self._verify.within, self._signal_name
        if self._probe is not None:
            return Probed(self._probe, clock, within=within, after=after, life=life)
        if not self._verify.workers:
            return Alive(life, clock, since=clock.now(), within=within, after=after)
        proof = taken.turnover.proof(self._world.processes.children(life.grip.pid), clock.now())
        return Workers(life, self._world, proof, within=within, after=after, lacking="no new workers")

    def _not_permitted(self, taken: _Taken) -> NoReturn:
        mends = "give this container the target's runAsUser, or let it run as UID 0 with the capability KILL"
        raise Held(Trouble.PERMISSION, f"may not signal {taken.who}: {mends}")


def _identity(taken: _Taken) -> tuple[int, float]:
    return taken.instance.pid, taken.instance.started


def _gone(instance: Instance) -> Held:
    return Held(Trouble.GONE, f"pid {instance.pid} ended, or became another program, before it could be asked")
