"""One time for many sidecars: who waits for an answer lets the others go on, and the clock jumps to whatever comes next."""

from collections.abc import Iterator
from math import inf

from greenlet import getcurrent, greenlet

from reloader.backends.turns import Job
from tests.virtual import VirtualClock, VirtualTurns


class _Answer(Job):
    """The end of a wait."""

    def __init__(self, waiting: greenlet) -> None:
        super().__init__(lambda _hold: 0.0, 0.0)
        self.waiting = waiting


class Together(VirtualTurns):
    """Does what is due, of all sidecars; the requests of the product block, so each read is a greenlet that is left while it waits."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.lanes: dict[Job, Lane] = {}
        self._main = getcurrent()

    def wait(self, seconds: float) -> None:
        """Return when so much time has passed; for a read that is under way."""
        answer = _Answer(getcurrent())
        self._schedule(answer, self._clock.now() + seconds)
        self._main.switch()

    def do(self, job: Job) -> None:
        """Do a job, and have it done again when it says."""
        self._do(job)

    def _begin(self, job: Job) -> None:
        job.due = inf
        if isinstance(job, _Answer):
            job.waiting.switch()
        else:
            self.lanes[job].begin(job)


class Lane:
    """The turns of one sidecar. It does one read after the other, where a real one has a few connections: it is a little slower."""

    def __init__(self, together: Together) -> None:
        self._together = together
        self._busy = False
        self._next: dict[Job, None] = {}
        self.open = together.open

    def add(self, job: Job) -> None:
        """Do a job from now on."""
        self._together.lanes[job] = self
        self._together.add(job)

    def hurry(self, job: Job, at: float = -inf) -> None:
        """Do a job sooner."""
        self._together.hurry(job, at)

    def remove(self, job: Job) -> None:
        """Do a job no more."""
        self._together.remove(job)

    def begin(self, job: Job) -> None:
        """Do a job that is due, after the one under way."""
        self._next[job] = None
        if not self._busy:
            greenlet(self._work).switch()

    def _work(self) -> None:
        self._busy = True
        for job in self._waiting():
            self._together.do(job)
        self._busy = False

    def _waiting(self) -> Iterator[Job]:
        while self._next:
            job = next(iter(self._next))
            del self._next[job]
            if not job.ended:
                yield job
