"""The document of `/status` as a table for a terminal."""

from collections.abc import Callable, Iterator

from reloader.status.words import Document, Line, Mood, Stage, overview

Paint = Callable[[Mood, str], str]
"""Gives a text the colour of a mood."""

_COLOURS = {"good": "32", "warn": "33", "bad": "31", "idle": "2"}


def plain(_mood: Mood, text: str) -> str:
    """Return the text without a colour."""
    return text


def coloured(mood: Mood, text: str) -> str:
    """Return the text in the colour of its mood, for a terminal."""
    return f"\x1b[{_COLOURS[mood]}m{text}\x1b[0m"


def table(document: Document, paint: Paint = plain) -> list[str]:
    """Return the status as lines for people."""
    whole = overview(document)
    lines = [line for pipeline in whole.pipelines for line in (*_pipeline(pipeline, paint), "")]
    lines += [paint("bad", f"configuration refused: {mistake}") for mistake in whole.mistakes]
    lines += [paint("bad", f"stuck: {thread}") for thread in whole.stuck]
    lines += [f"next: {advice}" for advice in whole.advice]
    return lines if lines and lines[-1] else lines[:-1]


def _pipeline(line: Line, paint: Paint) -> Iterator[str]:
    yield f"{line.name}  {paint(line.mood, line.state)} (fail-{line.mode})"
    names = [f"{source.name} ({source.kind})" for source in line.sources]
    width, states = max(map(len, names), default=0), max((len(source.state) for source in line.sources), default=0)
    for name, source in zip(names, line.sources, strict=True):
        yield _row("source", f"{name:<{width}}  {_state(source, paint, states)}", source, source.trouble)
    yield _row("volume", _state(line.volume, paint), line.volume)
    yield from (f"  {'rejected':<8} {text}" for text in [line.volume.trouble] if text)
    yield _row("target", f"{line.target.kind}{_pid(line.target)}  {_state(line.target, paint)}", line.target)
    yield from (f"  {'owed':<8} {text}" for text in [line.target.trouble] if text)
    yield from (f"  {label:<8} {text}" for label, text in line.notes)
    yield from (f"  {'next':<8} {advice}" for advice in line.advice)
    yield from _events(line, paint)


def _row(label: str, text: str, stage: Stage, trouble: str = "") -> str:
    facts = [*(fact for fact in stage.facts if not fact.startswith("pid ")), *filter(None, [trouble])]
    return f"  {label:<8} {text}  {', '.join(facts)}".rstrip()


def _state(stage: Stage, paint: Paint, width: int = 0) -> str:
    return paint(stage.mood, stage.state) + " " * (width - len(stage.state))


def _pid(target: Stage) -> str:
    return next((f" {fact}" for fact in target.facts if fact.startswith("pid ")), "")


def _events(line: Line, paint: Paint) -> Iterator[str]:
    rows = [(each.when, each.stage, str(each.generation or "-"), each.outcome, each.took, each.reason) for each in line.events]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, event in zip(rows, line.events, strict=True):
        when, stage, generation, outcome, took, reason = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield f"  {'event':<8} {when}  {stage}  {generation}  {paint(event.mood, outcome)}  {took}  {reason}".rstrip()
