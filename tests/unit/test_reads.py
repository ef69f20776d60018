"""What every backend with a server shares: equal reads once, outcomes to all who wait, retries with backoff."""

import logging
import threading
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import pytest

from reloader.backends import Backends
from reloader.backends.reads import Fetched, LetGo, ReadFailed, ReadingBackend
from reloader.backends.turns import Turns
from reloader.plan import Consul, Local, Tls
from reloader.schedule import Backoff
from reloader.snapshot import Failure, FailureKind, Reading
from reloader.world import World
from tests.faults.faulty import Soonest
from tests.recorder import Recorder
from tests.waiting import eventually

WORLD = World()
REFUSED = FailureKind.REFUSED
CANARY = "what was read"


class Scripted(ReadingBackend):
    """Answers as `answer` does; every call is noted."""

    def __init__(self, answer: Any, *, connections: int = 1, backoff: Backoff | None = None) -> None:
        super().__init__(Turns("address", connections, WORLD), WORLD, longest_read=5.0, backoff=backoff or Backoff(0.01, 0.05))
        self.answer = answer
        self.calls: list[tuple[Hashable, Any, float]] = []
        self.freed = False

    def fetch(self, read: Hashable, state: Any, hold: float) -> Fetched:
        self.calls.append((read, state, hold))
        return self.answer(read, state, hold)

    def free(self) -> None:
        self.freed = True


def fetched(value: Any, *, due: float = inf, state: Any = None) -> Fetched:
    return Fetched(reading=Reading(value=value, at=WORLD.clock.now()), due=due, state=state)


def test_equal_reads_run_once() -> None:
    """Two who wait for the same get it from one read; one who comes later gets the latest at once."""
    backend, first, second = Scripted(lambda *_: fetched("value")), Recorder(), Recorder()
    backend.watch(("key", 1), first, "a")
    eventually(lambda: first.got)
    backend.watch(("key", 1), second, "b")

    assert second.latest == first.latest == "value"
    assert len(backend.calls) == 1
    backend.close()


def test_what_is_polled_is_read_a_second_time_anywhere_in_the_interval() -> None:
    """So sidecars that start together are no herd from their second read on; from then on the interval holds."""
    backend, recorder = Scripted(lambda *_: replace(fetched("value", due=WORLD.clock.now() + 3600), polled=True)), Recorder()
    backend._world = replace(WORLD, random=Soonest())
    backend.watch("key", recorder, "a")

    eventually(lambda: len(backend.calls) == 2)
    backend.watch("another", recorder, "b")
    eventually(lambda: len(backend.calls) == 4)

    assert [read for read, *_ in backend.calls] == ["key", "key", "another", "another"]
    backend.close()


def test_unequal_reads_run_each() -> None:
    """What is not equal is read for itself."""
    backend, inbox = Scripted(lambda read, *_: fetched(read)), Recorder()
    backend.watch("x", inbox, "a")
    backend.watch("y", inbox, "b")
    eventually(lambda: len(inbox.got) == 2)

    assert dict(sorted((name, outcome.value) for name, outcome in inbox.got if isinstance(outcome, Reading))) == {"a": "x", "b": "y"}
    backend.close()


def test_a_read_that_one_leaves_goes_on_for_the_other() -> None:
    """Only the last to leave ends a read."""
    news, one, other = threading.Semaphore(0), Recorder(), Recorder()
    backend = Scripted(lambda *_: (news.acquire(timeout=10), fetched(len(backend.calls), due=0))[1])
    leave = backend.watch("x", one, "a")
    backend.watch("x", other, "b")
    news.release()
    eventually(lambda: one.got and other.got)
    leave()
    leave()
    seen = len(one.got)
    news.release(2)
    eventually(lambda: len(other.got) >= 3)

    assert len(one.got) == seen
    news.release(100)
    backend.close()


def test_each_read_gets_the_state_it_left() -> None:
    """What a success leaves comes back with the next read, also after failures."""

    def answer(_read: Hashable, state: Any, _hold: float) -> Fetched:
        if len(backend.calls) == 2:
            raise ReadFailed(REFUSED, "no")
        return fetched("v", due=0 if len(backend.calls) < 3 else inf, state=(state or 0) + 1)

    backend, inbox = Scripted(answer), Recorder()
    backend.watch("x", inbox, "a")
    eventually(lambda: len(backend.calls) == 3)

    assert [state for _, state, _ in backend.calls] == [None, 1, 1]
    backend.close()


def test_a_read_after_a_failure_may_not_be_held() -> None:
    """That the server is back is seen at once, not when it has news."""

    def answer(*_: Any) -> Fetched:
        if len(backend.calls) == 1:
            raise ReadFailed(REFUSED, "no")
        return fetched("v", due=0 if len(backend.calls) < 3 else inf)

    backend = Scripted(answer)
    backend.watch("x", Recorder(), "a")
    eventually(lambda: len(backend.calls) == 3)
    holds = [hold for _, _, hold in backend.calls]

    assert holds[0] > 0
    assert holds[1] == 0
    assert holds[2] > 0
    backend.close()


def test_a_failure_is_told_with_its_kind_and_reason() -> None:
    """An outcome that is none says why, when, and since when the last value may be old."""

    def answer(*_: Any) -> Fetched:
        raise ReadFailed(FailureKind.UNREACHABLE, "nobody there", current_until=1.5)

    backend, inbox = Scripted(answer), Recorder()
    backend.watch("x", inbox, "a")
    eventually(lambda: inbox.got)
    failure = inbox.got[0][1]

    assert isinstance(failure, Failure)
    assert (failure.kind, failure.reason, failure.current_until) == (FailureKind.UNREACHABLE, "nobody there", 1.5)
    backend.close()


def test_no_retry_comes_sooner_than_backoff_and_server_allow() -> None:
    """The wait that a server asks for comes on top of the jitter, so that all it told do not come back at once."""
    asked_for = iter([None, 30.0, None])

    def answer(*_: Any) -> Fetched:
        raise ReadFailed(REFUSED, "no", retry_after=next(asked_for))

    backend = Scripted(answer, backoff=Backoff(base=4, cap=60))
    began, waits = WORLD.clock.now(), []
    backend.watch("x", Recorder(), "a")
    job = backend._watched["x"].job
    for calls in (1, 2, 3):
        eventually(lambda calls=calls: len(backend.calls) == calls and not job.running)
        waits.append(job.due - began)
        job.not_before = -inf
        backend._turns.hurry(job)

    assert 0.4 <= waits[0] <= 4 + 1
    assert 30.8 <= waits[1] <= 38 + 1
    assert 1.6 <= waits[2] <= 16 + 1
    backend.close()


def test_a_read_that_is_hurried_while_it_fails_waits_for_its_backoff() -> None:
    """It comes as soon as that allows, and is not put off for as long as it would be without."""
    fails, inbox = threading.Event(), Recorder()

    def refuse(*_: Any) -> Fetched:
        backend.hurry(["x"])
        fails.set()
        raise ReadFailed(REFUSED, "no")

    backend = Scripted(refuse, backoff=Backoff(3600, 3600))
    began = WORLD.clock.now()
    backend.watch("x", inbox, "x")
    job = backend._watched["x"].job
    assert fails.wait(10)
    eventually(lambda: not job.running)
    assert 360 <= job.due - began <= 361
    assert len(backend.calls) == 1

    backend.hurry(["x"])
    assert 360 <= job.due - began <= 361
    backend.close()


def test_a_read_that_was_mended_is_done_at_once() -> None:
    answers = iter([ReadFailed(REFUSED, "no"), fetched("v")])

    def answer(*_: Any) -> Fetched:
        if isinstance(told := next(answers), ReadFailed):
            raise told
        return told

    backend, inbox = Scripted(answer, backoff=Backoff(3600, 3600)), Recorder()
    backend.watch("x", inbox, "x")
    eventually(lambda: inbox.failures)
    eventually(lambda: not backend.heartbeats())
    backend.mended("x")
    eventually(lambda: inbox.values == ["v"])
    backend.close()


def test_a_look_reads_again_but_not_what_failed() -> None:
    """A look costs a poll, and never a retry before its backoff allows."""

    def answer(read: Hashable, *_: Any) -> Fetched:
        if read == "bad":
            raise ReadFailed(REFUSED, "no")
        return fetched("v")

    backend, inbox = Scripted(answer, backoff=Backoff(3600, 36000)), Recorder()
    for read in ("good", "bad"):
        backend.watch(read, inbox, read)
    eventually(lambda: len(inbox.got) == 2)
    backend.look()
    eventually(lambda: len(inbox.got) == 3)

    assert [read for read, _, _ in backend.calls].count("bad") == 1
    backend.close()


def test_a_look_leaves_alone_what_may_not_be_repeated() -> None:
    """What mints something is not minted by looking."""
    backend, inbox = Scripted(lambda *_: fetched("v")), Recorder()
    backend.repeatable = lambda read: read != "mint"
    backend.watch("mint", inbox, "a")
    eventually(lambda: inbox.got)
    backend.watch("read", inbox, "b")
    eventually(lambda: len(inbox.got) == 2)
    backend.look()
    eventually(lambda: len(inbox.got) == 3)

    assert [read for read, _, _ in backend.calls] == ["mint", "read", "read"]
    backend.close()


def test_a_read_that_let_go_is_no_outcome() -> None:
    """It is done again, and nobody is told."""

    def answer(*_: Any) -> Fetched:
        if len(backend.calls) == 1:
            raise LetGo
        return fetched("v")

    backend, inbox = Scripted(answer), Recorder()
    backend.watch("x", inbox, "a")
    eventually(lambda: inbox.got)

    assert inbox.values == ["v"]
    backend.close()


def test_a_mistake_of_ours_is_a_failure_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """The thread lives on, and what the exception quotes is not told."""

    def answer(read: Hashable, *_: Any) -> Fetched:
        if read == "bad":
            raise KeyError(CANARY)
        return fetched("v")

    backend, inbox = Scripted(answer), Recorder()
    with caplog.at_level(logging.DEBUG):
        backend.watch("bad", inbox, "a")
        backend.watch("good", inbox, "b")
        eventually(lambda: "v" in inbox.values)
    failure = next(outcome for _, outcome in inbox.got if isinstance(outcome, Failure))
    backend.close()

    assert failure.reason.startswith("internal error: KeyError in backends/reads.py:")
    assert CANARY not in caplog.text


def test_an_inbox_that_chokes_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    """It is told of the failure, the others get the value, and the read goes on."""
    backend, choking, sound = Scripted(lambda *_: fetched("v")), Recorder(chokes_on="v", error=RuntimeError(CANARY)), Recorder()
    with caplog.at_level(logging.DEBUG):
        backend.watch("x", choking, "a")
        backend.watch("x", sound, "b")
        eventually(lambda: choking.got and sound.got)
    backend.close()

    assert choking.latest.reason.startswith("internal error: RuntimeError in backends/reads.py:")
    assert sound.latest == "v"
    assert CANARY not in caplog.text


def test_closing_ends_everything() -> None:
    """No outcome comes after close, and the connections are freed."""
    news, inbox = threading.Event(), Recorder()
    backend = Scripted(lambda *_: (news.wait(10), fetched("late"))[1])
    backend.watch("x", inbox, "a")
    eventually(lambda: backend.calls)
    backend.close()
    news.set()
    eventually(lambda: not any(thread.name.startswith("address#") for thread in threading.enumerate()), what="the thread's end")

    assert backend.freed
    assert not inbox.got
    assert not backend.heartbeats()


def test_heartbeats_name_the_threads_at_a_read() -> None:
    """A thread that reads says when it must have ended."""
    news = threading.Event()
    backend = Scripted(lambda *_: (news.wait(10), fetched("v"))[1])
    backend.watch("x", Recorder(), "a")
    eventually(lambda: backend.calls)
    (beat,) = backend.heartbeats()
    news.set()

    assert beat.thread.startswith("address#")
    assert beat.due > WORLD.clock.awake()
    backend.close()


class TestBackends:
    """One backend for each server and identity."""

    def test_equal_plans_share_a_backend_until_the_last_leaves(self) -> None:
        """It is closed when nobody uses it any more, and made anew after that."""
        backends = Backends(WORLD)
        plan, equal = (Consul(address="http://127.0.0.1:1", tls=Tls(verify=True)) for _ in range(2))
        backend = backends.acquire(plan)
        assert backends.acquire(equal) is backend

        backends.release(plan)
        assert backends.acquire(plan) is backend
        backends.release(plan)
        backends.release(plan)

        assert backends.acquire(plan) is not backend
        backends.release(plan)

    def test_waking_does_what_failed_at_once(self) -> None:
        """Whatever its backoff."""

        @dataclass(frozen=True)
        class Mended:
            poll: float = inf
            calls: list[int] = field(default_factory=list, compare=False)

            def answer(self) -> str:
                self.calls.append(1)
                if len(self.calls) == 1:
                    raise ReadFailed(REFUSED, "no")
                return "mended"

        backends, recorder = Backends(WORLD), Recorder()
        backend = backends.acquire(Local())
        backend._backoff = Backoff(3600, 36000)
        backend.watch(Mended(), recorder, "a")
        eventually(lambda: recorder.failures)
        backends.wake()
        eventually(lambda: recorder.values == ["mended"])
        backends.release(Local())

    def test_another_identity_is_another_backend_at_the_same_turns(self) -> None:
        """Tokens are not mixed, and the bound on connections holds over all of them."""
        backends = Backends(WORLD)
        plans = [Consul(address="http://127.0.0.1:1", datacenter=name) for name in ("a", "b")]
        first, second = (backends.acquire(plan) for plan in plans)

        assert first is not second
        assert first._turns is second._turns
        for plan in plans:
            backends.release(plan)

    def test_the_strictest_bound_in_use_holds_at_an_address(self) -> None:
        """Also after a change of it, which needs no restart."""
        backends = Backends(WORLD)
        wide, narrow = (Consul(address=f"http://127.0.0.1:1{end}", max_connections=most) for end, most in (("", 8), ("/", 2)))
        turns = backends.acquire(wide)._turns
        assert turns.connections == 8
        assert backends.acquire(narrow)._turns is turns
        assert turns.connections == 2
        backends.release(narrow)

        assert turns.connections == 8
        backends.release(wide)

    def test_a_shared_backend_is_there_while_somebody_gives_it_back(self) -> None:
        """Other threads look for it."""

        class Lasting(dict[Any, Any]):
            def pop(self, *_: Any) -> Any:
                raise AssertionError("away for a moment")

            __delitem__ = pop

        backends, plan = Backends(WORLD), Consul(address="http://127.0.0.1:1")
        backend = backends.acquire(plan)
        backends.acquire(plan)
        known, backends._open = backends._open, Lasting(backends._open)
        backends.release(plan)
        assert backends.get(plan) is backend
        backends._open = known
        for _ in range(2):
            backends.release(plan)


def test_what_one_read_brings_for_others_is_theirs() -> None:
    """It comes together, they are not done by themselves meanwhile, and again once they are not served any more."""
    backend, inbox = Scripted(lambda read, *_: fetched(f"{read} by itself"), connections=2), Recorder()
    batches: list[set[str]] = []
    put = inbox.put
    inbox.put = lambda outcomes: (batches.append(set(outcomes)), put(outcomes))[1]  # type: ignore[method-assign]
    for read in "xy":
        backend.watch(read, inbox, read)
    eventually(lambda: len(inbox.got) == 2)
    backend.serve({read: Reading(value=f"{read} served", at=WORLD.clock.now()) for read in "xyz"})

    assert sorted(inbox.values[2:]) == ["x served", "y served"]
    assert batches[2:] == [{"x", "y"}]
    late = Recorder()
    backend.watch("x", late, "late")
    assert late.latest == "x served"

    backend.unserve("xz")
    eventually(lambda: inbox.latest == "x by itself")
    assert len(backend.calls) == 3
    backend.unserve("x")
    eventually(lambda: len(backend.calls) == 4)
    backend.close()


def test_a_read_that_failed_by_itself_is_not_done_sooner_for_others() -> None:
    """No retry comes sooner than its backoff allows."""

    def refuse(*_: Any) -> Fetched:
        raise ReadFailed(REFUSED, "no")

    backend, inbox = Scripted(refuse, backoff=Backoff(3600, 3600)), Recorder()
    backend.watch("x", inbox, "x")
    eventually(lambda: inbox.failures)
    eventually(lambda: not backend.heartbeats())
    backend.unserve("x")

    assert not backend.heartbeats()
    assert len(backend.calls) == 1
    backend.close()


def test_a_read_that_ends_after_it_was_served_is_dropped() -> None:
    """It was asked before, so it may be older."""
    go, inbox = threading.Event(), Recorder()
    backend = Scripted(lambda *_: (go.wait(10), fetched("older"))[1])
    backend.watch("x", inbox, "x")
    eventually(lambda: backend.calls)
    backend.serve({"x": Reading(value="newer", at=WORLD.clock.now())})
    go.set()
    eventually(lambda: not backend.heartbeats(), what="the read's end")

    assert inbox.values == ["newer"]
    backend.close()


def test_an_inbox_that_chokes_on_one_of_several_gets_the_others() -> None:
    """Only what it cannot take is a failure."""
    backend, inbox = Scripted(lambda read, *_: fetched(read), connections=2), Recorder("bad", ValueError(CANARY))
    for read in "xy":
        backend.watch(read, inbox, read)
    eventually(lambda: len(inbox.got) == 2)
    backend.serve({"x": Reading(value="bad", at=1.0), "y": Reading(value="good", at=1.0)})

    assert [(name, isinstance(outcome, Failure)) for name, outcome in inbox.got[2:]] == [("x", True), ("y", False)]
    backend.close()
