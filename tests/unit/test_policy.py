"""The failure table, a row a case."""

from dataclasses import replace
from math import inf

import pytest

from reloader import policy
from reloader.policy import Delivery, Effect, Facts, SourceFacts, verdict

SOURCE = SourceFacts(name="routes", mode="open", age=0.0, max_staleness=600.0)
GOOD = Facts(
    mode="open",
    startup_grace=30.0,
    max_staleness=600.0,
    since_start=100.0,
    published=True,
    since_publish=100.0,
    sources=(SOURCE,),
)
NOTHING = replace(GOOD, published=False, since_publish=0.0)
UNREACHABLE = replace(SOURCE, failure="unreachable: connection refused")

TABLE = {
    "all is well": (GOOD, Effect.SERVE, Effect.SERVE),
    "starting, nothing ever published, within startup_grace": (replace(NOTHING, since_start=5.0), Effect.NOT_READY, Effect.NOT_READY),
    "the same, grace over": (NOTHING, Effect.DEGRADED, Effect.CLOSED),
    "the same, the first set was refused": (replace(NOTHING, first_refused="check: no"), Effect.NOT_READY, Effect.CLOSED),
    "starting, a young generation is there from an earlier run": (
        replace(GOOD, since_start=1.0, sources=(replace(UNREACHABLE, age=599.0),)),
        Effect.SERVE,
        Effect.SERVE,
    ),
    "starting, an old generation is there from an earlier run": (
        replace(GOOD, since_start=1.0, sources=(replace(UNREACHABLE, age=601.0),)),
        Effect.DEGRADED,
        Effect.CLOSED,
    ),
    "source unreachable, last good younger than max_staleness": (
        replace(GOOD, sources=(replace(UNREACHABLE, age=600.0),)),
        Effect.SERVE,
        Effect.SERVE,
    ),
    "source unreachable, older": (replace(GOOD, sources=(replace(UNREACHABLE, age=600.1),)), Effect.DEGRADED, Effect.CLOSED),
    "source never current, max_staleness never": (
        replace(GOOD, sources=(replace(UNREACHABLE, age=1e9, max_staleness=inf),)),
        Effect.SERVE,
        Effect.SERVE,
    ),
    "a lease has run out": (replace(GOOD, sources=(replace(UNREACHABLE, age=1.0, expired=True),)), Effect.DEGRADED, Effect.CLOSED),
    "one source of several is old": (
        replace(GOOD, sources=(SOURCE, replace(UNREACHABLE, name="tls", age=700.0), SOURCE)),
        Effect.DEGRADED,
        Effect.CLOSED,
    ),
    "the record on the volume cannot be read": (
        replace(GOOD, volume_taken=False, unwritable="it belongs to another user"),
        Effect.NOT_READY,
        Effect.NOT_READY,
    ),
    "the same, for max_staleness": (
        replace(GOOD, volume_taken=False, unwritable="it belongs to another user", unwritable_for=600.1),
        Effect.NOT_READY,
        Effect.CLOSED,
    ),
    "the fallback is published": (replace(GOOD, fallback=True, fallback_published=True), Effect.DEGRADED, Effect.CLOSED),
    "the fallback is published, the first set was refused": (
        replace(GOOD, fallback=True, fallback_published=True, first_refused="check: no"),
        Effect.NOT_READY,
        Effect.CLOSED,
    ),
    "closed before, nothing published since": (replace(NOTHING, withdrawn=True), Effect.NOT_READY, Effect.CLOSED),
    "content rejected, waiting": (replace(GOOD, rejected="no", rejected_for=600.0), Effect.DEGRADED, Effect.DEGRADED),
    "content rejected, waited max_staleness": (replace(GOOD, rejected="no", rejected_for=600.1), Effect.DEGRADED, Effect.CLOSED),
    "volume cannot be written, waiting": (replace(GOOD, unwritable="full", unwritable_for=600.0), Effect.DEGRADED, Effect.DEGRADED),
    "volume cannot be written, waited max_staleness": (
        replace(GOOD, unwritable="full", unwritable_for=600.1),
        Effect.DEGRADED,
        Effect.CLOSED,
    ),
    "target absent": (replace(GOOD, delivery=Delivery.ABSENT), Effect.SERVE, Effect.SERVE),
    "reload owed, nothing wrong": (replace(GOOD, delivery=Delivery.OWED), Effect.SERVE, Effect.SERVE),
    "the target refused a set, and the one before is back": (
        replace(GOOD, rejected="verify: no new workers", rejected_for=1.0),
        Effect.DEGRADED,
        Effect.DEGRADED,
    ),
    "the target refuses what is published, and there is nothing to go back to": (
        replace(GOOD, delivery=Delivery.FAILED, since_publish=1.0),
        Effect.DEGRADED,
        Effect.CLOSED,
    ),
    "a person put an earlier generation back": (replace(GOOD, rolled_back=3), Effect.DEGRADED, Effect.DEGRADED),
    "target there but troubled, within the grace": (
        replace(GOOD, delivery=Delivery.TROUBLED, since_publish=30.0),
        Effect.DEGRADED,
        Effect.DEGRADED,
    ),
    "target there but troubled, after it": (replace(GOOD, delivery=Delivery.TROUBLED, since_publish=30.1), Effect.DEGRADED, Effect.CLOSED),
}


def in_mode(facts: Facts, mode: str) -> Facts:
    return replace(facts, mode=mode, sources=tuple(replace(source, mode=mode) for source in facts.sources))


@pytest.mark.parametrize("row", TABLE)
def test_each_row_of_the_table_in_both_modes(row):
    facts, when_open, when_closed = TABLE[row]

    assert when_open == verdict(in_mode(facts, "open")).effect
    assert when_closed == verdict(in_mode(facts, "closed")).effect


@pytest.mark.parametrize("row", TABLE)
def test_ready_and_started_are_what_the_effect_says(row):
    facts, *_ = TABLE[row]
    for mode in ("open", "closed"):
        said = verdict(in_mode(facts, mode))

        assert (said.effect < Effect.NOT_READY) == said.ready == said.started


def test_every_row_of_the_policy_is_held_by_a_row_here(monkeypatch):
    """Whatever one changes in one of them, a row here fails: another effect in either column, or a situation that is not seen."""
    unnoticed = [name for name, mutated in mutations() if (monkeypatch.setattr(policy, "TABLE", mutated), mismatches() == [])[1]]
    monkeypatch.undo()

    assert unnoticed == []
    assert mismatches() == []


def mutations():
    """Yield the policy's table with one thing in it changed, and what that is."""
    table = policy.TABLE
    for position, row in enumerate(table):
        changed = [("unseen", replace(row, cases=lambda _facts: ()))]
        for column in ("open", "closed"):
            changed += [
                (f"{column} {effect.name}", replace(row, **{column: effect})) for effect in Effect if effect != getattr(row, column)
            ]
        yield from ((f"{row.situation}: {name}", (*table[:position], other, *table[position + 1 :])) for name, other in changed)


def mismatches() -> list[str]:
    """Return the rows here that the policy does not hold."""
    return [row for row, (facts, *told) in TABLE.items() if [verdict(in_mode(facts, mode)).effect for mode in ("open", "closed")] != told]


def test_a_source_has_a_mode_of_its_own():
    """A closed source closes an open pipeline, and an open source does not close a closed one."""
    old = replace(UNREACHABLE, age=601.0)

    assert verdict(replace(GOOD, mode="open", sources=(replace(old, mode="closed"),))).closed
    assert not verdict(replace(GOOD, mode="closed", sources=(replace(old, mode="open"),))).closed


def test_closed_without_not_ready_stays_ready():
    """What closed does is the operator's choice: without `not_ready` the Pod stays in its Service."""
    facts = replace(GOOD, mode="closed", rejected="no", rejected_for=601.0, not_ready_when_closed=False)

    assert (verdict(facts).closed, verdict(facts).ready) == (True, True)


@pytest.mark.parametrize(
    "unreliable",
    [
        {"volume_taken": False, "unwritable": "it belongs to another user", "unwritable_for": 601.0},
        {"volume_taken": False, "rejected": "no", "rejected_for": 601.0},
        {"fallback_published": True, "first_refused": "check: no", "rejected": "check: no"},
    ],
    ids=["the volume is not taken for long", "not taken, and closed for another reason", "the fallback after a refused first set"],
)
def test_closed_without_not_ready_is_not_ready_where_open_would_not_be(unreliable):
    """To close may cost nothing, but it never makes anything ready."""
    assert not verdict(replace(GOOD, mode="closed", not_ready_when_closed=False, **unreliable)).ready


def test_closed_with_nothing_published_is_never_ready():
    assert not verdict(replace(NOTHING, mode="closed", not_ready_when_closed=False)).ready


def test_every_finding_gives_its_reason():
    """Somebody who reads the reasons learns of all that is wrong, not of the worst only."""
    facts = replace(GOOD, rejected="bad syntax", unwritable="disk full", delivery=Delivery.TROUBLED, delivery_reason="no right to signal")

    reasons = " / ".join(verdict(facts).reasons)

    assert all(part in reasons for part in ("bad syntax", "disk full", "no right to signal"))


def test_nothing_published_says_why():
    facts = replace(NOTHING, since_start=1.0, sources=(UNREACHABLE,))

    assert "source routes: unreachable: connection refused" in verdict(facts).reasons
