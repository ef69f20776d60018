"""What every backend with a server shares: who waits for which read, equal reads once, retries with backoff."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

from reloader import internal
from reloader.backends.gate import Gate
from reloader.backends.turns import Job, Turns
from reloader.schedule import Backoff, first_poll
from reloader.snapshot import Failure, FailureKind, Outcome, Reading
from reloader.world import World

log = logging.getLogger(__name__)


class Inbox(Protocol):
    """Where outcomes go; what came in by one look is put together, so that one swap of a directory is one change."""

    def put(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take the outcomes, each under the name it was watched for."""
        ...


@dataclass(frozen=True)
class Heartbeat:
    """A thread, and when it will have reported next, in seconds of `Clock.awake`; late is stuck."""

    thread: str
    due: float


class ReadFailed(Exception):
    """A read brought no answer. The message names address, path and mend, and never a value or a token."""

    again_by: float = inf
    """When it is tried again at the latest, because something ends then."""
    asked: bool = True
    """Whether the server was asked at all."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        retry_after: float | None = None,
        current_until: float | None = None,
        everywhere: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after
        """Seconds that the server asked us to wait, where it did."""
        self.current_until = current_until
        self.everywhere = everywhere
        """Whether every read of the server would fail like this now, so that only one at a time asks until one gets through."""


class LetGo(Exception):
    """A read that waited for news was ended by us: no outcome."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What one read brought."""

    reading: Reading
    due: float
    """When to read again; infinite for never."""
    state: Any = None
    """What the next read of the same needs to know: an index, a version."""
    polled: bool = False
    """Whether it is read at an interval, which is then cut short at random after the first answer, and after a failure."""
    asked: bool = True
    """Whether the server was asked at all: what it was not asked tells nothing of it."""


@dataclass(eq=False)
class _Watched:
    """A read, and who waits for it."""

    read: Hashable
    job: Job
    waiting: list[tuple[Inbox, str]] = field(default_factory=list)
    latest: Outcome | None = None
    state: Any = None
    failures: int = 0
    """How often in a row it failed while no other read did."""
    was_read: bool = False
    """Whether it ever brought a reading."""
    told: ReadFailed | None = None
    """The failure of the whole server that those who wait were told last."""
    served: bool = False
    """Whether another read brings its outcomes, so that it is not done by itself."""

    @property
    def is_failing(self) -> bool:
        return isinstance(self.latest, Failure)


class ReadingBackend(ABC):
    """A backend whose reads take turns. A subclass says how one read is done; `fetch` runs on several threads at once."""

    def __init__(self, turns: Turns, world: World, *, longest_read: float, backoff: Backoff | None = None) -> None:
        self._turns = turns
        self._world = world
        self._longest_read = longest_read
        self._backoff = backoff or Backoff()
        self._gate = Gate(turns, world, lambda: self._patient(*tuple(self._watched.values())))
        self._lock = threading.RLock()  # what one read brings may be an outcome of others
        self._watched: dict[Hashable, _Watched] = {}

    @abstractmethod
    def fetch(self, read: Hashable, state: Any, hold: float) -> Fetched:
        """Do one read, and return what came of it; `state` is what the last success left.

        Where the server can hold a read until there is news, it may for `hold` seconds at most; 0 after a failure of this read or of the
        server, so that it is seen at once that it is back.

        Raises:
            ReadFailed: there is no answer.
            LetGo: `let_go` ended it.

        """

    @abstractmethod
    def free(self) -> None:
        """Free the connections; no read starts afterwards."""

    def let_go(self, read: Hashable) -> bool:  # noqa: ARG002 - for subclasses
        """End this read if it is under way and only waits for news; return whether it was."""
        return False

    def known(self, read: Hashable) -> Reading | None:  # noqa: ARG002 - for subclasses
        """Return what is known of a read before it is done for the first time: what an earlier run kept."""
        return None

    def is_wanted(self, read: Hashable) -> bool:
        """Return whether somebody still waits for this read."""
        return read in self._watched

    def repeatable(self, read: Hashable) -> bool:  # noqa: ARG002 - for subclasses
        """Return whether `look` may read this again: not if it mints something, or if it is watched anyway."""
        return True

    def interval(self, read: Hashable) -> float:  # noqa: ARG002 - for subclasses
        """Return every how many seconds a read is done while all is well; 0 where that is no matter of time."""
        return 0.0

    def rehearse(self, read: Hashable, *, issue: bool = True) -> str | None:  # noqa: ARG002 - for subclasses
        """Return what can be told of a read without doing it, where that would leave something behind; None where it may be done.

        With `issue` it may be done if what is issued for it can be revoked afterwards.

        Raises:
            ReadFailed: it would fail.

        """
        return None

    def watch(self, read: Hashable, inbox: Inbox, name: str) -> Callable[[], None]:
        """Keep reading; see `reloader.backends.Backend`."""
        with self._lock:
            watched = self._watched.get(read) or self._start(read)
            waiting = (inbox, name)
            watched.waiting.append(waiting)
            if watched.latest is not None:
                self._put(inbox, {name: watched.latest})
        return lambda: self._leave(watched, waiting)

    def serve(self, outcomes: Mapping[Hashable, Outcome]) -> None:
        """Deliver what another read brought, all of it together; these reads are not done by themselves until `unserve`."""
        together: dict[Inbox, dict[str, Outcome]] = {}
        with self._lock:
            for read, outcome in outcomes.items():
                if (watched := self._watched.get(read)) is not None:
                    watched.latest, watched.served = outcome, True
                    self._turns.rest(watched.job)
                    self._gate.leave(watched.job)
                    for inbox, name in watched.waiting:
                        together.setdefault(inbox, {})[name] = outcome
            for inbox, named in together.items():
                self._put(inbox, named)

    def unserve(self, reads: Iterable[Hashable]) -> None:
        """Do reads by themselves again, at once and anew; those that failed by themselves wait until their backoff allows."""
        with self._lock:
            for read in reads:
                watched = self._watched.get(read)
                if watched is not None and (watched.served or not watched.is_failing):
                    watched.served, watched.failures, watched.state = False, 0, None
                    self._turns.hurry(watched.job)

    def look(self) -> None:
        """Do every repeatable read now, except those that failed: no retry comes sooner than its backoff allows."""
        if self._gate.is_closed:
            return
        with self._lock:
            watched = [each for each in self._watched.values() if self.repeatable(each.read) and not each.is_failing]
        for each in watched:
            self._turns.hurry(each.job)

    def wake(self) -> None:
        """Do every read now that failed, and begin its backoff anew: whoever changed a configuration wants to see what that mended."""
        self._gate.wake()
        with self._lock:
            failing = [each for each in self._watched.values() if each.is_failing]
        for each in failing:
            self._do_anew(each)

    def hurry(self, reads: Iterable[Hashable]) -> None:
        """Do reads now; those that failed wait until their backoff allows."""
        with self._lock:
            jobs = [self._watched[read].job for read in reads if read in self._watched]
        for job in jobs:
            self._turns.hurry(job)

    def mended(self, read: Hashable) -> None:
        """Do a read now whose failure is over, however it was mended."""
        with self._lock:
            watched = self._watched.get(read)
        if watched is not None:
            self._do_anew(watched)

    def heartbeats(self) -> tuple[Heartbeat, ...]:
        """Return the threads at work at this address."""
        return tuple(Heartbeat(thread, due) for thread, due in self._turns.busy())

    def close(self) -> None:
        """End every read and free the connections."""
        with self._lock:
            for watched in self._watched.values():
                watched.waiting.clear()
                self._turns.remove(watched.job)
            self._watched.clear()
        self.free()

    def _do_anew(self, watched: _Watched) -> None:
        watched.failures, watched.job.not_before = 0, -inf
        self._turns.hurry(watched.job)

    def _start(self, read: Hashable) -> _Watched:
        job = Job(lambda hold: self._run(watched, hold), self._longest_read, lambda: self.let_go(read))
        watched = _Watched(read, job, latest=self.known(read))
        self._watched[read] = watched
        self._turns.add(watched.job)
        return watched

    def _leave(self, watched: _Watched, waiting: tuple[Inbox, str]) -> None:
        with self._lock:
            if waiting in watched.waiting:
                watched.waiting.remove(waiting)
            if not watched.waiting and self._watched.get(watched.read) is watched:
                del self._watched[watched.read]
                self._turns.remove(watched.job)
                self._gate.leave(watched.job)

    def _run(self, watched: _Watched, hold: float) -> float:
        """Do the read once, deliver what came of it, and return when it is due next."""
        if watched.served:
            self._gate.leave(watched.job)
            return inf
        if (told := self._gate.enter(watched.job)) is not None:
            return self._held_up(watched, told)
        try:
            at_once = watched.is_failing or self._gate.is_closed
            fetched = self.fetch(watched.read, watched.state, 0.0 if at_once else hold)
        except LetGo:
            self._gate.leave(watched.job)
            return self._world.clock.now()
        except ReadFailed as failed:
            return self._failed(watched, failed)
        except Exception as error:
            # A mistake of ours must not end the thread that others share; its text may quote what was read, so only its type is told.
            log.exception("read failed in a way it should not", exc_info=without_values(error))
            return self._failed(watched, ReadFailed(FailureKind.MISCONFIGURED, internal.told(error)))
        if fetched.asked:
            self._gate.answered(watched.job)
        else:
            self._gate.leave(watched.job)
        apart = fetched.polled and not isinstance(watched.latest, Reading)
        watched.failures, watched.state, watched.was_read = 0, fetched.state, True
        self._deliver(watched, fetched.reading)
        now = self._world.clock.now()
        return first_poll(now, fetched.due - now, self._world.random) if apart else fetched.due

    def _failed(self, watched: _Watched, failed: ReadFailed) -> float:
        """Tell those who wait, and return when to try again."""
        now = self._world.clock.now()
        self._deliver(watched, Failure(kind=failed.kind, reason=str(failed), at=now, current_until=failed.current_until))
        if failed.everywhere:
            watched.told, alone = self._gate.failed(watched.job, failed, watched.failures)
            watched.failures += alone
            return self._gate.due(watched.job)
        if failed.asked:
            self._gate.failed_alone(watched.job, answered=failed.kind is not FailureKind.UNREACHABLE)
        else:
            self._gate.leave(watched.job)
        watched.failures += 1
        backoff = self._patient(watched)
        # Beside what the server asked for, so that those who were told the same time do not come back as one.
        earliest, delay = now + (failed.retry_after or 0.0), backoff.delay(watched.failures, self._world.random)
        watched.job.not_before = earliest + backoff.floor(watched.failures)
        return max(watched.job.not_before, earliest + min(delay, failed.again_by - now))

    def _patient(self, *those: _Watched) -> Backoff:
        """Return the backoff of the one that is polled most often; what never was read is awaited, and not put off for longer."""
        if not all(each.was_read for each in those):
            return self._backoff
        intervals = [self.interval(each.read) for each in those]
        return self._backoff.patient(min((each for each in intervals if each), default=0.0))

    def _held_up(self, watched: _Watched, told: ReadFailed) -> float:
        """Tell those who wait, once, that the server is not asked."""
        if watched.told is not told:
            watched.told = told
            reason = f"not asked while the server fails for another read: {told}"
            self._deliver(watched, Failure(kind=told.kind, reason=reason, at=self._world.clock.now()))
        return self._gate.due(watched.job)

    def _deliver(self, watched: _Watched, outcome: Outcome) -> None:
        with self._lock:
            if watched.served:
                return  # by one that is newer
            watched.latest = outcome
            for inbox, name in watched.waiting:
                self._put(inbox, {name: outcome})

    def _put(self, inbox: Inbox, outcomes: Mapping[str, Outcome]) -> None:
        """Hand outcomes over; an inbox that chokes on one of them is told which, and neither this thread nor other inboxes suffer."""
        try:
            inbox.put(outcomes)
        except Exception as error:
            if len(outcomes) > 1:
                for name, outcome in outcomes.items():
                    self._put(inbox, {name: outcome})
                return
            (name,) = outcomes
            log.exception("reading of source %s not taken", name, exc_info=without_values(error))
            inbox.put({name: Failure(kind=FailureKind.MISCONFIGURED, reason=internal.told(error), at=self._world.clock.now())})


def without_values(error: Exception) -> Exception:
    """Return an error with the traceback of `error` and no text."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
