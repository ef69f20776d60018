"""What proves that a process took the configuration."""

from collections.abc import Callable
from contextlib import suppress

from reloader.targets import Judgement, Verdict, Verification
from reloader.world import World
from reloader.world.clock import Clock
from reloader.world.processes import TICK, Child, Grip, Processes
from reloader.written import signal_name

SOONEST = 0.01
LATEST = 0.1
"""How often children are listed: densely at first, because a good reload shows within milliseconds."""

LASTING = 0.05
"""How old a worker must be to prove anything: one that cannot work ends within milliseconds, and NGINX starts it all the same."""
RECENT = 2.0
"""How young a worker may be for the older ones beside it to be about to end: NGINX tells them so 100 ms after it starts new ones."""

DEAF = 0.5
"""How many seconds a signal waits in a process that is busy, rather than merely not running; and how long until that is asked again."""

Proof = Callable[[frozenset[Child]], frozenset[Child]]
"""Which of these children, alive now, prove it."""


class Life:
    """One process that is held; once it was seen to have ended, or was let go, that stays so."""

    def __init__(self, grip: Grip, processes: Processes) -> None:
        self.grip = grip
        self._processes = processes
        self._ended = self._released = self._told = False

    @property
    def ended(self) -> bool:
        """Return whether the process has ended or is no longer ours to watch."""
        self._ended = self._ended or self._processes.ended(self.grip)
        return self._ended

    def wakes(self) -> bool:
        """Return whether its end has yet to wake who waits; it does so once, since it may come between the last look and the wait."""
        if self._told:
            return False
        self._told = self.ended
        return True

    def release(self) -> None:
        """Let go of the process."""
        if not self._released:
            self._ended = self._released = True
            self._processes.release(self.grip)


def ended(life: Life, within: float, after: str) -> str:
    """Return what a person is told of one that ended while it was looked at."""
    return f"pid {life.grip.pid} ended within {within:g} s of {after}; its log may say why"


def pace(passed: float) -> float:
    """Return how long to wait for the next look, so many seconds after what is being proved."""
    return min(LATEST, max(SOONEST, passed / 4))


class Confirmed:
    """What nobody has to prove."""

    proves_completion = True

    def judge(self) -> Judgement:
        """Return that it is so."""
        return Judgement(verdict=Verdict.CONFIRMED)


class Alive:
    """It lives on for a while: all that is known of a program that says nothing."""

    proves_completion = False

    def __init__(self, life: Life, clock: Clock, *, since: float, within: float, after: str) -> None:
        self._life = life
        self._clock = clock
        self._until = since + within
        self._ended = ended(life, within, after)

    def judge(self) -> Judgement:
        """Return what is known now."""
        now = self._clock.now()
        if self._life.ended:
            return Judgement(verdict=Verdict.ENDED, reason=self._ended)
        if now >= self._until:
            return Judgement(verdict=Verdict.CONFIRMED)
        # Its end wakes who waits for its descriptor; without one it has to be looked for.
        look_at = self._until if self._life.grip.descriptor is not None else min(self._until, now + LATEST)
        return Judgement(verdict=Verdict.PENDING, look_at=look_at)


class Workers:
    """Its children show it."""

    proves_completion = True

    def __init__(self, life: Life, world: World, proof: Proof, *, within: float, after: str, lacking: str) -> None:
        self._life = life
        self._processes = world.processes
        self._clock = world.clock
        self._proof = proof
        self._shown: frozenset[Child] = frozenset()
        self._since = world.clock.now()
        self._until = self._since + within
        self._ended = ended(life, within, after)
        self._lacking = f"pid {life.grip.pid} has {lacking} {within:g} s after {after}; its log may say why"

    def judge(self) -> Judgement:
        """Return what is known now."""
        now = self._clock.now()
        if self._life.ended:
            return Judgement(verdict=Verdict.ENDED, reason=self._ended)
        children = self._processes.children(self._life.grip.pid)
        self._shown = (self._shown | self._proof(children)) & children
        if any(child.started + LASTING <= now for child in self._shown):
            return Judgement(verdict=Verdict.CONFIRMED)
        if now >= self._until:
            return Judgement(verdict=Verdict.REFUSED, reason=self._lacking)
        return Judgement(verdict=Verdict.PENDING, look_at=min(self._until, now + pace(now - self._since)))


class Taking:
    """What is proved by `begin`, from when the process takes the signal: one that is busy takes it late, and is not to blame for that.

    NGINX and HAProxy take none while they look up the names of a configuration, which lasts 10 s for one that nobody answers (glibc's
    defaults). What follows then may be of the signal before; and HAProxy loses what it is sent in that time (measured, 2.6.12). So a
    process that took the signal late is sent it once more. Made before the signal is sent.
    """

    def __init__(self, life: Life, world: World, number: int, begin: Callable[[], Verification], *, within: float) -> None:
        self._life = life
        self._processes = world.processes
        self._clock = world.clock
        self._number = number
        self._begin = begin
        self._within = within
        self._since = world.clock.now()
        self._late = self._holds_back()
        self._again_at: float | None = None
        self._taken = self._was_asked_again = False
        self._proof = begin()
        self.proves_completion = self._proof.proves_completion

    def judge(self) -> Judgement:
        """Return what is known now; what was not taken in its time is unknown until it is, and newer content does not wait for it."""
        now = self._clock.now()
        if not (self._taken or self._life.ended):
            if self._holds_back():
                return self._wait(now)
            if self._late and self._again_at is None and not self._was_asked_again:
                self._again_at = now + DEAF
            if self._again_at is not None:
                return self._ask_again(now, self._again_at)
            self._taken = True
        judgement = self._proof.judge()
        self.proves_completion = self._proof.proves_completion
        return judgement

    def _wait(self, now: float) -> Judgement:
        self._late = self._late or now >= self._since + DEAF
        proof = self._begin()
        if self._holds_back():  # otherwise what it saw may be what the signal started
            self._proof = proof
        if now < self._since + self._within:
            return Judgement(verdict=Verdict.PENDING, look_at=now + pace(now - self._since))
        self.proves_completion = False
        reason = f"pid {self._life.grip.pid} has not taken {signal_name(self._number)} yet: it is busy, or stopped"
        return Judgement(verdict=Verdict.UNKNOWN, reason=reason, look_at=now + LATEST)

    def _ask_again(self, now: float, at: float) -> Judgement:
        if now < at:
            return Judgement(verdict=Verdict.PENDING, look_at=at)
        self._since, self._again_at, self._was_asked_again = now, None, True
        self._proof = self._begin()
        self.proves_completion = self._proof.proves_completion
        with suppress(ProcessLookupError, PermissionError):
            self._processes.signal(self._life.grip, self._number)
        return Judgement(verdict=Verdict.PENDING, look_at=now + SOONEST)

    def _holds_back(self) -> bool:
        try:
            return not self._life.ended and self._processes.masks(self._life.grip.pid).holds_back(self._number)
        except ProcessLookupError:
            return False


class Turnover:
    """Tells workers that a reload started from those that replaced a crashed one."""

    def __init__(self) -> None:
        self._leaving: frozenset[Child] = frozenset()

    def proof(self, before: frozenset[Child], asked: float) -> Proof:
        """Return the proof of a reload: more are new than may have replaced one that ended, or as many as there were.

        `before` are the children before the signal, and `asked` is its boot time: a child older than that is not new, even if the list
        from before lacks it.
        """
        # What an earlier reload superseded ends when its last connection does, and nobody replaces it. Counted in, a few of them
        # that end at the wrong moment made a good reload of NGINX look like crashes (measured: two reloads within 100 ms).
        working = before - self._leaving - _superseded(before, asked)

        def proves(now: frozenset[Child]) -> frozenset[Child]:
            new = frozenset(child for child in now - before if child.started + TICK > asked)
            ended = len(working - now)
            if len(new) <= ended and (not new or len(new) < len(working)):
                return frozenset()
            self._leaving = before
            return new

        return proves


def _superseded(before: frozenset[Child], asked: float) -> frozenset[Child]:
    """Return those that somebody else's reload may have superseded just now: they are older than the youngest, and that is recent."""
    youngest = max((child.started for child in before), default=0.0)
    if youngest < asked - RECENT:
        return frozenset()
    return frozenset(child for child in before if child.started + 2 * TICK < youngest)
