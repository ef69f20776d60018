"""Reports of pipelines that fare well and badly, for what shows them to people."""

from dataclasses import replace
from math import inf
from typing import Any

from reloader.status import Change, Event, PipelineReport, SourceReport, Status, TargetReport, document
from reloader.world.clock import Clock

NOW, WALL = 100_000.0, 1_800_000_000.0

HOSTILE = (
    "<script>alert('x')</script> \"quoted\" & `ticked` \x1b[2J\x1b]0;t\x07 \u202eereh\u2069 \u05e9\u05dc\u05d5\u05dd \ud800 \x00\r\n"
    + "a" * 300
)
"""What somebody may have put into a name or an error: markup, control sequences, turned text, half a character, no place to break."""


class Stopped(Clock):
    """A clock that stands still."""

    def now(self) -> float:
        return NOW

    def wall(self) -> float:
        return WALL


def event(seconds_ago: float, stage: str, **more: Any) -> Event:
    """Return an event of generation 7 that went well unless told otherwise."""
    return Event(**{"at": WALL - seconds_ago, "stage": stage, "generation": 7, "outcome": "ok", "duration": 0.0123, **more})


DIFF = "--- nginx.conf\n+++ nginx.conf\n@@ -1,3 +1,3 @@\n server {\n-\tlisten 80;\n+\tlisten 8080;\n password ********;\n"

GOOD = PipelineReport(
    name="web",
    mode="open",
    ready=True,
    started=True,
    degraded=False,
    reasons=(),
    desired=7,
    published=7,
    confirmed=7,
    published_at=WALL - 190,
    last_reload_successful=True,
    last_success=WALL - 188,
    sources=(
        SourceReport(name="site", kind="files", up=True, current_until=inf, detail="12 files"),
        SourceReport(name="tls", kind="vault", up=True, current_until=inf, expires=NOW + 1700, detail="lease, renewable"),
    ),
    target=TargetReport(kind="process", pid=42),
    certified=WALL + 12 * 86400,
    events=tuple(event(185 + 2 * number, stage) for number, stage in enumerate(("verify", "signal", "publish", "check", "render"))),
    change=Change(generation=7, at=WALL - 190, diff=DIFF),
)

OWED = replace(
    GOOD,
    name="app",
    degraded=True,
    reasons=("reload owed: pid 42 runs as uid 101, and this as uid 1000: the kernel lets no signal through",),
    desired=8,
    confirmed=6,
    owed="troubled: pid 42 runs as uid 101, and this as uid 1000: the kernel lets no signal through",
    rejected="check: nginx.conf:3:1: the key is not its certificate's",
    last_reload_successful=False,
    sources=(
        replace(GOOD.sources[0], held=True),
        replace(GOOD.sources[1], up=False, current_until=NOW - 75, failure="unreachable: connection refused", expires=NOW - 5),
        SourceReport(name="routes", kind="consul", up=False, current_until=None, failure="refused: 403 permission denied"),
    ),
    target=TargetReport(kind="process", pid=42, trouble="permission"),
    events=(
        event(3, "signal", outcome="failed", reason="permission: not permitted", times=14, duration=None),
        event(4, "check", generation=8, outcome="failed", reason="the key is not its certificate's", duration=2.5),
        *(event(60 + number, "publish") for number in range(8)),
    ),
)

CLOSED = replace(
    OWED,
    name="db",
    mode="closed",
    ready=False,
    closed=True,
    closed_by=("not_ready", "withdraw", "stop_target"),
    reasons=("source tls is not current (stale for more than 600 s): unreachable: connection refused",),
    published=0,
    published_at=None,
    owed=None,
    rejected=None,
    target=TargetReport(kind="process"),
    change=None,
    events=(),
)

HELD = replace(
    GOOD,
    name="held",
    degraded=True,
    held=6,
    published=6,
    confirmed=6,
    fallback=True,
    certified=WALL - 60,
    reasons=("generation 6 was put back by hand, and is held",),
)

ABSENT = replace(
    GOOD, name="absent", owed="absent: no process has the name nginx", confirmed=0, target=TargetReport(kind="process", trouble="absent")
)

STARTING = PipelineReport(name="new", mode="open")

NASTY = replace(
    OWED,
    name="nasty",
    reasons=(HOSTILE,),
    owed=HOSTILE,
    rejected=HOSTILE,
    sources=(SourceReport(name="nasty", kind="files", up=False, current_until=None, failure=HOSTILE, detail=HOSTILE),),
    events=(event(1, "render", outcome="failed", reason=HOSTILE),),
    change=Change(generation=7, at=WALL, diff=f"--- a\n+++ a\n@@ -1 +1 @@\n-{HOSTILE}\n+{HOSTILE}\n"),
)

EVERY = (GOOD, OWED, CLOSED, HELD, ABSENT, STARTING, NASTY)


def status_of(*reports: PipelineReport, mistakes: tuple[str, ...] = (), stuck: tuple[str, ...] = ()) -> Status:
    """Return a status with these reports, at a time that stands still."""
    status = Status(Stopped(), config_successful=not mistakes, config_mistakes=mistakes, alive=lambda: stuck)
    for report in reports:
        status.put(report)
    return status


def document_of(*reports: PipelineReport, mistakes: tuple[str, ...] = (), stuck: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the document of `/status` for these reports."""
    return document(status_of(*reports, mistakes=mistakes, stuck=stuck), "1.2.3")
