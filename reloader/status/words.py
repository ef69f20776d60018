"""What people are told: the document of `/status` in words, the same ones on the page and in the table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Mood = Literal["good", "warn", "bad", "idle"]
"""How it is, for a mark and a colour; the words beside it say the same."""

Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A source, the volume or the target of a pipeline."""

    name: str
    kind: str = ""
    mood: Mood
    state: str
    facts: tuple[str, ...] = ()
    trouble: str = ""
    """What is wrong with it, in the words of whoever noticed."""


@dataclass(frozen=True, kw_only=True)
class Happened:
    """An event."""

    at: float
    when: str
    stage: str
    generation: int
    mood: Mood
    outcome: str
    took: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Changed:
    """What the last publish changed."""

    generation: int
    when: str
    size: str
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A pipeline, from its sources through the volume to the target."""

    name: str
    mode: str
    mood: Mood
    state: str
    sources: tuple[Stage, ...]
    volume: Stage
    target: Stage
    notes: tuple[tuple[str, str], ...]
    """What is to be said of it as a whole, each with its label."""
    advice: tuple[str, ...]
    """What a person can do now."""
    events: tuple[Happened, ...]
    change: Changed | None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The whole process."""

    version: str
    at: float
    mood: Mood
    state: str
    mistakes: tuple[str, ...]
    """What is wrong with the configuration on the disk, so that an earlier one runs."""
    stuck: tuple[str, ...]
    advice: tuple[str, ...]
    pipelines: tuple[Line, ...]


def overview(document: Document) -> Overview:
    """Return the document of `/status` in words; nothing in them can move a cursor, end a line or turn the direction of reading."""
    plain = _visible(document)
    lines = tuple(_line(pipeline, plain["at"]) for pipeline in plain["pipelines"])
    mistakes, stuck = tuple(plain["configuration"]["mistakes"]), tuple(plain["stuck"])
    healthy = not mistakes and not stuck and all(line.mood in ("good", "idle") for line in lines)
    return Overview(
        version=plain["version"],
        at=plain["at"],
        mood="bad" if not plain["ready"] else "good" if healthy else "warn",
        state=_summary(plain["pipelines"], ready=plain["ready"], healthy=healthy),
        mistakes=mistakes,
        stuck=stuck,
        advice=tuple(_advice_for_all(mistakes, stuck)),
        pipelines=lines,
    )


def shown(text: str) -> str:
    """Return a text in which whatever is not seen as itself is written as its escape: controls, marks of direction, half characters."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape", "backslashreplace").decode() for each in text)


def span(seconds: float) -> str:
    """Return how long that is, as people say it."""
    whole = int(max(0.0, seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{whole // 60} min" if whole >= 60 else f"{whole} s"  # noqa: PLR2004 - seconds of a minute


def ago(at: float, now: float) -> str:
    """Return how long ago that was."""
    return f"{span(now - at)} ago" if now - at >= 1 else "just now"


def _ends(at: float, now: float) -> str:
    return f"ends in {span(at - now)}" if at > now else f"ended {ago(at, now)}"


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {key: _diff(each) if key == "diff" else _visible(each) for key, each in value.items()}
    return [_visible(each) for each in value] if isinstance(value, list | tuple) else value


def _diff(text: str) -> list[str]:
    return [shown(line.replace("\t", "    ")) for line in text.splitlines()]


def _summary(pipelines: list[Document], *, ready: bool, healthy: bool) -> str:
    if not pipelines:
        return "No pipeline"
    unready = [each["name"] for each in pipelines if not each["ready"]]
    of_all = f": {len(unready)} of {len(pipelines)} pipelines" if len(pipelines) > 1 else ""
    if not ready:
        return f"Not ready{of_all}"
    return "Ready" if healthy else "Ready, and something is wrong"


def _line(pipeline: Document, now: float) -> Line:
    mood, state = _verdict(pipeline)
    return Line(
        name=pipeline["name"],
        mode=pipeline["mode"],
        mood=mood,
        state=state,
        sources=tuple(_source(source, now) for source in pipeline["sources"]),
        volume=_volume(pipeline, now),
        target=_target(pipeline, now),
        notes=tuple(_notes(pipeline)),
        advice=tuple(_advice(pipeline)),
        events=tuple(_event(event, now) for event in pipeline["events"]),
        change=_change(pipeline["change"], now),
    )


def _verdict(pipeline: Document) -> tuple[Mood, str]:
    if pipeline["closed"]:
        return "bad", "closed"
    if not pipeline["ready"]:
        return "bad", "not ready"
    return ("warn", "ready, degraded") if pipeline["degraded"] else ("good", "ready")


def _source(source: Document, now: float) -> Stage:
    age, ends = source["age_seconds"], source["expires_at"]
    facts = [source["detail"]] if source["detail"] else []
    facts += [_ends(ends, now)] if ends is not None else []
    facts += ["its newest value is not used, because a set with it was refused"] if source["held"] else []
    ended = ends is not None and ends <= now
    return Stage(
        name=source["name"],
        kind=source["kind"],
        mood="bad" if ended or age is None else "good" if source["up"] and not source["held"] else "warn",
        state=_currency(age, ended=ended, held=source["held"]),
        facts=tuple(facts),
        trouble=source["failure"] or "",
    )


def _currency(age: float | None, *, ended: bool, held: bool) -> str:
    if age is None or ended:
        return "ended" if ended else "never read"
    return f"{f'{span(age)} old' if age >= 1 else 'current'}{', held' if held else ''}"


def _volume(pipeline: Document, now: float) -> Stage:
    published, ends = pipeline["generations"]["published"], pipeline["certificate_expires_at"]
    facts = [f"published {ago(pipeline['published_at'], now)}"] if published and pipeline["published_at"] is not None else []
    facts += [f"generation {pipeline['generations']['desired']} waits"] if pipeline["generations"]["desired"] > published > 0 else []
    facts += ["it is failure.fallback"] if pipeline["fallback"] else []
    facts += [f"the certificate {_ends(ends, now)}"] if ends is not None else []
    withdrawn, ended = "withdraw" in pipeline["closed_by"], ends is not None and ends <= now
    doubtful = pipeline["rejected"] or pipeline["fallback"] or pipeline["held"] is not None or not published
    return Stage(
        name="volume",
        mood="bad" if withdrawn or ended else "warn" if doubtful else "good",
        state="withdrawn" if withdrawn else f"generation {published}" if published else "nothing published",
        facts=tuple(facts),
        trouble=pipeline["rejected"] or "",
    )


def _target(pipeline: Document, now: float) -> Stage:
    kind = pipeline["target"]["kind"]
    facts = ["readers look for themselves"] if kind == "none" else _reloads(pipeline, now)
    mood, state = _delivery(pipeline)
    return Stage(name="target", kind=kind, mood=mood, state=state, facts=tuple(facts), trouble=pipeline["owed"] or "")


def _reloads(pipeline: Document, now: float) -> Iterator[str]:
    confirmed, at = pipeline["generations"]["confirmed"], pipeline["last_reload_success_at"]
    if pipeline["target"]["pid"]:
        yield f"pid {pipeline['target']['pid']}"
    if pipeline["owed"] and confirmed:
        yield f"generation {confirmed} is the last it confirmed"
    if at is not None:
        yield f"reloaded {ago(at, now)}"
    if pipeline["last_reload_successful"] is False:
        yield "the last reload failed"


def _delivery(pipeline: Document) -> tuple[Mood, str]:
    confirmed, published = pipeline["generations"]["confirmed"], pipeline["generations"]["published"]
    if "stop_target" in pipeline["closed_by"]:
        return "bad", "stopped while closed"
    if pipeline["owed"]:
        if pipeline["target"]["trouble"] in (None, "gone"):
            return "warn", "reload owed"
        return ("idle", "not running") if pipeline["target"]["trouble"] == "absent" else ("bad", "reload owed")
    return ("good", f"generation {confirmed} confirmed") if published else ("idle", "nothing to confirm")


def _notes(pipeline: Document) -> Iterator[tuple[str, str]]:
    if pipeline["closed_by"]:
        yield "closed", ", ".join(pipeline["closed_by"])
    if pipeline["held"] is not None:
        yield "held", f"generation {pipeline['held']}, by hand"
    yield from (("because", reason) for reason in pipeline["reasons"])


def _advice(pipeline: Document) -> Iterator[str]:
    trouble = pipeline["target"]["trouble"]
    if pipeline["held"] is not None:
        yield f"`reloader resume --pipeline {pipeline['name']}` lets go of generation {pipeline['held']}"
    if pipeline["rejected"]:
        yield "mend the value or the template: what changed is tried at once, what did not by `reloader resume`"
    if any(source["failure"] for source in pipeline["sources"]):
        yield "`reloader check --online` reads each source now, and says what it would need"
    if pipeline["owed"] and trouble not in (None, "absent", "gone"):
        yield "`reloader doctor` says what is between this and the target, and what mends it"
    if pipeline["closed"]:
        yield "closing is undone by itself once its cause is gone"


def _advice_for_all(mistakes: tuple[str, ...], stuck: tuple[str, ...]) -> Iterator[str]:
    if mistakes:
        yield "the earlier configuration runs on, and a restart would fail or change it: mend the file, or restart where a key asks for it"
    if stuck:
        yield "only a restart of reloader helps; a liveness probe on /healthz does that by itself"


def _event(event: Document, now: float) -> Happened:
    times = f"{event['times']} times" if event["times"] > 1 else ""
    return Happened(
        at=event["at"],
        when=ago(event["at"], now),
        stage=event["stage"],
        generation=event["generation"],
        mood="good" if event["outcome"] == "ok" else "bad",
        outcome=event["outcome"],
        took=", ".join(filter(None, [times, _took(event["duration_seconds"])])),
        reason=event["reason"],
    )


def _took(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _change(change: Document | None, now: float) -> Changed | None:
    if change is None:
        return None
    lines = change["diff"]
    more = sum(line.startswith("+") and not line.startswith("+++ ") for line in lines)
    less = sum(line.startswith("-") and not line.startswith("--- ") for line in lines)
    size = f"+{more} -{less} lines"
    return Changed(generation=change["generation"], when=ago(change["at"], now), size=size, lines=tuple(lines))
