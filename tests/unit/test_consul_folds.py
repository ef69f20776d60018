"""Keys that share a folder are read together, and none of them is ever lost by that."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given, strategies as st

from reloader.backends.consul.folds import FOREIGN_KEYS, PATIENCE, TRIED_AGAIN, Folding, folds
from reloader.backends.consul.reads import Fold, Key
from reloader.backends.turns import Job, Turns
from reloader.snapshot import Failure, FailureKind, Outcome, Reading
from reloader.world import World
from reloader.world.clock import Clock

KEYS = st.sets(st.lists(st.sampled_from("abc"), min_size=1, max_size=5).map("/".join), max_size=40)


class TestWhichFolders:
    """A pure function of the keys and the connections."""

    @pytest.mark.parametrize(
        ("keys", "most", "expected"),
        [
            (["a/x", "a/y"], 4, {"a/": {"a/x", "a/y"}}),
            (["a/x", "b/x"], 1, {}),
            (["x", "y"], 1, {}),
            (["a/b/x", "a/b/y", "a/c/x", "a/c/y"], 2, {"a/b/": {"a/b/x", "a/b/y"}, "a/c/": {"a/c/x", "a/c/y"}}),
            (["a/b/x", "a/b/y", "a/c/x", "a/c/y"], 1, {"a/": {"a/b/x", "a/b/y", "a/c/x", "a/c/y"}}),
            (["a/b/x", "a/c/x"], 1, {"a/": {"a/b/x", "a/c/x"}}),
            (["a/b/c/x", "a/b/c/y", "z/x", "z/y"], 1, {"a/b/c/": {"a/b/c/x", "a/b/c/y"}, "z/": {"z/x", "z/y"}}),
            (["a/b/c/x", "a/b/d/x", "a/e"], 2, {"a/b/": {"a/b/c/x", "a/b/d/x"}}),
        ],
    )
    def test_the_deepest_that_will_do(self, keys: list[str], most: int, expected: dict[str, set[str]]) -> None:
        """Merged upwards only where there are more than connections, never to the root, and not for one key alone."""
        assert folds(keys, most) == expected

    def test_a_folder_that_could_not_be_read_is_gone_around(self) -> None:
        """Those below it may do."""
        keys = ["a/b/x", "a/b/y", "a/c/x", "a/c/y", "a/z1", "a/z2"]

        assert folds(keys, 1, {"a/"}) == {"a/b/": {"a/b/x", "a/b/y"}, "a/c/": {"a/c/x", "a/c/y"}}

    @given(KEYS, st.integers(1, 6), st.sets(st.sampled_from(["a/", "b/", "a/b/", "c/c/"])))
    def test_they_never_overlap_and_hold_what_they_say(self, keys: set[str], most: int, refused: set[str]) -> None:
        """Whatever the keys are: no root, nothing refused, two keys or more each, no key twice."""
        found = folds(keys, most, refused)

        served = [key for group in found.values() for key in group]
        assert len(served) == len(set(served))
        assert set(served) <= keys
        for folder, group in found.items():
            assert folder.endswith("/")
            assert folder not in refused
            assert len(group) > 1
            assert all(key.startswith(folder) for key in group)

    def test_two_thousand_keys_are_few_folders(self) -> None:
        """A hundred folders of twenty keys each share one above them."""
        keys = [f"app/{number % 100}/key-{number}" for number in range(2000)]

        assert set(folds(keys, 100)) == {f"app/{number}/" for number in range(100)}
        assert sum(map(len, folds(keys, 4).values())) == 2000
        assert len(folds(keys, 4)) <= 4


@dataclass(frozen=True)
class Set(Clock):
    """A clock that is set by hand."""

    time: list[float] = field(default_factory=lambda: [1000.0])

    def now(self) -> float:
        return self.time[0]


class Reads:
    """What the folding asks of its backend, noted."""

    def __init__(self) -> None:
        self.clock = Set()
        self.turns = Turns("address", 2, World())
        self.jobs = [Job(lambda hold: inf, 1.0) for _ in range(3)]
        for job in self.jobs:
            self.turns.add(job)
        self.folding = Folding(self, self.turns, self.clock)
        self.watched: list[Hashable] = []
        self.served: dict[Hashable, Outcome] = {}
        self.unserved: set[Hashable] = set()

    def watch(self, read: Hashable, inbox: object, name: str) -> Callable[[], None]:
        self.watched.append(read)
        return lambda: self.watched.remove(read)

    def serve(self, outcomes: Mapping[Hashable, Outcome]) -> None:
        self.served = dict(outcomes)
        self.unserved -= outcomes.keys()

    def unserve(self, reads: Iterable[Hashable]) -> None:
        self.unserved |= set(reads)

    def read_all(self, *keys: str) -> None:
        for key in keys:
            self.folding.want(key)
        for key in keys:
            self.folding.read_alone(key)

    def answer(self, folder: str, **values: str) -> None:
        self.folding.put({folder: Reading(value=values, at=self.clock.now())})

    def fail(self, folder: str, kind: FailureKind, *, alone: bool) -> Failure:
        failure = Failure(kind=kind, reason="", at=self.clock.now())
        if alone:
            self.folding.failed_alone(folder, kind)
        self.folding.put({folder: failure})
        return failure


@pytest.fixture
def reads() -> Iterator[Reads]:
    reads = Reads()
    yield reads
    for job in reads.jobs:
        reads.turns.remove(job)


class TestServing:
    """Which read says what a key is."""

    def test_folders_are_read_once_every_key_was(self, reads: Reads) -> None:
        """So that what a single read says of each is known."""
        for key in ("a/x", "a/y", "a/z"):
            reads.folding.want(key)
        reads.folding.read_alone("a/x")
        reads.folding.read_alone("a/y")
        assert not reads.watched
        reads.folding.read_alone("a/z")

        assert reads.watched == [Fold("a/")]
        reads.answer("a/", x="1", y="2", z="3", other="4")
        assert {key: outcome.value for key, outcome in reads.served.items()} == {Key("a/x"): "1", Key("a/y"): "2", Key("a/z"): "3"}

    def test_nothing_is_folded_where_there_are_connections_enough(self, reads: Reads) -> None:
        """A key that has one to itself needs no other."""
        reads.turns.remove(reads.jobs[0])
        reads.read_all("a/x", "a/y")

        assert not reads.watched

    def test_a_key_that_an_answer_does_not_hold_is_read_by_itself(self, reads: Reads) -> None:
        """At once, if it was there before: it may be missing, or denied."""
        reads.read_all("a/x", "a/y", "a/z")
        reads.answer("a/", x="1", y="2")
        assert reads.unserved == {Key("a/z")}
        reads.answer("a/", x="1")

        assert set(reads.served) == {Key("a/x")}
        assert reads.unserved == {Key("a/y"), Key("a/z")}
        reads.answer("a/", x="1", y="3", z="4")
        assert set(reads.served) == {Key("a/x"), Key("a/y"), Key("a/z")}

    def test_a_missing_key_is_looked_at_now_and_then_while_a_fold_would_show_it(self, reads: Reads) -> None:
        """Not before the fold has answered, and at once when it is given up."""
        reads.read_all("a/x", "a/y", "a/z")
        assert not reads.folding.shows("a/z")
        reads.answer("a/", x="1", y="2")
        assert reads.folding.shows("a/z")
        assert not reads.folding.shows("b/z")
        reads.fail("a/", FailureKind.REFUSED, alone=True)

        assert reads.unserved == {Key("a/x"), Key("a/y"), Key("a/z")}
        assert not reads.folding.shows("a/z")

    def test_an_outage_is_told_to_all_that_are_served(self, reads: Reads) -> None:
        """The fold goes on, so that its end costs one request."""
        reads.read_all("a/x", "a/y")
        reads.answer("a/", x="1", y="2")
        for _ in range(2 * PATIENCE):
            failure = reads.fail("a/", FailureKind.UNREACHABLE, alone=False)

        assert reads.served == {Key("a/x"): failure, Key("a/y"): failure}
        assert reads.watched == [Fold("a/")]
        assert not reads.unserved

    def test_a_fold_that_fails_alone_again_and_again_is_given_up(self, reads: Reads) -> None:
        """Its keys may be readable one by one."""
        reads.read_all("a/x", "a/y")
        reads.answer("a/", x="1", y="2")
        for _ in range(PATIENCE - 1):
            reads.fail("a/", FailureKind.UNREACHABLE, alone=True)
        assert reads.watched
        reads.fail("a/", FailureKind.UNREACHABLE, alone=True)

        assert not reads.watched
        assert reads.unserved == {Key("a/x"), Key("a/y")}

    @pytest.mark.parametrize(
        ("kind", "mend"),
        [
            (FailureKind.REFUSED, lambda reads: reads.folding.new_token()),
            (FailureKind.MISCONFIGURED, lambda reads: reads.clock.time.__setitem__(0, 1000 + TRIED_AGAIN)),
        ],
        ids=["new token", "a while"],
    )
    def test_a_refused_folder_is_tried_again(self, reads: Reads, kind: FailureKind, mend: Callable[[Reads], None]) -> None:
        """With another token, or after a while; not before."""
        reads.read_all("a/x", "a/y")
        reads.fail("a/", kind, alone=True)
        assert not reads.watched
        reads.folding.read_alone("a/x")
        assert not reads.watched
        mend(reads)
        reads.folding.read_alone("a/x")

        assert reads.watched == [Fold("a/")]

    def test_a_fold_that_brings_far_more_than_is_wanted_is_given_up(self, reads: Reads) -> None:
        """Every change in it would bring all of it; sixteen times as much is bearable, and so are a few hundred."""
        reads.read_all("a/x", "a/y")
        reads.answer("a/", **{f"key{number}": "" for number in range(FOREIGN_KEYS)})
        assert reads.watched
        reads.answer("a/", **{f"key{number}": "" for number in range(FOREIGN_KEYS + 1)})

        assert not reads.watched

    def test_a_key_that_comes_later_joins_the_fold_of_its_folder(self, reads: Reads) -> None:
        """Once it was read by itself, too."""
        reads.read_all("a/x", "a/y")
        reads.read_all("a/b/z")
        reads.folding.put({"a/": Reading(value={"x": "1", "y": "2", "b/z": "3"}, at=0.0)})

        assert reads.watched == [Fold("a/")]
        assert Key("a/b/z") in reads.served

    def test_a_fold_ends_with_the_last_key_that_is_wanted(self, reads: Reads) -> None:
        """And forgets those that are not."""
        reads.read_all("a/x", "a/y")
        reads.answer("a/", x="1", y="2")
        reads.folding.drop("a/x")
        reads.answer("a/", x="1", y="2")
        assert set(reads.served) == {Key("a/y")}
        reads.folding.drop("a/y")

        assert not reads.watched
        reads.answer("a/", x="1", y="2")
        assert set(reads.served) == {Key("a/y")}
