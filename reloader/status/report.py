"""The report of a pipeline, and the document that `/status` answers with. No field of it ever holds a value or a token."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import inf
from typing import Any, Literal

from reloader.world.clock import Clock

SCHEMA_VERSION = 1
"""Of the `/status` document: raised when a field changes its meaning or goes, not when one comes."""


@dataclass(frozen=True, kw_only=True)
class SourceReport:
    """One source; times are seconds of the boot clock."""

    name: str
    kind: str
    up: bool
    current_until: float | None
    """Until when its value is known to be current: infinite while it is watched, None when there never was a value.

    Where the wall clock was set back since an earlier run read it, nobody knows: minus infinity.
    """
    failure: str | None = None
    detail: str = ""
    expires: float | None = None
    held: bool = False
    """Its newest value is not used, because a set with it was refused."""

    def age(self, now: float) -> float | None:
        """Return the seconds since the value was last known to be current; None when there never was one."""
        return None if self.current_until is None else max(0.0, now - self.current_until)


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """The target, as far as it is known."""

    kind: str
    pid: int | None = None
    trouble: str | None = None
    """Why a reload that is due was not asked for, as in `reloader.targets.Trouble`."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a pipeline did, or failed to do; what its log line says."""

    at: float
    """Wall clock."""
    stage: str
    generation: int
    outcome: Literal["ok", "failed"]
    reason: str = ""
    duration: float | None = None
    """Seconds, where it took any."""
    times: int = 1
    """How often in a row it failed like this, or had failed before it succeeded and this once."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the last publish changed, with every secret masked."""

    generation: int
    at: float
    """Wall clock."""
    diff: str


@dataclass(frozen=True, kw_only=True)
class PipelineReport:
    """One pipeline; generations are numbers that only grow, 0 for none."""

    name: str
    mode: str
    ready: bool = False
    started: bool = False
    degraded: bool = True
    closed: bool = False
    reasons: tuple[str, ...] = ("starting",)
    desired: int = 0
    published: int = 0
    confirmed: int = 0
    held: int | None = None
    """The generation that a person put back, and holds."""
    published_at: float | None = None
    """Wall clock."""
    owed: str | None = None
    """Why the published generation is not confirmed, if it is not."""
    rejected: str | None = None
    """Why newer content is not published, if there is some."""
    last_reload_successful: bool | None = None
    last_success: float | None = None
    """Wall clock of the last confirmed reload."""
    sources: tuple[SourceReport, ...] = ()
    target: TargetReport = TargetReport(kind="none")
    fallback: bool = False
    """Whether what is published is `failure.fallback`."""
    closed_by: tuple[str, ...] = ()
    """What of `when_closed` is in effect."""
    certified: float | None = None
    """When the first certificate of the published set ends, by the wall clock."""
    certified_from: float | None = None
    """When that certificate began to be valid."""
    events: tuple[Event, ...] = ()
    """The last ten, newest first."""
    change: Change | None = None


@dataclass
class Status:
    """The latest report of every pipeline; each is replaced whole, so that a reader never sees half of one."""

    clock: Clock
    reports: Mapping[str, PipelineReport] = field(default_factory=dict)
    config_successful: bool = True
    """Whether the own configuration, as it is on the disk now, is the one that runs."""
    config_mistakes: tuple[str, ...] = ()
    alive: Callable[[], tuple[str, ...]] = tuple
    """Return the threads that are stuck."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Pipelines report from their own threads."""
    _all_started: bool = False

    def put(self, report: PipelineReport) -> None:
        """Replace the report of one pipeline; having started once is kept."""
        with self._lock:
            before = self.reports.get(report.name)
            started = report.started or (before is not None and before.started)
            self.reports = {**self.reports, report.name: replace(report, started=started)}
            self._note_started()

    def introduce(self, name: str, mode: str) -> None:
        """Expect the reports of a pipeline, which is not ready before its first."""
        with self._lock:
            self.reports = {name: PipelineReport(name=name, mode=mode), **self.reports}

    def drop(self, name: str) -> None:
        """Forget a pipeline that is no longer configured."""
        with self._lock:
            self.reports = {other: report for other, report in self.reports.items() if other != name}
            self._note_started()

    def _note_started(self) -> None:
        self._all_started = self._all_started or (bool(self.reports) and all(each.started for each in self.reports.values()))

    @property
    def ready(self) -> bool:
        """Return whether what every pipeline published may be relied on."""
        return bool(self.reports) and all(report.ready for report in self.reports.values())

    @property
    def started(self) -> bool:
        """Return whether every pipeline was ready for its target once; one that is configured later changes nothing about that."""
        return self._all_started


def document(status: Status, version: str) -> dict[str, Any]:
    """Return what `/status` answers with, as plain data; its schema is docs/status.schema.json."""
    now, wall = status.clock.now(), status.clock.wall()
    return {
        "schema": SCHEMA_VERSION,
        "version": version,
        "at": round(wall, 3),
        "ready": status.ready,
        "stuck": list(status.alive()),
        "configuration": {"successful": status.config_successful, "mistakes": list(status.config_mistakes)},
        "pipelines": [_pipeline(report, now, wall) for _, report in sorted(status.reports.items())],
    }


def _pipeline(report: PipelineReport, now: float, wall: float) -> dict[str, Any]:
    return {
        "name": report.name,
        "mode": report.mode,
        "ready": report.ready,
        "started": report.started,
        "degraded": report.degraded,
        "closed": report.closed,
        "reasons": list(report.reasons),
        "generations": {"desired": report.desired, "published": report.published, "confirmed": report.confirmed},
        "held": report.held,
        "published_at": report.published_at,
        "owed": report.owed,
        "rejected": report.rejected,
        "last_reload_successful": report.last_reload_successful,
        "last_reload_success_at": report.last_success,
        "sources": [_source(source, now, wall) for source in report.sources],
        "target": {"kind": report.target.kind, "pid": report.target.pid, "trouble": report.target.trouble},
        "fallback": report.fallback,
        "closed_by": list(report.closed_by),
        "certificate_expires_at": report.certified,
        "events": [_event(event) for event in report.events],
        "change": None if report.change is None else asdict(report.change),
    }


def _event(event: Event) -> dict[str, Any]:
    seconds = event.duration
    plain = {"at": round(event.at, 3), "stage": event.stage, "generation": event.generation, "outcome": event.outcome}
    return {**plain, "reason": event.reason, "duration_seconds": None if seconds is None else round(seconds, 4), "times": event.times}


def _source(source: SourceReport, now: float, wall: float) -> dict[str, Any]:
    age = source.age(now)
    return {
        "name": source.name,
        "kind": source.kind,
        "up": source.up,
        "age_seconds": None if age is None or age == inf else round(age, 3),
        "failure": source.failure,
        "detail": source.detail,
        "held": source.held,
        "expires_at": None if source.expires is None else round(wall + source.expires - now, 3),
    }
