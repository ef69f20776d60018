"""The one place where a stage is timed, counted and logged; what it raises gets the stage's name."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from reloader.status import Metrics
from reloader.world.clock import Clock

log = logging.getLogger("reloader")


class StageFailed(Exception):
    """A stage did not do what it is for; the text says why, and never a value."""

    def __init__(self, stage: str, cause: Exception) -> None:
        super().__init__(str(cause))
        self.stage = stage
        self.cause = cause


class Stages:
    """The stages of one pipeline: one log line each; a failure that repeats is counted, not repeated."""

    def __init__(self, pipeline: str, metrics: Metrics, clock: Clock, expected: tuple[type[Exception], ...]) -> None:
        self._pipeline = pipeline
        self._metrics = metrics
        self._clock = clock
        self._expected = expected
        self._failing: dict[str, tuple[str, int]] = {}

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
            self._metrics.took(self._pipeline, name, self._clock.now() - began)
            self.failed(name, str(error), generation, again=again)
            raise StageFailed(name, error) from error
        seconds = self._clock.now() - began
        self._metrics.took(self._pipeline, name, seconds)
        self.succeeded(name, generation, seconds, quiet=quiet)

    def failed(self, name: str, reason: str, generation: int, *, again: bool = False) -> None:
        """Log that a stage failed, unless it fails as it did the last time; `again` where that is known of this content."""
        before, times = self._failing.get(name, ("", 0))
        if before == reason:
            self._failing[name] = (reason, times + 1)
            return
        self._failing[name] = (reason, 1)
        self._line(logging.DEBUG if again else logging.WARNING, name, generation, outcome="failed", reason=reason)

    def succeeded(self, name: str, generation: int, seconds: float, *, quiet: bool = False) -> None:
        """Log that a stage succeeded, and how often it had failed."""
        _, times = self._failing.pop(name, ("", 0))
        level = logging.DEBUG if quiet and not times else logging.INFO
        after = {"failures": times} if times else {}
        self._line(level, name, generation, outcome="ok", duration_ms=round(seconds * 1000, 1), **after)

    def _line(self, level: int, stage: str, generation: int, **fields: object) -> None:
        log.log(level, "%s", stage, extra={"fields": {"pipeline": self._pipeline, "generation": generation, **fields}})
