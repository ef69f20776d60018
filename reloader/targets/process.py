"""A process that takes its configuration on a signal."""

from collections.abc import Iterator
from signal import SIGHUP, SIGKILL, SIGSTOP
from typing import NoReturn

from reloader.plan import Signal, Verify, plain, signal_name
from reloader.targets import Held, Instance, Trouble, Verification
from reloader.targets._find import Finder, Match, described, is_wrapper
from reloader.targets._proofs import Alive, Life, Turnover, Workers
from reloader.world import World
from reloader.world.processes import Process

MIN_UPTIME = 5.0
"""How old a process must be to get a signal where its mask proves nothing; by then most have installed their own handler."""


@plain
class Settings:
    """Which process, and which signal."""

    match: Match = Match()
    signal: Signal = SIGHUP.value

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the text of what no process can satisfy."""
        if self.match == Match():
            yield "match", "expected at least one of name, cmdline, pidfile and uid"
        if self.match.uid is not None and self.match.uid < 0:
            yield "match.uid", "expected a user id, 0 or more"
        if self.signal in (SIGKILL, SIGSTOP):
            yield "signal", f"expected a signal that a process can handle, which {signal_name(self.signal)} is not"


class Target:
    """Found once and then held, so that a reload costs no scan and its end is known at once."""

    def __init__(self, settings: Settings, verify: Verify, world: World) -> None:
        self._signal = settings.signal
        self._signal_name = signal_name(settings.signal)
        self._verify = verify
        self._world = world
        self._finder = Finder(settings.match, world)
        self._turnover = Turnover()
        self._life: Life | None = None
        self._instance = Instance()
        self._who = ""
        self._sure = False

    def instances(self) -> tuple[Instance, ...]:
        """Return the process."""
        return (self.find(),)

    def find(self) -> Instance:
        """Return the process; while the one that is held lives and matches, nothing is searched."""
        if self._life is not None and not self._is_meant(self._life):
            self.close()
        if self._life is None or not self._sure:
            self._take(self._search())
        return self._instance

    def reload(self, instance: Instance) -> Verification:
        """Send the signal, once the process is known to survive it."""
        life = self._life_of(instance)
        try:
            self._check_survives(instance)
            verification = self._reload_verification(life)
            self._world.processes.signal(life.grip, self._signal)
        except ProcessLookupError:
            raise _gone(instance) from None
        except PermissionError:
            self._not_permitted()
        return verification

    def verify(self, instance: Instance) -> Verification:
        """Return what will prove that it runs since its start, or that it has workers."""
        life = self._life_of(instance)
        within = self._verify.within
        if self._verify.workers:
            return Workers(life, self._world, frozenset, within=within, after="its start was seen", lacking="no worker")
        return Alive(life, self._world.clock, since=instance.started, within=within, after="its start")

    def descriptors(self) -> tuple[int, ...]:
        """Return the pidfd, until the process was seen to have ended."""
        if self._life is None or self._life.ended or self._life.grip.descriptor is None:
            return ()
        return (self._life.grip.descriptor,)

    def close(self) -> None:
        """Let go of the process."""
        if self._life is not None:
            self._life.release()
        self._life = None

    def _search(self) -> Process:
        try:
            return self._finder.find()
        except Held:
            self.close()
            raise

    def _is_meant(self, life: Life) -> bool:
        try:
            return not life.ended and self._finder.still(self._world.processes.look(life.grip.pid))
        except ProcessLookupError:
            return False

    def _take(self, process: Process) -> None:
        """Hold a process that was found, unless it is held already."""
        # A wrapper is no lasting answer: what it starts may match as well.
        self._sure = not is_wrapper(process)
        if self._life is not None and (self._life.grip.pid, self._life.grip.started) == (process.pid, process.started):
            return
        self.close()
        instance = Instance(pid=process.pid, started=process.started, boot=self._world.clock.boot())
        try:
            life = Life(self._world.processes.hold(process.pid), self._world.processes)
        except ProcessLookupError:
            raise _gone(instance) from None
        # Only what is read while it is held is known to be about this process and no later one.
        if life.grip.started != process.started or not self._is_meant(life):
            life.release()
            raise _gone(instance)
        self._life, self._instance, self._who = life, instance, described(process)

    def _life_of(self, instance: Instance) -> Life:
        if self._life is None or instance != self._instance or self._life.ended:
            raise _gone(instance)
        return self._life

    def _check_survives(self, instance: Instance) -> None:
        masks = self._world.processes.masks(instance.pid)
        age = self._world.clock.now() - instance.started
        who, name = self._who, self._signal_name
        if masks.ignores(self._signal):
            mend = "start it without nohup, or set target.signal to one that it handles"
            self._hold(Trouble.IGNORED, f"{who} ignores {name}: {mend}")
        if not masks.catches(self._signal):
            fate = "the kernel would drop it" if instance.pid == 1 else "would end by it"
            self._hold(Trouble.NOT_READY, f"{who} has no handler for {name} yet and {fate}")
        if masks.proves_nothing and age < MIN_UPTIME:
            self._hold(
                Trouble.NOT_READY, f"{who} has a runtime that catches every signal, so {name} is held until it is {MIN_UPTIME:g} s old"
            )

    def _hold(self, trouble: Trouble, message: str) -> NoReturn:
        # It may be the wrong one, seen before the right one was there.
        self._sure = False
        raise Held(trouble, message)

    def _reload_verification(self, life: Life) -> Verification:
        """Return what will prove the reload, with the state from before it."""
        clock, within, after = self._world.clock, self._verify.within, self._signal_name
        if not self._verify.workers:
            return Alive(life, clock, since=clock.now(), within=within, after=after)
        proof = self._turnover.proof(self._world.processes.children(life.grip.pid), clock.now())
        return Workers(life, self._world, proof, within=within, after=after, lacking="no new workers")

    def _not_permitted(self) -> NoReturn:
        mends = "give this container the target's runAsUser, or let it run as UID 0 with the capability KILL"
        raise Held(Trouble.PERMISSION, f"may not signal {self._who}: {mends}")


def _gone(instance: Instance) -> Held:
    return Held(Trouble.GONE, f"pid {instance.pid} ended, or became another program, before it could be asked")
