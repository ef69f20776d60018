"""What a list or a folder must have to be an answer, and how long a shrink must last before it counts."""

from dataclasses import replace
from math import inf
from typing import Any

from hypothesis import given, strategies as st

from reloader.pipeline.guard import Guard, Rules, rules_of
from reloader.pipeline.intake import Intake
from reloader.snapshot import Failure, FailureKind, Mailbox, Outcome, Reading
from reloader.sources.consul import Settings
from reloader.status import Metrics, Status
from reloader.world import World

RULES = Rules(read="prefix app/")
OUTAGE = Failure(kind=FailureKind.UNREACHABLE, reason="nobody there", at=0.0)


def of(items: int, at: float = 0.0) -> Reading:
    return Reading(value={str(number): "text" for number in range(items)}, at=at, detail=f"{items} items")


def guard(filled: bool | None = False, **rules: Any) -> Guard:
    """Return the guard of a source that is known to have had items, not to have had any, or of which nobody remembers."""
    made = Guard(replace(RULES, **rules))
    if filled is not None:
        made.remember({"app": RULES.read} if filled else {}, "app")
    return made


def items(outcome: Outcome | None) -> int | None:
    return len(outcome.value) if isinstance(outcome, Reading) else None


class TestMinItems:
    """Fewer items are no answer."""

    def test_a_source_that_never_had_items_may_be_empty(self) -> None:
        assert items(guard().judge(of(0))) == 0

    def test_a_source_that_had_items_may_not(self) -> None:
        judge = guard()
        judge.judge(of(3))
        failure = judge.judge(of(0, at=5.0))

        assert isinstance(failure, Failure)
        assert (failure.kind, failure.at) == (FailureKind.REFUSED, 5.0)
        assert "min_items: 0" in failure.reason
        assert items(judge.judge(of(1))) == 1

    def test_what_an_earlier_run_had_counts(self) -> None:
        assert isinstance(guard(filled=True).judge(of(0)), Failure)

    def test_what_an_earlier_run_had_of_another_read_does_not(self) -> None:
        made = Guard(RULES)
        made.remember({"app": "prefix other/"}, "app")

        assert items(made.judge(of(0))) == 0

    def test_an_empty_answer_waits_until_it_is_known_what_was(self) -> None:
        """An answer may come before the volume can be used."""
        fresh, old = guard(filled=None), guard(filled=None)
        assert isinstance(fresh.judge(of(0)), Failure)
        assert isinstance(old.judge(of(0)), Failure)

        assert items(fresh.remember({}, "app")) == 0
        assert isinstance(old.remember({"app": RULES.read}, "app"), Failure)

    def test_where_the_record_was_lost_there_may_have_been_items(self) -> None:
        lost = guard(filled=None)
        lost.remember(None, "app")

        assert isinstance(lost.judge(of(0)), Failure)

    def test_what_came_in_meanwhile_counts_more_than_the_record(self) -> None:
        made = guard(filled=None)
        made.judge(of(2))

        assert made.remember({}, "app") is None
        assert isinstance(made.judge(of(0)), Failure)

    def test_a_number_is_the_least_from_the_first_answer_on(self) -> None:
        judge = guard(min_items=2)
        failure = judge.judge(of(1))

        assert isinstance(failure, Failure)
        assert "an answer with 1 item is" in failure.reason
        assert items(judge.judge(of(2))) == 2

    def test_0_allows_empty_and_what_was_is_forgotten(self) -> None:
        judge = guard(filled=True, min_items=0)

        assert items(judge.judge(of(0))) == 0
        assert judge.filled is None

    def test_what_had_items_is_for_the_record(self) -> None:
        judge = guard()
        judge.judge(of(1))

        assert judge.filled == RULES.read

    def test_a_text_has_no_items(self) -> None:
        assert guard(min_items=5).judge(Reading(value="", at=0.0)) == Reading(value="", at=0.0)


class TestHold:
    """A shrink must last."""

    def test_a_shrink_within_hold_is_not_used(self) -> None:
        judge = guard(hold=30.0)
        judge.judge(of(8))
        shrunk = judge.judge(of(3, at=10.0))

        assert items(shrunk) == 8
        assert "3 items; 8 items in use" in shrunk.detail
        assert items(judge.judge(of(8, at=39.0))) == 8
        assert judge.look_at == inf

    def test_one_that_lasts_is_used_without_another_answer(self) -> None:
        judge = guard(hold=30.0)
        judge.judge(of(8))
        judge.judge(of(3, at=10.0))

        assert judge.look_at == 40.0
        assert judge.ripe(39.9) is None
        assert items(judge.ripe(40.0)) == 3
        assert judge.look_at == inf

    def test_more_items_are_used_at_once(self) -> None:
        judge = guard(hold=30.0)
        judge.judge(of(8))

        assert items(judge.judge(of(9))) == 9

    def test_each_step_of_a_shrink_lasts_for_itself(self) -> None:
        """Eight become seven, and nothing just before that would count."""
        judge = guard(hold=30.0, min_items=0)
        judge.judge(of(8))
        judge.judge(of(7, at=0.0))
        judge.judge(of(0, at=29.0))

        assert items(judge.ripe(30.0)) == 7
        assert judge.ripe(58.9) is None
        assert items(judge.ripe(59.0)) == 0

    def test_a_shrink_that_partly_goes_back_lasts_since_it_began(self) -> None:
        judge = guard(hold=30.0)
        judge.judge(of(8))
        judge.judge(of(3, at=0.0))
        judge.judge(of(5, at=20.0))

        assert items(judge.ripe(30.0)) == 5

    def test_what_could_not_be_seen_is_not_known_to_last(self) -> None:
        """An outage ends no hold; the first answer after it does."""
        judge = guard(hold=30.0)
        judge.judge(of(8))
        judge.judge(of(3, at=0.0))
        judge.judge(OUTAGE)

        assert judge.look_at == inf
        assert judge.ripe(100.0) is None
        assert items(judge.judge(of(3, at=100.0))) == 3

    def test_an_answer_that_is_none_ends_the_wait(self) -> None:
        judge = guard(hold=30.0)
        judge.judge(of(8))
        judge.judge(of(3, at=0.0))
        judge.judge(of(0, at=10.0))

        assert items(judge.judge(of(3, at=31.0))) == 8

    @given(st.lists(st.tuples(st.floats(0.1, 20.0), st.integers(0, 10)), min_size=1, max_size=30))
    def test_what_is_used_has_never_fewer_items_than_any_answer_within_hold(self, answers: list[tuple[float, int]]) -> None:
        """So nothing is taken away that was there a moment ago, and nothing is used that was never said."""
        judge, now, seen = guard(hold=30.0, min_items=0), 0.0, []

        def holds(used: Outcome | None) -> bool:
            within = [number for at, number in seen if at > now - 30.0 + 1e-6]
            return items(used) in {number for _, number in seen} and items(used) >= max(within, default=0)

        for wait, number in answers:
            due = now + wait
            while judge.look_at <= due:
                now = judge.look_at
                assert holds(judge.ripe(now))
            now = due
            seen.append((now, number))
            assert holds(judge.judge(of(number, at=now)))


def test_settings_of_a_kind_without_such_keys_are_not_guarded() -> None:
    assert rules_of(object(), "read") is None
    assert rules_of(Settings(prefix="a/"), "read") is not None
    assert rules_of(Settings(prefix="a/"), "read") != rules_of(Settings(prefix="b/"), "another read")


class Plain:
    """A source that means what it reads."""

    def interpret(self, reading: Reading) -> Reading:
        return reading


def test_the_intake_puts_in_what_was_judged() -> None:
    """What is refused, what waits, and what waited long enough."""
    mailbox = Mailbox(["app"])
    made = Guard(replace(RULES, hold=30.0))
    intake = Intake("web", {"app": (Plain(), None)}, mailbox, Metrics(Status(World().clock), "0"), {"app": made})
    now = lambda: mailbox.take().standings["app"]  # noqa: E731

    intake.put({"app": of(0)})
    assert now().reading is None
    intake.remember({})
    assert items(now().reading) == 0
    intake.put({"app": of(8, at=1.0)})
    assert intake.filled == {"app": RULES.read}
    intake.put({"app": of(3, at=2.0)})
    assert items(now().reading) == 8
    intake.release(31.9)
    assert (items(now().reading), intake.look_at) == (8, 32.0)
    intake.release(32.0)
    assert (items(now().reading), intake.look_at) == (3, inf)
    intake.put({"app": of(0, at=40.0)})
    assert (items(now().reading), now().failure.kind) == (3, FailureKind.REFUSED)
    mailbox.close()
