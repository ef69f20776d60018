"""The failure table: what is served, and what is said of it, when a part fails. One pure function.

Readiness means *what is published may be relied on*; it never waits for the target, because a native sidecar starts before it.
"""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
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


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the verdict depends on; durations in seconds."""

    mode: FailureMode
    startup_grace: float
    max_staleness: float
    since_start: float
    published: bool
    """Something is on the volume, from this run or an earlier one."""
    volume_taken: bool = True
    """The volume with its record could be opened; without it nobody knows what is owed."""
    first_refused: str | None = None
    """Why the first set of all was refused, if it was."""
    sources: tuple[SourceFacts, ...] = ()
    rejected: str | None = None
    """Why newer content was rejected by render or check."""
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


@dataclass(frozen=True)
class Finding:
    """One row of the table that holds now."""

    effect: Effect
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What the table says of all findings together."""

    effect: Effect
    ready: bool
    started: bool
    """Something may be relied on, or the grace of an open pipeline is over."""
    reasons: tuple[str, ...] = field(default=())

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
    findings = _findings(facts)
    effect = max((finding.effect for finding in findings), default=Effect.SERVE)
    relied_on = effect < Effect.NOT_READY
    open_anyway = effect is Effect.CLOSED and facts.published and not facts.not_ready_when_closed
    reasons = tuple(finding.reason for finding in findings)
    return Verdict(effect, ready=relied_on or open_anyway, started=relied_on, reasons=reasons)


def _findings(facts: Facts) -> tuple[Finding, ...]:
    if not facts.volume_taken:
        return (Finding(Effect.NOT_READY, f"volume: {facts.unwritable or 'not opened yet'}"),)
    if not facts.published:
        return (_nothing_published(facts), *_why_nothing(facts))
    return (
        *(found for source in facts.sources if (found := _source(source)) is not None),
        *_waiting(facts, facts.rejected, facts.rejected_for, "rejected"),
        *_waiting(facts, facts.unwritable, facts.unwritable_for, "volume"),
        *_delivery(facts),
        *((Finding(Effect.DEGRADED, f"generation {facts.rolled_back} was put back by hand, and is held"),) if facts.rolled_back else ()),
    )


def _nothing_published(facts: Facts) -> Finding:
    """Rows "starting, nothing ever published": within the grace, and after it."""
    if facts.since_start < facts.startup_grace:
        return Finding(Effect.NOT_READY, "nothing is published yet")
    if facts.mode == "open" and facts.first_refused is None:
        return Finding(Effect.DEGRADED, "nothing is published, and startup_grace is over")
    return Finding(Effect.NOT_READY if facts.mode == "open" else Effect.CLOSED, "nothing good was ever published")


def _why_nothing(facts: Facts) -> tuple[Finding, ...]:
    reasons = [f"source {source.name}: {source.failure}" for source in facts.sources if source.failure]
    reasons += [reason for reason in (facts.first_refused or facts.rejected, facts.unwritable) if reason]
    return tuple(Finding(Effect.SERVE, reason) for reason in reasons)


def _source(source: SourceFacts) -> Finding | None:
    """Rows "source unreachable": young enough is served, older or expired is not in mode closed."""
    stale = source.age > source.max_staleness
    if not stale and not source.expired:
        return None
    what = "its lease has run out" if source.expired else f"stale for more than {source.max_staleness:g} s"
    why = f": {source.failure}" if source.failure else ""
    return Finding(_by_mode(source.mode), f"source {source.name} is not current ({what}){why}")


def _waiting(facts: Facts, reason: str | None, waited: float, what: str) -> tuple[Finding, ...]:
    """Rows "render or check rejects" and "the volume cannot be written": what is published stays, in mode closed for so long."""
    if reason is None:
        return ()
    closed = facts.mode == "closed" and waited > facts.max_staleness
    return (Finding(Effect.CLOSED if closed else Effect.DEGRADED, f"{what}: {reason}"),)


def _delivery(facts: Facts) -> tuple[Finding, ...]:
    """Rows "rollback not verified either" and "target there but ...": owed; in mode closed only for as long as a start may take."""
    if facts.delivery not in (Delivery.TROUBLED, Delivery.FAILED):
        return ()
    over = facts.delivery is Delivery.FAILED or facts.since_publish > facts.startup_grace
    closed = facts.mode == "closed" and over
    return (Finding(Effect.CLOSED if closed else Effect.DEGRADED, f"reload owed: {facts.delivery_reason}"),)


def _by_mode(mode: FailureMode) -> Effect:
    return Effect.CLOSED if mode == "closed" else Effect.DEGRADED
