"""Reads at one address take turns on a bounded number of threads."""

import threading
from collections.abc import Callable, Iterator
from math import inf

import pytest

from reloader.backends.turns import Job, Turns
from reloader.schedule import BLOCKING_WAIT, TURN_CYCLE
from reloader.world import World
from tests.waiting import eventually

WORLD = World()
PATIENCE = 10


class Reads:
    """Jobs of one address, ended with the test."""

    def __init__(self, connections: int) -> None:
        self.turns = Turns("address", connections, WORLD)
        self.jobs: list[Job] = []

    def add(self, run: Callable[[float], float], let_go: Callable[[], bool] = lambda: False) -> Job:
        job = Job(run, 5.0, let_go)
        self.jobs.append(job)
        self.turns.add(job)
        return job

    def add_waiting(self, started: Callable[[float], None] = lambda hold: None) -> Job:
        """Add a job that waits for news until it is told to let go, and return it once it waits for the first time."""
        end, holding = threading.Event(), threading.Event()

        def run(hold: float) -> float:
            started(hold)
            holding.set()
            end.wait(PATIENCE)
            holding.clear()
            end.clear()
            return WORLD.clock.now()

        def let_go() -> bool:
            if holding.is_set():
                end.set()
            return end.is_set()

        job = self.add(run, let_go)
        assert holding.wait(PATIENCE)
        return job

    def end(self) -> None:
        for job in self.jobs:
            self.turns.remove(job)


@pytest.fixture
def make() -> Iterator[Callable[[int], Reads]]:
    made: list[Reads] = []

    def make(connections: int) -> Reads:
        made.append(Reads(connections))
        return made[-1]

    yield make
    for reads in made:
        reads.end()


def threads() -> int:
    return sum(thread.name.startswith("address#") for thread in threading.enumerate())


def test_as_many_run_at_once_as_there_are_connections(make: Callable[[int], Reads]) -> None:
    """Two connections carry two reads at a time, however many want to."""
    reads, together, most, lock = make(2), 0, 0, threading.Lock()
    done: set[int] = set()

    def read(number: int) -> float:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        threading.Event().wait(0.002)
        with lock:
            together -= 1
            done.add(number)
        return WORLD.clock.now()

    for number in range(7):
        reads.add(lambda hold, number=number: read(number))
    eventually(lambda: done == set(range(7)), what="every read had a turn")

    assert most == 2
    assert threads() <= 2


def test_the_longest_due_comes_first(make: Callable[[int], Reads]) -> None:
    """On one connection, reads that are due again at once come round in order."""
    reads, order, lock = make(1), [], threading.Lock()

    def read(name: str) -> float:
        with lock:
            order.append(name)
        threading.Event().wait(0.005)
        return WORLD.clock.now()

    for name in "abc":
        reads.add(lambda hold, name=name: read(name))
    eventually(lambda: len(order) >= 12, what="four rounds")

    rounds = order[3:12]
    assert [rounds[i : i + 3] for i in (0, 3, 6)] == [rounds[:3]] * 3
    assert set(rounds[:3]) == {"a", "b", "c"}


def test_a_read_waits_until_it_is_due(make: Callable[[int], Reads]) -> None:
    """A read is not done again before the time it named; hurried, it is done at once."""
    reads, ran = make(1), threading.Semaphore(0)

    def read(_hold: float) -> float:
        ran.release()
        return WORLD.clock.now() + 3600

    job = reads.add(read)
    assert ran.acquire(timeout=PATIENCE)
    eventually(lambda: not reads.turns.busy())
    assert not ran.acquire(timeout=0.1)

    reads.turns.hurry(job)

    assert ran.acquire(timeout=PATIENCE)


def test_a_read_for_once_can_be_hurried(make: Callable[[int], Reads]) -> None:
    """What is never due again comes back when it is asked for."""
    reads, ran = make(1), threading.Semaphore(0)
    job = reads.add(lambda hold: (ran.release(), inf)[1])
    assert ran.acquire(timeout=PATIENCE)
    eventually(lambda: not reads.turns.busy())

    reads.turns.hurry(job)

    assert ran.acquire(timeout=PATIENCE)


def test_a_read_hurried_while_it_runs_is_done_again(make: Callable[[int], Reads]) -> None:
    """A look that is asked for during a read is not lost in it."""
    reads, started, go, count = make(1), threading.Semaphore(0), threading.Semaphore(0), []

    def read(_hold: float) -> float:
        count.append(1)
        started.release()
        go.acquire(timeout=PATIENCE)
        return inf

    job = reads.add(read)
    assert started.acquire(timeout=PATIENCE)
    reads.turns.hurry(job)
    reads.turns.hurry(job)
    go.release(2)

    assert started.acquire(timeout=PATIENCE)
    eventually(lambda: not reads.turns.busy())
    assert len(count) == 2


def test_a_connection_for_each_may_be_held_for_long(make: Callable[[int], Reads]) -> None:
    """Where every read has a connection, it waits for news as long as it likes."""
    reads, holds = make(2), []
    reads.add(lambda hold: (holds.append(hold), inf)[1])
    eventually(lambda: holds)

    assert holds == [BLOCKING_WAIT]


def test_a_shared_connection_is_held_for_a_turn(make: Callable[[int], Reads]) -> None:
    """Where there are more reads than connections, each gives way in time for all."""
    reads, holds = make(1), []
    for _ in range(2):
        reads.add_waiting(holds.append)

    assert holds[-1] == TURN_CYCLE / 2


def test_a_new_read_does_not_wait_for_those_that_hold_every_connection(make: Callable[[int], Reads]) -> None:
    """A read that only waits for news lets go of its connection for one that was never done."""
    reads = make(2)
    reads.add_waiting()
    reads.add_waiting()
    ran = threading.Event()

    reads.add(lambda hold: (ran.set(), inf)[1])

    assert ran.wait(PATIENCE)


def test_a_new_read_comes_before_those_that_had_a_turn(make: Callable[[int], Reads]) -> None:
    """Where many take turns, their round may be long."""
    reads, order, hold_next, held, go = make(1), [], threading.Event(), threading.Event(), threading.Event()

    def read(name: str) -> float:
        order.append(name)
        if hold_next.is_set():
            held.set()
            go.wait(PATIENCE)
        return WORLD.clock.now()

    for name in "abc":
        reads.add(lambda hold, name=name: read(name))
    eventually(lambda: set(order) == {"a", "b", "c"})
    hold_next.set()
    assert held.wait(PATIENCE)
    done = len(order)
    reads.add(lambda hold: read("new"))
    go.set()
    eventually(lambda: len(order) > done)

    assert order[done] == "new"


def test_a_removed_read_is_done_no_more(make: Callable[[int], Reads]) -> None:
    """It lets go of its connection at once, and its thread ends."""
    reads = make(1)
    job = reads.add_waiting()

    reads.turns.remove(job)

    eventually(lambda: threads() == 0, what="the thread's end")
    assert not reads.turns.busy()


def hung(reads: Reads) -> tuple[Job, threading.Event]:
    """Return a job that is done until the event is set, and removed meanwhile."""
    began, go = threading.Event(), threading.Event()

    def run(_hold: float) -> float:
        began.set()
        go.wait(6 * PATIENCE)
        return inf

    job = reads.add(run)
    assert began.wait(PATIENCE)
    return job, go


def test_a_removed_read_that_hangs_takes_no_thread_from_another(make: Callable[[int], Reads]) -> None:
    """What is left goes on, though the connection is in use until it ends."""
    reads, ran = make(2), threading.Semaphore(0)
    other = reads.add(lambda hold: (ran.release(), inf)[1])
    assert ran.acquire(timeout=PATIENCE)
    job, go = hung(reads)
    reads.turns.remove(job)

    reads.turns.hurry(other)

    assert ran.acquire(timeout=PATIENCE)
    go.set()


def test_a_new_read_does_not_wait_for_a_removed_one_that_hangs(make: Callable[[int], Reads]) -> None:
    """A changed configuration may be what mends it."""
    reads, ran = make(2), threading.Event()
    job, go = hung(reads)
    reads.turns.remove(job)

    reads.add(lambda hold: (ran.set(), inf)[1])

    assert ran.wait(PATIENCE)
    go.set()
    eventually(lambda: threads() == 1)


def test_another_bound_holds_from_now_on(make: Callable[[int], Reads]) -> None:
    """More run at once as soon as they may, and fewer once those that are too many are done."""
    reads, started, go = make(1), threading.Semaphore(0), threading.Event()

    def run(_hold: float) -> float:
        started.release()
        go.wait(6 * PATIENCE)
        return inf

    for _ in range(3):
        reads.add(run)
    assert started.acquire(timeout=PATIENCE)
    reads.turns.bound(2)
    assert started.acquire(timeout=PATIENCE)
    assert threads() == 2

    reads.turns.bound(1)
    go.set()

    assert started.acquire(timeout=PATIENCE)
    eventually(lambda: threads() == 1)


def test_threads_come_back_after_all_were_gone(make: Callable[[int], Reads]) -> None:
    """An address that was left may be used again."""
    reads = make(1)
    for _ in range(3):
        ran = threading.Event()
        job = reads.add(lambda hold, ran=ran: (ran.set(), inf)[1])
        assert ran.wait(PATIENCE)
        reads.turns.remove(job)
        eventually(lambda: threads() == 0)


def test_a_thread_at_a_read_says_until_when(make: Callable[[int], Reads]) -> None:
    """Late counts from the wait that was asked for, the sixteenth that a server may add, and the time of the read itself."""
    reads = make(1)
    began = WORLD.clock.now()
    reads.add_waiting()

    ((name, due),) = reads.turns.busy()

    assert name.startswith("address#")
    assert began + BLOCKING_WAIT * 17 / 16 + 5 <= due <= WORLD.clock.now() + BLOCKING_WAIT * 17 / 16 + 5


def test_reads_that_rest_take_no_share_of_the_connections(make: Callable[[int], Reads]) -> None:
    """A read that is due no more leaves its time to the others, and one that is due much later takes little of it."""
    reads, holds = make(2), []
    for _ in range(5):
        reads.add(lambda hold: inf)
    eventually(lambda: not reads.turns.busy() and not reads.turns._soon)
    reads.add_waiting(holds.append)
    later = reads.add(lambda hold: WORLD.clock.now() + 3600)
    eventually(lambda: later in reads.turns._later and len(reads.turns.busy()) == 1)
    reads.add_waiting(holds.append)

    assert holds == [BLOCKING_WAIT, TURN_CYCLE / 2]
    assert reads.turns.crowded()


def test_a_read_that_is_put_to_rest_lets_go_and_comes_back_when_it_is_hurried(make: Callable[[int], Reads]) -> None:
    """Until then it is not done, whatever its last run said."""
    reads, ran = make(1), threading.Semaphore(0)
    rests = threading.Event()
    job = reads.add_waiting(lambda hold: ran.release())
    assert ran.acquire(timeout=PATIENCE)

    def resting(hold: float) -> float:
        rests.set()
        return inf

    job.run = resting
    reads.turns.rest(job)
    assert rests.wait(PATIENCE)
    eventually(lambda: not reads.turns.busy())
    rests.clear()
    assert not rests.wait(0.1)
    reads.turns.hurry(job)

    assert rests.wait(PATIENCE)


def test_a_round_is_as_long_as_all_turns_together(make: Callable[[int], Reads]) -> None:
    """It tells when a read must have had its turn again."""
    reads = make(1)
    reads.add_waiting()
    assert reads.turns.round() == BLOCKING_WAIT * 17 / 16
    reads.add_waiting()

    assert reads.turns.round() == TURN_CYCLE * 17 / 16
