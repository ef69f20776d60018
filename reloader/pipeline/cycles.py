"""Which stages belong to one change, from the first of them to the end of its delivery, so that a trace shows where the time went."""

from dataclasses import dataclass, field, replace
from typing import Literal

from reloader.traces import Cycle, Step, Take
from reloader.world.clock import Clock

LONGEST = 60.0
"""Seconds after which a change that is still owed is handed over as it stands; what follows of it is one of its own."""
MOST_STEPS = 100


@dataclass
class _Open:
    """A change under way."""

    generation: int
    steps: list[Step] = field(default_factory=list)
    news: bool = False
    """Whether any stage of it was worth an event: a look that changed nothing is no change."""


class Cycles:
    """The changes of one pipeline: at most one that is being made, and one that is being delivered."""

    def __init__(self, pipeline: str, clock: Clock, take: Take) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._take = take
        self._made: _Open | None = None
        self._delivered: _Open | None = None

    def add(self, step: Step, seconds: float | None, *, news: bool) -> None:
        """Take a stage that ended now; one of unknown length began when the one before it ended."""
        if step.generation == 0 and not news:
            return
        delivered = self._delivered
        if delivered is None or step.generation > delivered.generation:
            self._made = change = self._made or _Open(step.generation)
            change.generation = max(change.generation, step.generation)
        else:
            change = delivered
        before = change.steps[-1].ended if change.steps else step.ended
        if len(change.steps) < MOST_STEPS:
            change.steps.append(replace(step, began=before if seconds is None else step.ended - seconds))
        change.news = change.news or news

    def rest(self, published: int, outcome: Literal["ok", "failed"] | None) -> None:
        """Hand over what has ended: what was made and is not published, what was delivered, and what newer content took the place of."""
        made, self._made = self._made, None
        if made is not None and made.news and any(step.generation == published for step in made.steps):
            self._hand_over(self._delivered, "superseded")
            self._delivered, made.generation = made, published
        elif made is not None and made.news:
            self._hand_over(made, "failed" if any(step.outcome == "failed" for step in made.steps) else "ok")
        delivered = self._delivered
        if delivered is None:
            return
        if outcome is not None:
            self._hand_over(delivered, outcome if delivered.generation == published else "failed")
        elif self._clock.now() - delivered.steps[0].began >= LONGEST:
            self._hand_over(delivered, "owed")
        else:
            return
        self._delivered = None

    def close(self) -> None:
        """Hand over what is under way."""
        self._hand_over(self._delivered, "owed")
        self._delivered = None

    def _hand_over(self, change: _Open | None, outcome: str) -> None:
        if change is None:
            return
        ended = self._clock.now() if outcome in ("owed", "superseded") else max(step.ended for step in change.steps)
        began = min(step.began for step in change.steps)
        ahead = self._clock.wall() - self._clock.now()
        steps = tuple(replace(step, began=step.began + ahead, ended=step.ended + ahead) for step in change.steps)
        self._take(Cycle(self._pipeline, change.generation, began + ahead, ended + ahead, outcome, steps))
