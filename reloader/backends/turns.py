"""Fair turns at one address: reads run on a bounded number of threads, each when it is due, the longest due first."""

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import inf

from reloader.schedule import TURN_CYCLE, round_of_turns, turn
from reloader.world import World
from reloader.world.connections import Connections

IDLE = 3600.0
"""How long a thread sleeps at most when nothing is due; being given something wakes it."""


@dataclass(eq=False)
class Job:
    """One read that is done again and again."""

    run: Callable[[float], float]
    """Do the read, holding the connection for that many seconds at most if it blocks; return when it is due next. Raises nothing."""
    longest: float
    """How long one run may take before it counts as stuck, beside the time it is told to block."""
    let_go: Callable[[], bool] = lambda: False
    """End a run under way that only waits for news; return whether there was one."""
    due: float = -inf
    not_before: float = -inf
    """When it may be done again at the earliest, whoever hurries it."""
    hold: float = 0.0
    running: bool = False
    ended: bool = False


class Turns:
    """Threads are started when there is work for them, `connections` at most, and end when there is none."""

    def __init__(self, address: str, connections: int, world: World) -> None:
        self._address = address
        self._connections = connections
        self._clock = world.clock
        self.open = Connections(lambda: self._connections)
        """The connections to this address, of whoever has reads there."""
        self._changed = threading.Condition()
        self._jobs: set[Job] = set()
        self._soon: set[Job] = set()  # due in this cycle, or running
        self._later: set[Job] = set()  # due some time
        self._queue: list[tuple[float, int, Job]] = []
        self._order = count(1)
        self._threads = 0
        self._busy: dict[str, tuple[Job, float]] = {}

    @property
    def connections(self) -> int:
        """How many reads run at once."""
        return self._connections

    def bound(self, connections: int) -> None:
        """Run that many reads at once from now on; a thread that is one too many ends after the read that it is at."""
        with self._changed:
            self._connections = connections
            self._changed.notify_all()
            while self._grow():
                pass

    def crowded(self) -> bool:
        """Return whether there are more jobs than connections, be they due or not."""
        with self._changed:
            return len(self._jobs) > self._connections

    def round(self) -> float:
        """Return how many seconds pass at most until every job that is due soon had its turn, if none takes longer than it may hold."""
        with self._changed:
            return round_of_turns(self._sharing(), self._connections)

    def add(self, job: Job) -> None:
        """Do a job from now on, at once, before those that had a turn: where every connection waits for news, one of them is taken."""
        with self._changed:
            self._jobs.add(job)
            self._schedule(job, -inf)
            if self._grow():
                return
            running = [other for other, _ in self._busy.values()] if len(self._busy) == self._threads else []
        any(other.let_go() for other in running)

    def hurry(self, job: Job, at: float = -inf) -> None:
        """Do a job as soon as it may be and there is a turn, or at a time that is sooner than it was due; one that runs is done again."""
        with self._changed:
            if job in self._jobs and (at := max(at, job.not_before, self._clock.now())) < job.due:
                self._schedule(job, at)

    def rest(self, job: Job) -> None:
        """Do a job no more until it is hurried; while it rests, it takes no share of the connections."""
        with self._changed:
            if job not in self._soon and job not in self._later:
                return
            self._schedule(job, inf)
        job.let_go()

    def remove(self, job: Job) -> None:
        """Do a job no more; a run under way that does not let go ends by itself, and what it brings is its owner's to drop."""
        with self._changed:
            job.ended = True
            self._jobs.discard(job)
            self._share(job, inf)
            self._changed.notify_all()
        job.let_go()

    def busy(self) -> tuple[tuple[str, float], ...]:
        """Return each thread that is at a read, and when it must have ended, in seconds of `Clock.awake`."""
        with self._changed:
            return tuple((thread, until) for thread, (_, until) in self._busy.items())

    def _grow(self) -> bool:
        """Start a thread if there is work for one more; return whether there was."""
        if self._threads >= self._needed():
            return False
        threading.Thread(target=self._work, name=f"{self._address}#{next(self._order)}", daemon=True).start()
        self._threads += 1  # not before it runs: there may be too many threads already
        return True

    def _needed(self) -> int:
        """Return how many threads there is work for; one whose job was removed under it is at that until it ends, and serves no other."""
        lost = sum(job.ended for job, _ in self._busy.values())
        return min(self._connections, len(self._jobs) + lost)

    def _schedule(self, job: Job, at: float) -> None:
        job.due = at
        self._share(job, at)
        if at < inf:
            heapq.heappush(self._queue, (at, next(self._order), job))
        self._changed.notify()

    def _share(self, job: Job, at: float) -> None:
        self._soon.discard(job)
        self._later.discard(job)
        if at < inf:
            (self._soon if at - self._clock.now() <= TURN_CYCLE else self._later).add(job)

    def _sharing(self) -> int:
        """Return how many share the connections: those who wait for a time rather than for news need one for a moment, and count as one."""
        return len(self._soon) + bool(self._later)

    def _work(self) -> None:
        name = threading.current_thread().name
        while (job := self._next(name)) is not None:
            at = job.run(job.hold)
            with self._changed:
                del self._busy[name]
                job.running = False
                if not job.ended:
                    # A job that was hurried while it ran is due already, and is put off only where it may not be done again yet.
                    self._schedule(job, max(job.not_before, min(at, job.due)))

    def _next(self, name: str) -> Job | None:
        """Return the job whose turn it is, waiting for it; None when this thread is needed no more."""
        with self._changed:
            while self._threads <= self._needed():
                wait = IDLE
                while self._queue:
                    at, _, job = self._queue[0]
                    if job.ended or job.running or at != job.due:
                        heapq.heappop(self._queue)  # done meanwhile, or asked for at another time
                        continue
                    wait = at - self._clock.now()
                    if wait > 0:
                        break
                    heapq.heappop(self._queue)
                    return self._start(name, job)
                self._changed.wait(min(wait, IDLE))
            self._threads -= 1
            return None

    def _start(self, name: str, job: Job) -> Job:
        job.running, job.due, job.hold = True, inf, turn(self._sharing(), self._connections)
        # Consul adds up to a sixteenth to a wait, so that blocking queries spread out.
        self._busy[name] = job, self._clock.awake() + job.hold * 17 / 16 + job.longest
        return job
