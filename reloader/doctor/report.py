"""How the findings look: as lines for people, what is wrong last, where a terminal shows it; and as a document for machines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from textwrap import indent, wrap
from typing import Any

from reloader import __version__
from reloader.doctor.finding import WORST_LAST, Finding, State
from reloader.doctor.patient import Patient
from reloader.doctor.place import Place

SCHEMA = 1
"""Raised when a field changes its meaning or goes."""
_PLACES: Mapping[Place, str] = {Place.POD: "a Pod", Place.CONTAINER: "a container outside Kubernetes", Place.HOST: "a host"}
_COLOURS: Mapping[State, str] = {State.OK: "32", State.SKIPPED: "2", State.WARNING: "33", State.FAILED: "31"}
_MARGIN = " " * 9
WIDTH = 120


def worst(findings: Sequence[Finding]) -> State:
    """Return how the worst of them is."""
    return max((finding.state for finding in findings), key=WORST_LAST.index, default=State.OK)


def document(patient: Patient, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return all that was found, as `docs/doctor.schema.json` has it."""
    place, shown = patient.shown
    return {
        "schema": SCHEMA,
        "version": __version__,
        "place": {"kind": place.value, "evidence": asdict(shown)},
        "configuration": "invalid" if patient.mistakes else "valid",
        "worst": worst(findings).value,
        "findings": [{**asdict(finding), "state": finding.state.value} for finding in findings],
    }


def lines(patient: Patient, findings: Sequence[Finding], *, colour: bool) -> Iterator[str]:
    """Yield what a person reads: what is right in a line each, and beneath it what is wrong with evidence and mends."""
    place, shown = patient.shown
    yield f"This is {_PLACES[place]} ({shown.where}: {shown.seen})."
    width = max((len(finding.check) for finding in findings), default=0)
    yield from _skipped([finding for finding in findings if finding.state is State.SKIPPED], colour=colour)
    for state in WORST_LAST:
        for finding in findings:
            if finding.state is state is not State.SKIPPED:
                yield from _finding(finding, width, colour=colour)
    yield _summary(findings)


def _skipped(findings: Sequence[Finding], *, colour: bool) -> Iterator[str]:
    """Yield each reason once, with all checks that it holds for."""
    for reason in dict.fromkeys(finding.told for finding in findings):
        checks = dict.fromkeys(finding.check for finding in findings if finding.told == reason)
        yield f"{_word(State.SKIPPED, colour=colour)}  {reason}:"
        yield from wrap(", ".join(checks), WIDTH, initial_indent=_MARGIN, subsequent_indent=_MARGIN)


def _finding(finding: Finding, width: int, *, colour: bool) -> Iterator[str]:
    about = f"{finding.about}: " if finding.about else ""
    yield f"{_word(finding.state, colour=colour)}  {finding.check:<{width}}  {about}{finding.told}"
    if finding.state not in (State.WARNING, State.FAILED):
        return
    for evidence in finding.evidence:
        yield f"{_MARGIN}seen in {evidence.where}: {evidence.seen}"
    for number, mend in enumerate(finding.mends):
        yield f"{_MARGIN}{'mend' if number == 0 else 'or'} ({mend.kind}), {mend.where}:"
        yield indent(mend.text.rstrip("\n"), _MARGIN + "    ")


def _word(state: State, *, colour: bool) -> str:
    word = f"{state.upper() if state is State.FAILED else state.value:<7}"
    return f"\x1b[{_COLOURS[state]}m{word}\x1b[0m" if colour else word


def _summary(findings: Sequence[Finding]) -> str:
    counts = {state: sum(finding.state is state for finding in findings) for state in reversed(WORST_LAST)}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)
