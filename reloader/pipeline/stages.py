"""The one place where a stage is timed, counted, logged and traced; what it raises gets the stage's name."""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from reloader.pipeline.cycles import Cycles
from reloader.status import Event, Metrics
from reloader.traces import Step, Take
from reloader.world.clock import Clock

log = logging.getLogger("reloader")

KEPT = 10
"""How many events are kept."""


class StageFailed(Exception):
    """A stage did not do what it is for; the text says why, and never a value."""

    def __init__(self, stage: str, cause: Exception) -> None:
        super().__init__(str(cause))
        self.stage = stage
        self.cause = cause


@dataclass(frozen=True)
class _Failing:
    """How a stage fails, and how often it did so in a row."""

    reason: str
    times: int
    level: int


class Stages:
    """The stages of one pipeline: one log line each, the last ten events; a failure that repeats is counted, not repeated."""

    def __init__(
        self, pipeline: str, metrics: Metrics, clock: Clock, expected: tuple[type[Exception], ...], take: Take | None = None
    ) -> None:
        self._pipeline = pipeline
        self._metrics = metrics
        self._clock = clock
        self._expected = expected
        self._failing: dict[str, _Failing] = {}
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._cycles = Cycles(pipeline, clock, take) if take else None

    @property
    def events(self) -> tuple[Event, ...]:
        """Return what was logged last, newest first; of a failure that repeats, when it was seen last."""
        return tuple(self._events)

    @contextmanager
    def stage(self, name: str, generation: int, *, quiet: bool = False, again: bool = False) -> Iterator[None]:
        """Run one stage; `quiet` where success is no news (a render that changed nothing), `again` where failure is none.

        Raises:
            StageFailed: one of the failures that a stage may have.

        """
        began = self._clock.now()
        try:
            yield
        except self._expected as error:
            seconds = self._clock.now() - began
            self._metrics.took(self._pipeline, name, seconds)
            self.failed(name, str(error), generation, again=again, seconds=seconds, kind=_kind(error))
            raise StageFailed(name, error) from error
        seconds = self._clock.now() - began
        self._metrics.took(self._pipeline, name, seconds)
        self.succeeded(name, generation, seconds, quiet=quiet)

    def failed(
        self, name: str, reason: str, generation: int, *, again: bool = False, seconds: float | None = None, kind: str = "failed"
    ) -> None:
        """Log that a stage failed, and of equal failures in a row the 10th, 100th and so on; `again` where that is known of this content.

        `seconds` is how long it took, where it took any, and `kind` one word for the reason that holds nothing of anybody's.
        """
        before = self._failing.get(name)
        if before is None or before.reason != reason:
            before = _Failing(reason, 0, logging.DEBUG if again else logging.WARNING)
        self._failing[name] = now = replace(before, times=before.times + 1)
        level, times = now.level, now.times
        event = Event(
            at=self._clock.wall(), stage=name, generation=generation, outcome="failed", reason=reason, duration=seconds, times=times
        )
        self._keep(event, level)
        if times == 1:
            self._trace(event, kind, news=level >= logging.INFO)
        if _is_told(times):
            counted = {"times": times} if times > 1 else {}
            self._line(level, name, generation, outcome="failed", **_duration(seconds), reason=reason, **counted)

    def succeeded(self, name: str, generation: int, seconds: float, *, quiet: bool = False) -> None:
        """Log that a stage succeeded, and how often it had failed."""
        failing = self._failing.pop(name, None)
        level = logging.DEBUG if quiet and failing is None else logging.INFO
        times = failing.times if failing else 0
        event = Event(at=self._clock.wall(), stage=name, generation=generation, outcome="ok", duration=seconds, times=times + 1)
        self._keep(event, level)
        self._trace(event, "", news=level >= logging.INFO)
        after = {"failures": times} if times else {}
        self._line(level, name, generation, outcome="ok", **_duration(seconds), **after)

    def note(
        self, what: str, generation: int, *, level: int = logging.INFO, outcome: Literal["ok", "failed"] = "ok", reason: str = ""
    ) -> None:
        """Log and keep what is no stage: something that took no time, such as what a person did."""
        self._keep(Event(at=self._clock.wall(), stage=what, generation=generation, outcome=outcome, reason=reason), level)
        self._line(level, what, generation, **({"reason": reason} if reason else {}))

    def rest(self, published: int, outcome: Literal["ok", "failed"] | None) -> None:
        """Take note that all is done that can be done now: how the change ended that is `published`, None while it is under way."""
        if self._cycles:
            self._cycles.rest(published, outcome)

    def close(self) -> None:
        """Take note that nothing follows."""
        if self._cycles:
            self._cycles.close()

    def _keep(self, event: Event, level: int) -> None:
        if level < logging.INFO:
            return
        if event.outcome == "failed" and event.times > 1:
            what = (event.stage, event.outcome, event.reason)
            known = next((each for each in self._events if (each.stage, each.outcome, each.reason) == what), None)
            if known is not None:
                self._events.remove(known)
        self._events.appendleft(event)

    def _trace(self, event: Event, kind: str, *, news: bool) -> None:
        if self._cycles:
            self._cycles.add(Step(event.stage, event.generation, 0.0, self._clock.now(), event.outcome, kind), event.duration, news=news)

    def _line(self, level: int, stage: str, generation: int, **fields: object) -> None:
        log.log(level, "%s", stage, extra={"fields": {"pipeline": self._pipeline, "generation": generation, **fields}})


def _duration(seconds: float | None) -> dict[str, float]:
    return {} if seconds is None else {"duration_ms": round(seconds * 1000, 1)}


def _is_told(times: int) -> bool:
    """Return whether a failure is logged: the first, and then each time that it is ten times as many."""
    return str(times).rstrip("0") == "1"


def _kind(error: Exception) -> str:
    """Return one word for a failure, which holds nothing that was read."""
    return str(getattr(error, "trouble", type(error).__name__))
