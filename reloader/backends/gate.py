"""Whether a server may be asked: while it fails as a whole, one read at a time asks it, and the others wait without a request.

So an outage costs the server one sequence of backoff however many reads there are, and all of them go on once one got through.
"""

import threading
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from reloader.backends.turns import Job, Turns
from reloader.schedule import Backoff, after_outage
from reloader.world import World

if TYPE_CHECKING:
    from reloader.backends.reads import ReadFailed


class Gate:
    """The way of all reads of one backend to its server; used by several threads at once.

    One read that fails as if the server did is not believed at once: the next one asks too. Then it is another one each time.
    """

    def __init__(self, turns: Turns, world: World, backoff: Callable[[], Backoff]) -> None:
        self._turns = turns
        self._world = world
        self._backoff = backoff
        self._lock = threading.Lock()
        self._told: ReadFailed | None = None
        self._suspect: Job | None = None  # the only one that failed so far
        self._failures = 0
        self._ask_at = -inf
        self._asking: Job | None = None
        self._waiting: dict[Job, float] = {}  # the longest waiting first, with when each may ask again at the earliest

    @property
    def is_closed(self) -> bool:
        """Return whether the server fails as a whole."""
        return self._told is not None

    def enter(self, job: Job) -> "ReadFailed | None":
        """Return None where this job may ask now; else why the server is not asked, the same one to all until there is news."""
        with self._lock:
            if self._told is None:
                return None
            another = self._suspect is not None and job is not self._suspect
            if self._asking is None and (another or self._world.clock.now() >= self._ask_at):
                self._asking = job
                self._waiting.pop(job, None)
                return None
            self._await(job, -inf)
            return self._told

    def due(self, job: Job) -> float:
        """Return when a job that waits here is to come again; infinite for one that will be called."""
        with self._lock:
            return self._ask_at if job is self._first() and self._asking is None else inf

    def failed(self, job: Job, failure: "ReadFailed", failures: int) -> tuple["ReadFailed", bool]:
        """Take a failure of the whole server, and let the job wait for its end.

        `failures` is how often in a row the job failed alone; return what all are told, and whether it did so now.
        """
        with self._lock:
            known = self._told
            self._suspect = job if known is None or job is self._suspect else None
            alone = self._suspect is not None
            earliest = self._after(failures + alone)
            self._await(job, earliest)
            if known is not None and job is not self._asking:
                return known, alone  # it was under way already when another one failed
            self._told = told = failure if known is None or known.kind is not failure.kind else known
            self._failures += 1
            # Beside what the server asked for, so that those who were told the same time do not come back as one.
            self._ask_later((earliest if alone else self._after(self._failures)) + (failure.retry_after or 0.0))
            if known is not None and told is failure:
                self._call(dict.fromkeys(self._waiting, -inf), -inf)
            return told, alone

    def failed_alone(self, job: Job, *, answered: bool) -> None:
        """Take a failure that says nothing of other reads; where the server said so itself, they may ask."""
        with self._lock:
            if job is not self._asking:
                return
            if answered or not self._waiting:
                self._open()
            else:
                self._failures += 1
                self._ask_later(self._after(self._failures))

    def answered(self, job: Job) -> None:
        """Take an answer: where this job was the one to ask, all others may."""
        with self._lock:
            if job is self._asking:
                self._open()

    def leave(self, job: Job) -> None:
        """Take that a job is done no more, or ended without a word; if it was its turn to ask, it is another one's."""
        with self._lock:
            self._waiting.pop(job, None)
            if self._asking in {job, None}:
                self._pass_on()

    def wake(self) -> None:
        """Ask the server at once, and begin the backoff anew."""
        with self._lock:
            self._failures, self._ask_at = 0, -inf
            if self._asking is None:
                self._pass_on()

    def _await(self, job: Job, earliest: float) -> None:
        if not job.ended:  # nobody would do it
            self._waiting[job] = max(earliest, self._waiting.get(job, -inf))

    def _first(self) -> Job | None:
        return next(iter(self._waiting), None)

    def _after(self, failures: int) -> float:
        return self._world.clock.now() + (self._backoff().delay(failures, self._world.random) if failures else 0.0)

    def _ask_later(self, at: float) -> None:
        self._ask_at = at
        self._pass_on()

    def _pass_on(self) -> None:
        self._asking = None
        another = next((job for job in self._waiting if job is not self._suspect), None) if self._suspect else None
        first = self._first()
        if another is not None:
            self._turns.hurry(another)
        elif first is not None:
            self._turns.hurry(first, self._ask_at)

    def _open(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._told = self._asking = self._suspect = None
        self._failures = 0
        self._call(waiting, self._world.clock.now())

    def _call(self, jobs: dict[Job, float], now: float) -> None:
        """Have jobs done, some to ask and some only to be told."""
        for job, earliest in jobs.items():
            self._turns.hurry(job, max(earliest, after_outage(now, len(jobs), self._world.random)))
