"""The failure table as laws that hold whatever happens, told from the table of the documentation and not from the code."""

import random
from collections.abc import Callable, Mapping
from dataclasses import fields
from math import inf
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, seed, settings, strategies as st

from reloader import policy
from tests.mutants import mutants
from tests.scale import SEED, rounds
from tests.unit.test_policy import GOOD, TABLE, in_mode

Plain = Mapping[str, Any]
"""The facts as plain data, so that mutants of the policy, which have classes of their own, can be asked too."""
Choose = Callable[[list[Any]], Any]

STRENGTH = ["SERVE", "DEGRADED", "NOT_READY", "CLOSED"]
LIMITS = [0.0, 1.0, 30.0, 600.0, inf]
REFUSED = "the check said no"
LACKS = ("nothing is published yet", "nothing is published, and startup_grace is over", "nothing good was ever", "withdrawn until")
"""In which words it is told that there is nothing; one of them says all."""


def around(limit: float) -> list[float]:
    """Return times before, at and after a limit."""
    return [0.0, 1e9] if limit == inf else sorted({0.0, max(0.0, limit - 0.1), limit, limit + 0.1, limit + 1e6})


def chosen_facts(choose: Choose) -> Plain:
    """Return facts that can be, with every time before, at or after its limit."""
    grace, oldest = choose([0.0, 30.0, 900.0]), choose(LIMITS)
    published, rejected, unwritable = choose([True, True, False]), choose([None, "bad syntax"]), choose([None, "disk full"])
    fallback = published and choose([False, False, False, True])
    first_refused = REFUSED if (not published or fallback) and choose([False, True]) else None
    return {
        "mode": choose(["open", "closed"]),
        "startup_grace": grace,
        "max_staleness": oldest,
        "since_start": choose(around(grace)),
        "published": published,
        "lost": published and choose([False, False, False, True]),
        "volume_taken": choose([True, True, True, False]),
        "first_refused": first_refused,
        "fallback": choose([True, False]),
        "fallback_published": fallback,
        "fallback_failed": choose([None, "it is empty"]),
        "withdrawn": not published and choose([False, False, True]),
        "sources": tuple(chosen_source(choose, name) for name in choose([(), ("a",), ("a", "b")])),
        "rejected": first_refused or rejected,
        "rejected_for": choose(around(oldest)) if first_refused or rejected else 0.0,
        "rolled_back": choose([None, None, None, 7]),
        "unwritable": unwritable,
        "unwritable_for": choose(around(oldest)) if unwritable else 0.0,
        "delivery": choose(["confirmed", "owed", "absent", "failed", "troubled"]),
        "delivery_reason": "it says nothing",
        "since_publish": choose(around(grace)),
        "not_ready_when_closed": choose([True, False]),
    }


def chosen_source(choose: Choose, name: str) -> Plain:
    oldest = choose(LIMITS)
    return {
        "name": name,
        "mode": choose(["open", "closed"]),
        "age": choose(around(oldest)),
        "max_staleness": oldest,
        "failure": choose([None, f"unreachable: {name} does not answer"]),
        "expired": choose([False, False, True]),
    }


def plain_of(facts: policy.Facts) -> dict[str, Any]:
    plain = {field.name: getattr(facts, field.name) for field in fields(facts)}
    sources = tuple({field.name: getattr(source, field.name) for field in fields(source)} for source in facts.sources)
    return {**plain, "sources": sources, "delivery": facts.delivery.value}


class Told:
    """What a policy says of facts, in words that mutants share."""

    def __init__(self, module: ModuleType, plain: Plain) -> None:
        sources = tuple(module.SourceFacts(**source) for source in plain["sources"])
        facts = module.Facts(**{**plain, "sources": sources, "delivery": module.Delivery(plain["delivery"])})
        said = module.verdict(facts)
        self.effect, self.ready, self.started = said.effect.name, said.ready, said.started
        self.degraded, self.closed, self.reasons = said.degraded, said.closed, said.reasons
        self.causes = {str(cause) for cause in said.causes}
        self.may_publish, self.wants_fallback = said.may_publish, said.wants_fallback

    @property
    def strength(self) -> int:
        return STRENGTH.index(self.effect)

    @property
    def everything(self) -> tuple[object, ...]:
        return (self.effect, self.ready, self.started, self.closed, sorted(self.causes), self.may_publish, self.wants_fallback)


def under(plain: Plain, mode: str) -> Plain:
    """Return the facts with the pipeline and all its sources in one mode."""
    return {**plain, "mode": mode, "sources": tuple({**source, "mode": mode} for source in plain["sources"])}


def is_stale(source: Plain) -> bool:
    return bool(source["expired"] or source["age"] > source["max_staleness"])


def wrong(plain: Plain) -> set[str]:
    """Return what closes a pipeline that is closed by mode, with a set published on a volume that could be taken."""
    found = {"source"} if any(is_stale(source) for source in plain["sources"]) else set()
    found |= {"content"} if plain["rejected"] and plain["rejected_for"] > plain["max_staleness"] else set()
    found |= {"volume"} if plain["unwritable"] and plain["unwritable_for"] > plain["max_staleness"] else set()
    late = plain["delivery"] == "troubled" and plain["since_publish"] > plain["startup_grace"]
    found |= {"delivery"} if plain["delivery"] == "failed" or late else set()
    return found | ({"nothing"} if plain["fallback_published"] else set())


def closed_is_ready_on_what_is_known_to_be_good_alone(ask: Callable[[Plain], Told], plain: Plain) -> None:
    plain = {**under(plain, "closed"), "not_ready_when_closed": True}
    good = plain["published"] and plain["volume_taken"] and not wrong(plain)

    assert ask(plain).ready == good


def closed_is_closed_for_every_cause_that_lasts_and_names_it(ask: Callable[[Plain], Told], plain: Plain) -> None:
    plain = under(plain, "closed")
    said = ask(plain)
    if plain["published"] and plain["volume_taken"]:
        assert said.causes == wrong(plain)
    elif plain["volume_taken"]:
        waits = plain["since_start"] < plain["startup_grace"]
        assert said.causes == ({"withdrawn"} if plain["withdrawn"] else set() if waits else {"nothing"})
    else:
        assert ("volume" in said.causes) == (plain["unwritable_for"] > plain["max_staleness"])
        assert said.effect in ("NOT_READY", "CLOSED")
    assert said.closed == bool(said.causes)


def open_never_closes(ask: Callable[[Plain], Told], plain: Plain) -> None:
    said = ask(under(plain, "open"))

    assert (said.closed, said.causes) == (False, set())


def open_serves_what_is_there(ask: Callable[[Plain], Told], plain: Plain) -> None:
    """Whatever else happens: all but the fallback in the place of a first set that was refused may be relied on."""
    plain = under(plain, "open")
    if plain["volume_taken"] and plain["published"]:
        assert ask(plain).ready == (not (plain["fallback_published"] and plain["first_refused"]))


def open_does_without_after_the_grace(ask: Callable[[Plain], Told], plain: Plain) -> None:
    plain = under(plain, "open")
    if plain["volume_taken"] and not plain["published"]:
        over = plain["since_start"] >= plain["startup_grace"]
        assert ask(plain).ready == (over and not plain["withdrawn"] and not plain["first_refused"])


def a_volume_that_is_not_ours_is_never_relied_on(ask: Callable[[Plain], Told], plain: Plain) -> None:
    said = ask({**plain, "volume_taken": False})

    assert not said.started
    assert not said.wants_fallback
    told = plain["unwritable"] or "not opened yet"
    assert sum(told in reason for reason in said.reasons) == 1


def only_what_is_wholly_well_is_served_without_a_word(ask: Callable[[Plain], Told], plain: Plain) -> None:
    said = ask(plain)
    worries = [plain["rejected"], plain["unwritable"], plain["rolled_back"], plain["fallback_published"]]
    worries += [not plain["published"], not plain["volume_taken"], plain["delivery"] in ("failed", "troubled")]
    worries += [is_stale(source) for source in plain["sources"]]

    assert said.degraded == any(worries)
    assert bool(said.reasons) == any(worries)


def an_absent_target_changes_nothing(ask: Callable[[Plain], Told], plain: Plain) -> None:
    absent, confirmed = (ask({**plain, "delivery": delivery}) for delivery in ("absent", "confirmed"))

    assert (absent.everything, absent.reasons) == (confirmed.everything, confirmed.reasons)


def nothing_is_owed_of_what_is_not_published(ask: Callable[[Plain], Told], plain: Plain) -> None:
    if not plain["published"] or not plain["volume_taken"]:
        owed, confirmed = ask(plain), ask({**plain, "delivery": "confirmed", "since_publish": 0.0})
        assert (owed.everything, owed.reasons) == (confirmed.everything, confirmed.reasons)


def how_long_ago_the_publish_was_matters_to_a_troubled_target_alone(ask: Callable[[Plain], Told], plain: Plain) -> None:
    if plain["delivery"] != "troubled":
        assert ask(plain).everything == ask({**plain, "since_publish": 1e9}).everything


def a_closed_source_closes_an_open_pipeline(ask: Callable[[Plain], Told], plain: Plain) -> None:
    """And an open one never closes any: the verdict of what is published is the worst of the sources' and of the rest."""
    if plain["published"]:
        rest = ask({**plain, "sources": ()})
        each = [("CLOSED" if source["mode"] == "closed" else "DEGRADED") for source in plain["sources"] if is_stale(source)]
        assert ask(plain).effect == max([rest.effect, *each], key=STRENGTH.index)
        assert ask(plain).causes == rest.causes | ({"source"} if "CLOSED" in each else set())


def the_sources_without_a_value_decide_while_there_is_nothing(ask: Callable[[Plain], Told], plain: Plain) -> None:
    if plain["published"] or plain["withdrawn"] or not plain["volume_taken"] or plain["since_start"] < plain["startup_grace"]:
        return
    modes = {source["mode"] for source in plain["sources"] if source["failure"]} or {plain["mode"]}
    said = ask(plain)

    assert said.closed == ("closed" in modes)
    assert said.wants_fallback == (plain["fallback"] and not said.closed)
    assert any(("startup_grace is over" if modes == {"open"} else "nothing good was ever") in reason for reason in said.reasons)


def the_fallback_is_for_nothing_else(ask: Callable[[Plain], Told], plain: Plain) -> None:
    waits = plain["since_start"] < plain["startup_grace"]
    if plain["published"] or plain["withdrawn"] or waits or not plain["fallback"]:
        assert not ask(plain).wants_fallback


def no_first_set_is_made_of_what_would_close(ask: Callable[[Plain], Told], plain: Plain) -> None:
    bad = any(is_stale(source) and source["mode"] == "closed" for source in plain["sources"])

    assert ask(plain).may_publish == ((plain["published"] and not plain["lost"]) or not bad)


def what_is_told_fits_together(ask: Callable[[Plain], Told], plain: Plain) -> None:
    said = ask(plain)

    assert said.closed == (said.effect == "CLOSED") == bool(said.causes)
    assert said.started == (said.effect in ("SERVE", "DEGRADED"))
    assert said.degraded == (said.effect != "SERVE")
    as_open = ask(under(plain, "open"))
    kept = said.closed and plain["published"] and not plain["not_ready_when_closed"] and as_open.ready
    assert said.ready == (said.started or kept)


def every_reason_is_told_in_its_own_words(ask: Callable[[Plain], Told], plain: Plain) -> None:
    reasons = ask(plain).reasons
    told = " / ".join(reasons)
    if plain["published"]:
        for source in plain["sources"]:
            mine = [reason for reason in reasons if reason.startswith(f"source {source['name']} ")]
            assert len(mine) == is_stale(source)
            assert all(("lease" in reason) == source["expired"] for reason in mine)
            assert all((source["failure"] or "") in reason for reason in mine)
            assert source["expired"] or all(f"more than {source['max_staleness']:g} s" in reason for reason in mine)
            assert not any(reason.startswith(f"source {source['name']}:") for reason in reasons)
        assert sum("rejected: " in reason for reason in reasons) == bool(plain["rejected"])
    else:
        assert all(f"source {source['name']}: {source['failure']}" in reasons for source in plain["sources"] if source["failure"])
        assert sum(reason.startswith("source ") for reason in reasons) == sum(bool(source["failure"]) for source in plain["sources"])
        assert (bool(plain["fallback_failed"]) and plain["volume_taken"]) == ((plain["fallback_failed"] or "it is empty") in told)
        refused = plain["rejected"]
        assert (bool(refused) and plain["volume_taken"]) == ((refused or "bad syntax") in reasons)
    owed = plain["published"] and plain["volume_taken"] and plain["delivery"] in ("failed", "troubled")
    assert ("reload owed: it says nothing" in reasons) == owed
    assert sum("put back by hand" in reason for reason in reasons) == bool(plain["published"] and plain["rolled_back"])
    assert sum("fallback is published" in reason for reason in reasons) == bool(plain["fallback_published"])
    assert ("nothing else ever was" in told) == bool(plain["fallback_published"] and not plain["first_refused"])
    assert sum(lack in told for lack in LACKS) == (plain["volume_taken"] and not plain["published"])
    assert (sum(REFUSED in reason for reason in reasons) > 0) == bool(
        plain["first_refused"] and (plain["volume_taken"] or plain["published"])
    )


def a_reason_is_told_once(ask: Callable[[Plain], Told], plain: Plain) -> None:
    reasons = ask(plain).reasons

    assert len(set(reasons)) == len(reasons)


def nothing_gets_better_by_getting_worse(ask: Callable[[Plain], Told], plain: Plain) -> None:
    """A longer wait, an older value, a lease that ends, another closed source: none of them opens what is closed."""
    before = ask(plain)
    for worse in worsened(plain):
        after = ask(worse)
        assert after.strength >= before.strength
        assert after.causes >= before.causes
        assert after.ready <= before.ready
        assert after.may_publish <= before.may_publish


def worsened(plain: Plain) -> list[Plain]:
    sources = plain["sources"]
    old = {"name": "z", "mode": "closed", "age": 2.0, "max_staleness": 1.0, "failure": None, "expired": False}
    worse = [{**plain, "sources": (*sources, old)}, {**plain, "mode": "closed"}]
    for change in ({"expired": True}, {"age": 1e12}, {"mode": "closed"}):
        worse += [{**plain, "sources": (*sources[:at], {**sources[at], **change}, *sources[at + 1 :])} for at in range(len(sources))]
    worse += [{**plain, waited: 1e12} for waited in ("rejected_for", "unwritable_for", "since_publish") if plain[waited]]
    return worse


def the_end_of_the_grace_is_the_one_thing_that_waiting_makes_better(ask: Callable[[Plain], Told], plain: Plain) -> None:
    before, after = ask(plain), ask({**plain, "since_start": 1e12})
    if before.everything != after.everything:
        assert not plain["published"]
        assert not plain["withdrawn"]
        assert plain["volume_taken"]
        assert (before.effect, after.effect in ("DEGRADED", "NOT_READY", "CLOSED")) == ("NOT_READY", True)


def never_is_never(ask: Callable[[Plain], Told], plain: Plain) -> None:
    """With `max_staleness: never`, only leases that end and targets that do not confirm are left."""
    forever = tuple({**source, "max_staleness": inf, "expired": False} for source in plain["sources"])
    if plain["published"] and plain["volume_taken"]:
        assert ask({**plain, "max_staleness": inf, "sources": forever}).causes <= {"delivery", "nothing"}


LAWS = (
    closed_is_ready_on_what_is_known_to_be_good_alone,
    closed_is_closed_for_every_cause_that_lasts_and_names_it,
    open_never_closes,
    open_serves_what_is_there,
    open_does_without_after_the_grace,
    a_volume_that_is_not_ours_is_never_relied_on,
    only_what_is_wholly_well_is_served_without_a_word,
    an_absent_target_changes_nothing,
    nothing_is_owed_of_what_is_not_published,
    how_long_ago_the_publish_was_matters_to_a_troubled_target_alone,
    a_closed_source_closes_an_open_pipeline,
    the_sources_without_a_value_decide_while_there_is_nothing,
    the_fallback_is_for_nothing_else,
    no_first_set_is_made_of_what_would_close,
    what_is_told_fits_together,
    every_reason_is_told_in_its_own_words,
    a_reason_is_told_once,
    nothing_gets_better_by_getting_worse,
    the_end_of_the_grace_is_the_one_thing_that_waiting_makes_better,
    never_is_never,
)


EACH_STEP = (*LAWS[:7], an_absent_target_changes_nothing, what_is_told_fits_together)
MODES = st.sampled_from(["open", "closed"])


@st.composite
def facts(draw: st.DrawFn) -> Plain:
    return chosen_facts(lambda among: draw(st.sampled_from(among)))


def asking(module: ModuleType) -> Callable[[Plain], Told]:
    return lambda plain: Told(module, plain)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_it_holds_whatever_happens(law):
    """Each law says in its name what holds."""

    @seed(SEED)
    @given(facts())
    def holds(plain: Plain) -> None:
        law(asking(policy), plain)

    holds()


SEQUENCES = rounds(1000, 10_000)
STARTING = plain_of(GOOD) | {"published": False, "delivery": "confirmed", "since_start": 0.0, "fallback": True}


def events() -> st.SearchStrategy[Plain]:
    """Return what may happen, as the facts that change by it."""
    times = st.sampled_from([0.0, 29.0, 31.0, 599.0, 601.0])
    source = st.fixed_dictionaries(
        {"mode": MODES, "age": times, "failure": st.sampled_from([None, "unreachable: no"]), "expired": st.booleans()}
    ).map(lambda drawn: {"name": "a", "max_staleness": 600.0, **drawn})
    return st.one_of(
        st.builds(dict, passes=st.sampled_from([1.0, 30.0, 600.0, 1e5])),
        st.builds(dict, sources=st.lists(source, max_size=2).map(renamed)),
        st.builds(dict, rejected=st.sampled_from([None, "bad syntax"]), rejected_for=st.just(0.0)),
        st.builds(dict, unwritable=st.sampled_from([None, "disk full"]), unwritable_for=st.just(0.0)),
        st.builds(dict, delivery=st.sampled_from(["confirmed", "owed", "absent", "failed", "troubled"])),
        st.builds(dict, published=st.just(True), withdrawn=st.just(False), since_publish=st.just(0.0)),
        st.builds(dict, published=st.just(False), withdrawn=st.booleans()),
        st.builds(dict, volume_taken=st.booleans()),
        st.builds(dict, mode=MODES),
        st.builds(dict, since_start=st.just(0.0)),
    )


def renamed(sources: list[Plain]) -> tuple[Plain, ...]:
    return tuple({**source, "name": name} for name, source in zip("ab", sources, strict=False))


def after(plain: Plain, event: Plain) -> Plain:
    """Return the facts after something happened; what lasts has lasted longer when time passes."""
    if "passes" not in event:
        return {**plain, **event}
    longer = {name: plain[name] + event["passes"] for name in ("since_start", "since_publish")}
    longer |= {f"{what}_for": plain[f"{what}_for"] + event["passes"] for what in ("rejected", "unwritable") if plain[what]}
    aged = tuple({**source, "age": source["age"] + event["passes"]} if source["failure"] else source for source in plain["sources"])
    return {**plain, **longer, "sources": aged}


@pytest.mark.timeout(rounds(120, 1200))
def test_no_sequence_of_events_leads_out_of_the_table():
    """The verdict is of what is, however it came to be: nothing of what was lasts, and time alone opens nothing that is closed."""
    ask = asking(policy)

    @seed(SEED)
    @settings(max_examples=SEQUENCES, deadline=None)
    @given(st.lists(events(), min_size=3, max_size=30))
    def holds(course: list[Plain]) -> None:
        plain: Plain = STARTING
        for event in course:
            before, plain = ask(plain), after(plain, event)
            for law in EACH_STEP:
                law(ask, plain)
            if "passes" in event and before.closed:
                assert ask(plain).causes >= before.causes

    holds()


def test_a_law_of_each_part_breaks_with_any_mistake_in_it():
    """Each condition of the policy is swapped, negated or left out, one at a time: a row of the table or a law notices."""
    cases = [case for row in TABLE for case in rows_of(row)]
    drawn = random.Random(1)  # the same in every run: this is about the laws, and not about luck
    situations = [chosen_facts(drawn.choice) for _ in range(1500)]
    made, unnoticed = 0, []
    for change, mutant in mutants(policy, {"max_staleness": "startup_grace", "rejected_for": "unwritable_for", "age": "max_staleness"}):
        made += 1
        if not is_noticed(mutant, cases, situations):
            unnoticed.append(change)

    assert made > 100
    assert unnoticed == []
    assert not is_noticed(policy, cases, situations)


def rows_of(row: str) -> list[tuple[Plain, str]]:
    situation, when_open, when_closed = TABLE[row]
    return [(plain_of(in_mode(situation, mode)), effect.name) for mode, effect in (("open", when_open), ("closed", when_closed))]


def is_noticed(module: ModuleType, cases: list[tuple[Plain, str]], situations: list[Plain]) -> bool:
    ask = asking(module)
    try:
        if any(ask(plain).effect != effect for plain, effect in cases):
            return True
        for plain in situations:
            for law in LAWS:
                law(ask, plain)
    except Exception:
        return True
    return False
