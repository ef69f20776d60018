"""Says how a pipeline fares: to the policy as facts, to people as a report."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from reloader.pipeline.content import Content
from reloader.pipeline.delivery import Delivery
from reloader.plan import Pipeline as Plan
from reloader.policy import Delivery as State, Facts, SourceFacts, Verdict
from reloader.record import Record
from reloader.snapshot import Snapshot, Standing
from reloader.status import PipelineReport, SourceReport, TargetReport
from reloader.volume import Mounted, Volume
from reloader.world.clock import Clock

TOLERANCE = 60.0
"""By how many seconds a wall clock may be behind the one of an earlier boot: one that was set right is, by a little."""


class Freshness:
    """How old each source's value is; ages go on from an earlier run.

    In the boot of the record they do so by the boot clock, which nobody steps; in a later one by the wall clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.now()
        self._record = Record(boot="")
        self._otherwise: float | None = None
        """When a source was last current of which no record tells, though a set made of it is there."""
        self._ends: float | None = None
        """When the first lease behind the set of an earlier run runs out."""

    def resume(self, record: Record, shown_since: float | None) -> None:
        """Go on from what is remembered; where that was lost, what is published is as old as its files."""
        self._record = record
        self._otherwise = None if record.ages else shown_since
        known = record.generations.get(record.published) if record.published is not None else None
        self._ends = None if known is None or known.expires is None else known.expires - self._clock.wall() + self._clock.now()

    def age(self, name: str, standing: Standing) -> float:
        """Return the seconds since the source was last known to be current, in this run or an earlier one.

        It is infinite where the wall clock says that this was in the future: then it was set back, and nobody knows.
        """
        now = self._clock.now()
        if standing.reading is not None:
            return standing.age(now)
        last = self._last(name, now)
        return max(0.0, now - (self._started if last is None else last))

    def known_until(self, name: str, standing: Standing) -> float | None:
        """Return until when the source is known to have been current, in this run or an earlier one; None where it never was."""
        if standing.reading is not None:
            return standing.reading.current_until
        return self._last(name, self._clock.now())

    def has_ended(self, standing: Standing) -> bool:
        """Return whether a source's value is valid no more; of one that was not read in this run, whether any in the set of an earlier one.

        A record does not say whose lease it was that ended.
        """
        ends = self._ends if standing.reading is None else standing.reading.expires
        return ends is not None and ends <= self._clock.now()

    def noted(self, snapshot: Snapshot) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Return for the record when each source was last known to be current: by the wall clock, and by the boot clock."""
        now, ahead = self._clock.now(), self._clock.wall() - self._clock.now()
        read = {name: now - standing.age(now) for name, standing in snapshot.standings.items() if standing.reading is not None}
        kept = snapshot.standings.keys() - read
        lost = {name: self._otherwise for name in kept - self._record.ages.keys() if self._otherwise is not None}
        ages = {name: at for name, at in self._record.ages.items() if name in kept}
        current = {name: at for name, at in self._record.current.items() if name in kept}
        known = {**lost, **read}
        return {**ages, **{name: at + ahead for name, at in known.items()}}, {**current, **known}

    def _last(self, name: str, now: float) -> float | None:
        """Return when a source that was not read in this run was last current, on the boot clock."""
        if name in self._record.current:
            return self._record.current[name]
        if name not in self._record.ages:
            return self._otherwise
        ago = self._clock.wall() - self._record.ages[name]
        return -inf if ago < -TOLERANCE else now - max(0.0, ago)


@dataclass(frozen=True)
class View:
    """All that is known of a pipeline at one moment."""

    plan: Plan
    snapshot: Snapshot
    volume: Volume | Mounted
    taken: bool
    """Whether the volume is ours."""
    content: Content
    delivery: Delivery
    freshness: Freshness
    closed_by: tuple[str, ...]
    now: float
    started: float


def facts(view: View) -> Facts:
    """Return what the verdict on a pipeline depends on."""
    plan, now, published = view.plan, view.now, view.volume.published
    rejected, troubles = view.content.rejected, [each for each in (view.content.unwritable, view.content.unsaved) if each is not None]
    unwritable = troubles[0] if troubles else None
    lost = published is None and unwritable is not None and view.volume.is_lost
    on_fallback = published is not None and view.volume.record.is_fallback(published.number)
    refused_first = rejected is not None and rejected.stage != "render" and rejected.refused and (published is None or on_fallback)
    return Facts(
        mode=plan.failure.mode,
        startup_grace=plan.failure.startup_grace,
        max_staleness=plan.failure.max_staleness,
        since_start=now - view.started,
        published=published is not None or lost,
        lost=lost,
        volume_taken=view.taken,
        first_refused=rejected.reason if rejected and refused_first else None,
        fallback=plan.failure.fallback is not None,
        fallback_published=on_fallback,
        fallback_failed=view.content.fallback.failure,
        withdrawn=published is None and view.volume.record.closed,
        sources=tuple(_source_facts(view, name, standing) for name, standing in view.snapshot.standings.items()),
        rejected=rejected.reason if rejected else None,
        rejected_for=now - rejected.since if rejected else 0.0,
        unwritable=unwritable.reason if unwritable else None,
        unwritable_for=now - min((each.since for each in troubles), default=now),
        delivery=State.CONFIRMED if published is None else view.delivery.state,
        delivery_reason=view.delivery.reason,
        rolled_back=view.volume.record.rolled_back,
        since_publish=now - published.at if published else 0.0,
        not_ready_when_closed=plan.failure.closes_by("not_ready"),
    )


def report(view: View, verdict: Verdict) -> PipelineReport:
    """Return what people are told of a pipeline."""
    plan, snapshot, delivery, published = view.plan, view.snapshot, view.delivery, view.volume.published
    number = published.number if published else 0
    confirmed = delivery.state is State.CONFIRMED and published is not None
    wanted = view.content.rejected or view.content.unwritable
    waiting = bool(wanted) or (snapshot.first_change is not None and not snapshot.missing)
    known = view.volume.record.generations.get(number)
    return PipelineReport(
        name=plan.name,
        mode=plan.failure.mode,
        ready=verdict.ready,
        started=verdict.started,
        degraded=verdict.degraded,
        closed=verdict.closed,
        reasons=verdict.reasons,
        desired=view.volume.next_number() if waiting or published is None else number,
        published=number,
        confirmed=number if confirmed else view.volume.last_confirmed or 0,
        held=view.volume.record.rolled_back,
        published_at=published.wall if published else None,
        owed=None if confirmed or published is None else f"{delivery.state}: {delivery.reason}" if delivery.reason else delivery.state,
        rejected=f"{wanted.stage}: {wanted.reason}" if wanted else None,
        last_reload_successful=delivery.successful,
        last_success=delivery.last_success,
        sources=tuple(_source_report(view, name, standing) for name, standing in snapshot.standings.items()),
        target=TargetReport(
            kind=plan.target.kind,
            pid=next((each.pid for each in delivery.instances if each.is_process), None),
            trouble=delivery.trouble,
        ),
        certified=known.certified if known else None,
        certified_from=known.certified_from if known else None,
        fallback=known is not None and known.fallback,
        closed_by=view.closed_by,
    )


def _source_facts(view: View, name: str, standing: Standing) -> SourceFacts:
    plan, source = view.plan, view.plan.sources.get(name)
    mode = source.on_failure if source else None
    limit = source.max_staleness if source else None
    return SourceFacts(
        name=name,
        mode=mode or plan.failure.mode,
        age=view.freshness.age(name, standing),
        max_staleness=plan.failure.max_staleness if limit is None else limit,
        failure=why_not(standing),
        expired=view.freshness.has_ended(standing),
    )


def _source_report(view: View, name: str, standing: Standing) -> SourceReport:
    plan, reading = view.plan, standing.reading
    return SourceReport(
        name=name,
        kind=plan.sources[name].kind if name in plan.sources else "templates",
        up=standing.failure is None and reading is not None,
        current_until=view.freshness.known_until(name, standing),
        failure=why_not(standing) if standing.failure else None,
        detail=reading.detail if reading else "",
        expires=reading.expires if reading else None,
        held=name in view.content.held,
    )


def why_not(standing: Standing) -> str | None:
    """Return why there is no current value."""
    if standing.failure is not None:
        return f"{standing.failure.kind}: {standing.failure.reason}"
    return None if standing.reading is not None else "it has not answered yet"
