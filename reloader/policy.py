"""The failure table: what is served, and what is said of it, when a part fails. One pure function.

Readiness means *what is published may be relied on*; it never waits for the target, because a native sidecar starts before it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import partial
from math import inf

from reloader.plan import FailureMode


class Effect(IntEnum):
    """What a finding does to the pipeline; the worst one counts."""

    SERVE = 0
    DEGRADED = 1
    """Served, and something is wrong with it."""
    NOT_READY = 2
    CLOSED = 3
    """What is published may not be relied on: `when_closed` is done."""


class Cause(StrEnum):
    """What a finding is about."""

    NOTHING = "nothing"
    """Nothing good was ever published."""
    SOURCE = "source"
    CONTENT = "content"
    VOLUME = "volume"
    DELIVERY = "delivery"
    HAND = "hand"
    WITHDRAWN = "withdrawn"
    """What was published was taken away, and nothing good came since."""


class Delivery(StrEnum):
    """How the published set fares with the target."""

    CONFIRMED = "confirmed"
    OWED = "owed"
    """Asked for, or about to be."""
    ABSENT = "absent"
    """Nothing runs on it."""
    FAILED = "failed"
    """The target does not take what is published, and there is nothing to go back to."""
    TROUBLED = "troubled"
    """The target is there, but it is ambiguous, may not be signalled, ignores the signal or does not confirm."""


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """One source, as the policy needs to know it."""

    name: str
    mode: FailureMode
    age: float
    """Seconds since it was last known to be current, in this run or an earlier one."""
    max_staleness: float
    failure: str | None = None
    """Why it cannot be read now, if it cannot."""
    expired: bool = False
    """Its lease has run out."""

    @property
    def stale(self) -> bool:
        """Return whether its value is too old, or valid no more."""
        return self.expired or self.age > self.max_staleness


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the verdict depends on; durations in seconds."""

    mode: FailureMode
    startup_grace: float
    max_staleness: float
    since_start: float
    published: bool
    """Something is on the volume, from this run or an earlier one."""
    lost: bool = False
    """What was published is not to be seen: the volume was replaced by something that cannot be taken. It counts as published."""
    volume_taken: bool = True
    """The volume with its record could be opened; without it nobody knows what is owed."""
    first_refused: str | None = None
    """Why the first set of all was refused, if it was, and nothing else than the fallback was published since."""
    fallback: bool = False
    """There is a `failure.fallback`."""
    fallback_published: bool = False
    """What is published is that."""
    fallback_failed: str | None = None
    """Why it is not, where it should be."""
    withdrawn: bool = False
    """Nothing is published, because the pipeline closed and took it away."""
    sources: tuple[SourceFacts, ...] = ()
    rejected: str | None = None
    """Why newer content was rejected by render or check, or refused by the target."""
    rejected_for: float = 0.0
    rolled_back: int | None = None
    """The generation that a person put back, and holds."""
    unwritable: str | None = None
    """Why the volume cannot be written."""
    unwritable_for: float = 0.0
    delivery: Delivery = Delivery.CONFIRMED
    delivery_reason: str = ""
    since_publish: float = inf
    not_ready_when_closed: bool = True

    @property
    def has_nothing(self) -> bool:
        """Return whether nothing good was ever published, as the volume tells."""
        return self.volume_taken and not self.published and not self.withdrawn

    @property
    def lacks(self) -> bool:
        """Return whether nothing good was ever published, and the grace is over."""
        return self.has_nothing and self.since_start >= self.startup_grace

    @property
    def mode_of_lack(self) -> FailureMode:
        """Return the mode that decides while nothing was ever published: the worst of the sources without a value, or the pipeline's."""
        modes = {source.mode for source in self.sources if source.failure is not None}
        if not modes:
            return self.mode
        return "closed" if "closed" in modes else "open"


Case = tuple[FailureMode, str]
"""Under which mode something is to be judged, and what it is, in words."""


@dataclass(frozen=True)
class Row:
    """One row of the failure table."""

    situation: str
    cause: Cause
    open: Effect
    closed: Effect
    cases: Callable[[Facts], Iterable[Case]]
    """What of this holds now."""


@dataclass(frozen=True)
class Finding:
    """One row of the table that holds now."""

    effect: Effect
    reason: str
    cause: Cause
    in_open: Effect
    """What it would be to an open pipeline."""


@dataclass(frozen=True)
class Verdict:
    """What the table says of all findings together."""

    effect: Effect
    ready: bool
    started: bool
    """Something may be relied on, or the grace of an open pipeline is over."""
    reasons: tuple[str, ...] = field(default=())
    causes: frozenset[Cause] = frozenset()
    """What the pipeline is closed for, if it is."""
    may_publish: bool = True
    """Whether a set may be published where there is none: not one of values that close the pipeline."""
    wants_fallback: bool = False

    @property
    def degraded(self) -> bool:
        """Return whether something is wrong."""
        return self.effect is not Effect.SERVE

    @property
    def closed(self) -> bool:
        """Return whether `when_closed` is to be done."""
        return self.effect is Effect.CLOSED


def verdict(facts: Facts) -> Verdict:
    """Return what the failure table says of these facts."""
    findings = tuple(_findings(facts))
    effect = max((finding.effect for finding in findings), default=Effect.SERVE)
    relied_on = effect < Effect.NOT_READY
    ready_anyway = facts.published and not facts.not_ready_when_closed and all(each.in_open < Effect.NOT_READY for each in findings)
    return Verdict(
        effect,
        ready=relied_on or ready_anyway,
        started=relied_on,
        reasons=(*(finding.reason for finding in findings), *(_why_nothing(facts) if not facts.published else ())),
        causes=frozenset(finding.cause for finding in findings if finding.effect is Effect.CLOSED),
        may_publish=(facts.published and not facts.lost) or not any(source.stale and source.mode == "closed" for source in facts.sources),
        wants_fallback=facts.fallback and facts.lacks and facts.mode_of_lack == "open",
    )


def _findings(facts: Facts) -> Iterator[Finding]:
    for row in TABLE:
        for mode, reason in row.cases(facts):
            yield Finding(row.closed if mode == "closed" else row.open, reason, row.cause, row.open)


def _why_nothing(facts: Facts) -> Iterator[str]:
    yield from (f"source {source.name}: {source.failure}" for source in facts.sources if source.failure)
    if facts.volume_taken:
        yield from (reason for reason in (facts.rejected, facts.unwritable, facts.fallback_failed) if reason)


def _if(holds: bool, facts: Facts, reason: str) -> tuple[Case, ...]:
    return ((facts.mode, reason),) if holds else ()


def _not_taken(facts: Facts, *, lasts: bool) -> tuple[Case, ...]:
    holds = not facts.volume_taken and (facts.unwritable_for > facts.max_staleness) == lasts
    return _if(holds, facts, f"volume: {facts.unwritable or 'not opened yet'}")


def _waiting(facts: Facts) -> tuple[Case, ...]:
    return _if(facts.has_nothing and not facts.lacks, facts, "nothing is published yet")


def _lacking(facts: Facts, *, refused: bool) -> tuple[Case, ...]:
    if not facts.lacks or (facts.first_refused is not None) != refused:
        return ()
    told = "nothing is published, and startup_grace is over" if facts.mode_of_lack == "open" else "nothing good was ever published"
    return ((facts.mode_of_lack, told),)


def _on_fallback(facts: Facts, *, refused: bool) -> tuple[Case, ...]:
    holds = facts.fallback_published and (facts.first_refused is not None) == refused
    why = f", because the first set was refused: {facts.first_refused}" if refused else ", because nothing else ever was"
    return _if(holds, facts, f"failure.fallback is published{why}")


def _withdrawn(facts: Facts) -> tuple[Case, ...]:
    told = "closed: what was published is withdrawn until something good is there"
    return _if(facts.volume_taken and facts.withdrawn, facts, told)


def _stale(facts: Facts) -> Iterator[Case]:
    for source in facts.sources:
        if facts.published and source.stale:
            what = "its lease has run out" if source.expired else f"stale for more than {source.max_staleness:g} s"
            why = f": {source.failure}" if source.failure else ""
            yield source.mode, f"source {source.name} is not current ({what}){why}"


def _rejected(facts: Facts, *, lasts: bool) -> tuple[Case, ...]:
    lasted = facts.rejected_for > facts.max_staleness
    return _if(facts.published and facts.rejected is not None and lasted == lasts, facts, f"rejected: {facts.rejected}")


def _unwritable(facts: Facts, *, lasts: bool) -> tuple[Case, ...]:
    lasted = facts.unwritable_for > facts.max_staleness
    holds = facts.published and facts.volume_taken and facts.unwritable is not None and lasted == lasts
    return _if(holds, facts, f"volume: {facts.unwritable}")


def _failed(facts: Facts) -> tuple[Case, ...]:
    return _if(_delivery_is(facts, Delivery.FAILED), facts, f"reload owed: {facts.delivery_reason}")


def _troubled(facts: Facts, *, lasts: bool) -> tuple[Case, ...]:
    lasted = facts.since_publish > facts.startup_grace
    return _if(_delivery_is(facts, Delivery.TROUBLED) and lasted == lasts, facts, f"reload owed: {facts.delivery_reason}")


def _delivery_is(facts: Facts, delivery: Delivery) -> bool:
    return facts.published and facts.volume_taken and facts.delivery is delivery


def _by_hand(facts: Facts) -> tuple[Case, ...]:
    told = f"generation {facts.rolled_back} was put back by hand, and is held"
    return _if(facts.published and facts.rolled_back is not None, facts, told)


_SERVE, _DEGRADED, _NOT_READY, _CLOSED = Effect

TABLE: tuple[Row, ...] = (
    Row("the volume cannot be taken", Cause.VOLUME, _NOT_READY, _NOT_READY, partial(_not_taken, lasts=False)),
    Row("the same, for max_staleness", Cause.VOLUME, _NOT_READY, _CLOSED, partial(_not_taken, lasts=True)),
    Row("starting, nothing ever published, within startup_grace", Cause.NOTHING, _NOT_READY, _NOT_READY, _waiting),
    Row("the same, grace over", Cause.NOTHING, _DEGRADED, _CLOSED, partial(_lacking, refused=False)),
    Row("the same, the first set was refused", Cause.NOTHING, _NOT_READY, _CLOSED, partial(_lacking, refused=True)),
    Row("the fallback is published", Cause.NOTHING, _DEGRADED, _CLOSED, partial(_on_fallback, refused=False)),
    Row("the same, and the first set was refused", Cause.NOTHING, _NOT_READY, _CLOSED, partial(_on_fallback, refused=True)),
    Row("closed before, and nothing published since", Cause.WITHDRAWN, _NOT_READY, _CLOSED, _withdrawn),
    Row("source unreachable, older, or a lease has run out", Cause.SOURCE, _DEGRADED, _CLOSED, _stale),
    Row("render, check or target rejects new content", Cause.CONTENT, _DEGRADED, _DEGRADED, partial(_rejected, lasts=False)),
    Row("the same, for max_staleness", Cause.CONTENT, _DEGRADED, _CLOSED, partial(_rejected, lasts=True)),
    Row("the volume cannot be written", Cause.VOLUME, _DEGRADED, _DEGRADED, partial(_unwritable, lasts=False)),
    Row("the same, for max_staleness", Cause.VOLUME, _DEGRADED, _CLOSED, partial(_unwritable, lasts=True)),
    Row("reload refused, and the rollback too", Cause.DELIVERY, _DEGRADED, _CLOSED, _failed),
    Row("the target is there but takes nothing, within the grace", Cause.DELIVERY, _DEGRADED, _DEGRADED, partial(_troubled, lasts=False)),
    Row("the same, grace over", Cause.DELIVERY, _DEGRADED, _CLOSED, partial(_troubled, lasts=True)),
    Row("a person put an earlier generation back", Cause.HAND, _DEGRADED, _DEGRADED, _by_hand),
)
"""What the failure table says, a row a line; what is in no row is served."""
