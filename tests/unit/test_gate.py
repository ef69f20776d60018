"""A server that fails as a whole is asked by one read at a time; in virtual time, with the real schedule."""

from collections.abc import Callable, Hashable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from reloader.backends.reads import Fetched, LetGo, ReadFailed, ReadingBackend
from reloader.schedule import RESUMED_WITHIN, Backoff
from reloader.snapshot import Failure, FailureKind, Reading
from tests.recorder import Recorder
from tests.virtual import VirtualTurns, virtual_world

INTERVAL = 30.0
DOWN = ReadFailed(FailureKind.UNREACHABLE, "nobody listens", everywhere=True)


class House(ReadingBackend):
    """A backend whose server is a function of the read; it notes who asked when."""

    def __init__(self, server: Callable[[Hashable], Any], seed: int = 0) -> None:
        world, self.clock = virtual_world(seed)
        self.turns = VirtualTurns(self.clock)
        super().__init__(self.turns, world, longest_read=5.0)
        self.server = server
        self.asked: list[tuple[float, Hashable]] = []
        self.holds: dict[Hashable, float] = {}
        self.inboxes: dict[Hashable, Recorder] = {}

    def fetch(self, read: Hashable, state: Any, hold: float) -> Fetched:
        self.asked.append((self.clock.now(), read))
        self.holds[read] = hold
        answer = self.server(read)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Fetched):
            return answer
        now = self.clock.now()
        return Fetched(reading=Reading(value=answer, at=now), due=now + INTERVAL * self._world.random.uniform(0.9, 1.1), polled=True)

    def free(self) -> None:
        pass

    def read(self, *reads: Hashable) -> list[Callable[[], None]]:
        for read in reads:
            self.inboxes[read] = Recorder()
        return [self.watch(read, self.inboxes[read], "name") for read in reads]

    def run(self, seconds: float) -> None:
        self.turns.run(self.clock.now() + seconds)

    def times(self, since: float, *reads: Hashable) -> list[float]:
        return [at for at, read in self.asked if at >= since and (not reads or read in reads)]

    def reasons(self, read: Hashable) -> list[str]:
        return [failure.reason for failure in self.inboxes[read].failures]


def fine(read: Hashable) -> str:
    return f"value of {read}"


@pytest.fixture
def house() -> House:
    return House(fine)


def is_one_backoff(times: list[float], asked_for: float = 0.0) -> bool:
    """Return whether each request came in the bounds of one more failure in a row, but for one, by which the failure was confirmed."""
    backoff, waits = Backoff(), [later - earlier - asked_for for earlier, later in pairwise(times)]
    soon = [n for n, wait in enumerate(waits, 1) if wait < backoff.floor(n) - 1e-6]
    return len(soon) <= 1 and all(wait <= backoff.ceiling(n) + 1e-6 for n, wait in enumerate(waits, 1))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), outage=st.floats(1.0, 900.0), reads=st.sampled_from([1, 2, 3, 50]))
def test_an_outage_costs_one_sequence_of_backoff_however_many_read(seed, outage, reads):
    """Nobody asks sooner than the backoff of the server allows, and all are read again soon after one got through."""
    house = House(fine, seed)
    house.read(*range(reads))
    house.run(100)
    began, house.server = house.clock.now(), lambda _read: DOWN
    house.run(outage)
    asked = house.times(began)
    ended, house.server = house.clock.now(), fine
    house.run(Backoff().cap + RESUMED_WITHIN + INTERVAL * 1.1 + 1)

    assert is_one_backoff(asked + house.times(ended)[:1])
    assert all(house.times(ended, read) and isinstance(house.inboxes[read].got[-1][1], Reading) for read in range(reads))


def test_who_asks_a_failing_server_does_not_wait_for_news_there(house):
    """Though its own reads never failed: whether the server is back, the others wait to hear."""
    house.read("fine", "failing")
    house.run(0.001)
    house.server = lambda read: DOWN if read == "failing" else fine(read)
    for read in ("failing", "fine"):
        house._watched[read].job.run(60.0)

    assert house.holds == {"failing": 60.0, "fine": 0.0}


def not_due(now: float) -> Fetched:
    return Fetched(reading=Reading(value="issued", at=now), due=now + 1, asked=False)


def put_off(_now: float) -> ReadFailed:
    failed = ReadFailed(FailureKind.REFUSED, "revoked twice", retry_after=1)
    failed.asked = False
    return failed


@pytest.mark.parametrize("unasked", [not_due, put_off])
def test_what_the_server_was_not_asked_does_not_tell_that_it_is_back(house, unasked):
    """A lease that is not due, or may not be had yet, takes no request; those that failed wait for one that does."""
    house.server = lambda read: unasked(house.clock.now()) if read == "issued" else DOWN
    house.read("issued", "one", "other")
    house.run(600)

    assert is_one_backoff(house.times(0, "one", "other"))


@pytest.mark.parametrize("seed", range(3))
def test_two_thousand_reads_wait_for_one_server(seed):
    """While it is down they ask as often as one read would; when it is back, all are done again within seconds of the first."""
    house = House(fine, seed)
    house.read(*range(2_000))
    house.run(120)
    began, house.server = house.clock.now(), lambda _read: DOWN
    house.run(600)
    asked = house.times(began)
    ended, house.server = house.clock.now(), fine
    house.run(Backoff().cap + RESUMED_WITHIN)
    through = house.times(ended)[0]

    assert is_one_backoff([*asked, through])
    assert len(asked) < 40
    assert {read for at, read in house.asked if through <= at <= through + RESUMED_WITHIN} == set(range(2_000))


def test_who_waits_is_told_once_and_whoever_asked_each_time(house):
    """A failure that is known is no news, however long it lasts and however often somebody looks."""
    house.read("one", "other", "third")
    house.run(1)
    house.server = lambda _read: DOWN
    house.run(INTERVAL * 1.1)
    house.look()
    house.run(300)
    told = {read: house.reasons(read) for read in house.inboxes}

    waited = "not asked while the server fails for another read: nobody listens"
    assert all(reasons.count(waited) <= 1 for reasons in told.values())
    assert {reason for reasons in told.values() for reason in reasons} == {"nobody listens", waited}
    assert all(told.values())


def test_another_kind_of_failure_is_news_to_all_without_a_request(house):
    """A server that came up sealed is no longer one that is down."""
    house.read("one", "other", "third")
    house.server = lambda _read: DOWN
    house.run(1)
    house.server = lambda _read: ReadFailed(FailureKind.REFUSED, "sealed", everywhere=True)
    house.run(10)

    assert all("sealed" in house.reasons(read)[-1] for read in house.inboxes)
    assert is_one_backoff([at for at, _ in house.asked])


def test_a_read_that_comes_during_the_outage_asks_nobody(house):
    """It is told why, and is done with the others."""
    house.read("one", "other")
    house.server = lambda _read: DOWN
    house.run(60)
    before = len(house.asked)
    house.read("late")
    house.turns.run(house.clock.now() + 1e-9)

    assert len(house.asked) == before
    assert "not asked" in house.reasons("late")[0]
    house.server = fine
    house.run(61)
    assert isinstance(house.inboxes["late"].got[-1][1], Reading)


def test_one_read_is_not_believed_for_all_but_two_are(house):
    """The second asks at once, and the third nobody."""
    house.read("one", "other", "third")
    house.server = lambda _read: DOWN
    house.turns.run(house.clock.now() + 1e-9)

    assert [read for _, read in house.asked] == ["one", "other"]


def test_what_the_server_asks_for_comes_beside_the_backoff(house):
    """Nobody of this backend comes back before it is over."""
    house.read("one", "other")
    house.run(1)
    busy = ReadFailed(FailureKind.UNREACHABLE, "busy", retry_after=20.0, everywhere=True)
    house.server = lambda _read: busy
    began = house.clock.now()
    house.run(300)

    assert is_one_backoff(house.times(began), asked_for=20.0)


def longest_wait(house: House) -> float:
    """Return the longest time between two requests in hours of an outage that has lasted for one."""
    house.server = lambda _read: DOWN
    house.run(3600)
    began = house.clock.now()
    house.run(36_000)
    return max(later - earlier for earlier, later in pairwise(house.times(began)))


def test_a_server_that_is_polled_rarely_is_left_alone_for_longer(house, monkeypatch):
    """As the read says that is polled most often; one that is not polled says nothing, and one that has no value yet is awaited."""
    monkeypatch.setattr(house, "interval", {"often": 60.0, "rarely": 600.0, "once": 0.0, "new": 600.0}.__getitem__)
    cap, longer = Backoff().cap, Backoff().patient(60.0).cap
    house.read("rarely", "often", "once")
    assert longest_wait(house) <= cap

    house.server = fine
    house.run(cap + RESUMED_WITHIN)
    assert cap < longest_wait(house) <= longer

    house.read("new")
    assert longest_wait(house) <= cap


@pytest.mark.parametrize("kind", [FailureKind.REFUSED, FailureKind.MISCONFIGURED])
def test_an_answer_that_is_a_no_says_that_the_server_is_back(house, kind):
    """Whoever asked is refused alone; the others are done."""
    house.read("bad", "good")
    house.run(1)
    house.server = lambda _read: DOWN
    house.run(100)
    ended = house.clock.now()
    house.server = lambda read: ReadFailed(kind, "not for you") if read == "bad" else fine(read)
    house.run(Backoff().cap * 2 + 1)

    assert isinstance(house.inboxes["good"].got[-1][1], Reading)
    assert house.reasons("bad")[-1] == "not for you"
    assert house.times(ended, "good")


def test_a_read_that_hangs_does_not_keep_the_others_from_asking(house):
    """That it got no answer says nothing of the server; another one asks next."""
    house.read("slow", "good", "other")
    house.run(1)
    house.server = lambda _read: DOWN
    house.run(100)
    house.server = lambda read: ReadFailed(FailureKind.UNREACHABLE, "no answer in time") if read == "slow" else fine(read)
    house.run(Backoff().cap * 3 + 1)

    assert all(isinstance(house.inboxes[read].got[-1][1], Reading) for read in ("good", "other"))


def test_one_that_alone_fails_as_if_the_server_did_delays_others_for_moments(house):
    """It has a backoff of its own, so that the others are read about as often as without it."""
    house.read("bad", *range(5))
    house.server = lambda read: DOWN if read == "bad" else fine(read)
    house.run(3600)

    assert len(house.times(0.0, "bad")) < 200
    assert all(len(house.times(0.0, read)) > 0.8 * 3600 / (INTERVAL * 1.1) for read in range(5))
    gaps = [later - earlier for read in range(5) for earlier, later in pairwise(house.times(0.0, read))]
    assert max(gaps) < INTERVAL * 1.1 + 5


def test_failures_of_single_reads_back_off_alone(house):
    """A refusal of one path is no reason to wait for any other."""
    house.read("bad", "good")
    house.server = lambda read: ReadFailed(FailureKind.REFUSED, "no") if read == "bad" else fine(read)
    house.run(300)

    assert is_one_backoff(house.times(0.0, "bad"))
    assert len(house.times(0.0, "good")) >= 9


def test_a_changed_configuration_asks_at_once_and_anew(house):
    """One read asks for all; what failed alone is done too."""
    house.read("refused", "one", "other")
    house.server = lambda read: ReadFailed(FailureKind.REFUSED, "no") if read == "refused" else fine(read)
    house.run(600)
    began = house.clock.now()
    house.wake()
    house.run(1e-6)
    assert {read for at, read in house.asked if at >= began} == {"refused"}

    house.server = lambda _read: DOWN
    house.run(900)
    began = house.clock.now()
    house.wake()
    house.run(1e-6)
    assert len(house.times(began)) == 1
    house.run(200)
    assert is_one_backoff(house.times(began))

    house.server = fine
    house.wake()
    house.run(1)
    assert all(isinstance(inbox.got[-1][1], Reading) for inbox in house.inboxes.values())


def test_a_look_is_no_retry(house):
    """Whoever asks for a look does not make the server's outage worse."""
    house.read("one", "other")
    house.run(1)
    house.server = lambda _read: DOWN
    house.run(300)
    before = len(house.asked)
    for _ in range(10):
        house.look()
    house.turns.run(house.clock.now() + 1e-6)

    assert len(house.asked) == before


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["leave", "come", "let go", "down", "up", "alone", "wake", "time"]), max_size=40), st.integers(0, 2**32))
def test_whatever_happens_meanwhile_everyone_is_read_when_the_server_is_back(steps, seed):
    """Reads come and go, also the one that asks; the gate never forgets that somebody waits."""
    house, leaving, names = House(fine, seed), [], iter(range(1000))

    def fickle(answer: Any) -> Callable[[Hashable], Any]:
        turn = iter(range(10**6))
        return lambda _read: LetGo() if next(turn) % 3 == 0 else answer

    for step in ["come", "come", *steps, "come"]:
        if step == "come":
            leaving += house.read(next(names))
        if step == "leave" and leaving:
            leaving.pop(0)()
        if step == "wake":
            house.wake()
        house.server = {
            "down": lambda _read: DOWN,
            "up": fine,
            "alone": lambda _read: ReadFailed(FailureKind.UNREACHABLE, "no answer in time"),
            "let go": fickle(DOWN),
        }.get(step, house.server)
        house.run(7)
    house.server, began = fine, house.clock.now()
    house.run(2 * Backoff().cap + RESUMED_WITHIN + INTERVAL * 1.1)

    assert all(house.times(began, read) for read in house._watched)
    assert all(isinstance(each.latest, Reading) for each in house._watched.values())
    assert not any(isinstance(each.latest, Failure) for each in house._watched.values())
