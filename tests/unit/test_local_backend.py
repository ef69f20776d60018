"""The backend of reads that answer themselves."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

from reloader.backends.local import LONGEST_READ, Backend, ReadFailed
from reloader.backends.turns import Turns
from reloader.plan import Local
from reloader.snapshot import FailureKind, Mailbox
from reloader.world import World
from tests.waiting import eventually


@dataclass(frozen=True)
class Counted:
    """Answers how often it was asked, and fails the first `failing` times."""

    name: str
    poll: float = inf
    failing: int = 0
    asked: Counter = field(default_factory=Counter, compare=False)

    def answer(self) -> int:
        self.asked[self.name] += 1
        if self.asked[self.name] <= self.failing:
            raise ReadFailed(FailureKind.REFUSED, f"{self.name}: not yet; wait")
        return self.asked[self.name]


@contextmanager
def backend() -> Iterator[Backend]:
    world = World()
    made = Backend(Local(), Turns("local", 2, world), world)
    yield made
    made.close()


def reading(mailbox: Mailbox, name: str):
    return eventually(lambda: mailbox.take().standings[name].reading)


def test_a_read_without_poll_is_done_once_and_stays_current():
    mailbox, read, other = Mailbox(["a", "b"]), Counted("once"), Counted("other")
    with backend() as local:
        local.watch(read, mailbox, "a")
        assert reading(mailbox, "a").current_until == inf
        local.look()
        local.watch(other, mailbox, "b")  # the same two threads: a second run of the first would have come before
        assert reading(mailbox, "b").value == 1
    assert read.asked["once"] == 1


def test_a_polled_read_is_done_again_and_is_current_in_between():
    mailbox, read = Mailbox(["a"]), Counted("polled", poll=0.01)
    with backend() as local:
        local.watch(read, mailbox, "a")
        latest = eventually(lambda: (now := reading(mailbox, "a")).value >= 3 and now)
    assert latest.at + LONGEST_READ < latest.current_until < inf
    assert latest.whole


def test_a_look_reads_what_is_polled_before_it_is_due():
    mailbox, read = Mailbox(["a"]), Counted("polled", poll=3600)
    with backend() as local:
        local.watch(read, mailbox, "a")
        assert reading(mailbox, "a").value == 1
        local.look()
        eventually(lambda: reading(mailbox, "a").value == 2)


def test_a_failure_says_why_and_is_tried_again():
    mailbox, read = Mailbox(["a"]), Counted("late", failing=1)
    with backend() as local:
        local.watch(read, mailbox, "a")
        failure = eventually(lambda: mailbox.take().standings["a"].failure)
        assert (failure.kind, failure.reason) == (FailureKind.REFUSED, "late: not yet; wait")
        assert reading(mailbox, "a").value == 2


def test_equal_reads_are_asked_once():
    mailbox, asked = Mailbox(["a", "b"]), Counter()
    with backend() as local:
        local.watch(Counted("same", asked=asked), mailbox, "a")
        local.watch(Counted("same", asked=asked), mailbox, "b")
        assert reading(mailbox, "a").value == reading(mailbox, "b").value == 1
    assert asked["same"] == 1


def test_a_mistake_in_a_read_is_told_without_its_text(caplog):
    text = "canary"

    @dataclass(frozen=True)
    class Broken:
        poll: float = inf

        def answer(self) -> str:
            raise ValueError(text)

    mailbox = Mailbox(["a"])
    with backend() as local:
        local.watch(Broken(), mailbox, "a")
        failure = eventually(lambda: mailbox.take().standings["a"].failure)
    assert failure.kind is FailureKind.MISCONFIGURED
    assert "ValueError" in failure.reason
    assert "canary" not in failure.reason + caplog.text
