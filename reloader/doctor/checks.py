"""What a check is, and how it says what it found."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from reloader.doctor.finding import Evidence, Finding, Mend, State
from reloader.doctor.patient import Patient


@dataclass(frozen=True)
class Check:
    """One thing that is looked at."""

    id: str
    """Stays the same from release to release."""
    about: str
    """What is looked at, in a few words."""
    look: Callable[[Patient], Iterable[Finding]]
    is_here: bool = True
    """Whether it looks at the place where the reloader runs, rather than at what is written somewhere."""


def ok(told: str, about: str = "", *, evidence: Iterable[Evidence] = ()) -> Finding:
    """Return that it is right."""
    return Finding(state=State.OK, told=told, about=about, evidence=tuple(evidence))


def skipped(told: str, about: str = "") -> Finding:
    """Return that it was not looked at, and why."""
    return Finding(state=State.SKIPPED, told=told, about=about)


def warning(told: str, about: str = "", *, evidence: Iterable[Evidence] = (), mends: Iterable[Mend] = ()) -> Finding:
    """Return that it works, and should be otherwise."""
    return Finding(state=State.WARNING, told=told, about=about, evidence=tuple(evidence), mends=tuple(mends))


def failed(told: str, about: str = "", *, evidence: Iterable[Evidence] = (), mends: Iterable[Mend] = ()) -> Finding:
    """Return that it does not work."""
    return Finding(state=State.FAILED, told=told, about=about, evidence=tuple(evidence), mends=tuple(mends))


def each(findings: Iterable[Finding], nothing: str) -> Iterator[Finding]:
    """Yield the findings, or that there was nothing to look at."""
    found = tuple(findings)
    yield from found or (skipped(nothing),)
