"""Killed at every call while an earlier generation is put back by hand: it is held, or nothing happened and it can be asked for again."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ClassVar

import pytest

from reloader import control
from reloader.volume.wish import Wish, Wishes, leave
from reloader.world import World
from tests import volumes
from tests.faults.matrix import Call, Pod, crashed, set_of, signals
from tests.waiting import eventually


class ByHand(Pod):
    """Two generations, confirmed; the first one is asked for."""

    def begin(self, at: int) -> None:
        self.say("one")
        self.start(at, armed=False)
        self.settle_on("one")
        self.say("two")
        self.settle_on("two")
        self.arm()
        self.ask("rollback", 1)

    def ask(self, act: str, generation: int | None = None) -> None:
        raise NotImplementedError

    def done(self) -> bool:
        return self.record()["rolled_back"] == 1 and self.confirmed("one")

    def never_happened(self, made: list[Call]) -> bool:
        """Return whether a crash after these calls left nothing of what was asked."""
        raise NotImplementedError


class BySocket(ByHand):
    """Through the control socket of the running one."""

    more: ClassVar[str] = "state: {{path: {folder}/state}}"

    def ask(self, act: str, generation: int | None = None) -> None:
        """Ask, and do not wait for the answer: the sidecar may die meanwhile."""
        eventually(lambda: control.ask(self.folder / "state", {"do": "status"}), what="the control socket")
        asker = ThreadPoolExecutor(1)
        asker.submit(self._ask, act, generation)
        asker.shutdown(wait=False)

    def _ask(self, act: str, generation: int | None) -> None:
        with suppress(control.Unreachable):
            control.ask(self.folder / "state", {"do": act, "pipeline": None, "generation": generation})

    def never_happened(self, made: list[Call]) -> bool:
        return not any(call[0] == "rename" for call in made)


class ByWish(ByHand):
    """By a wish left on the volume, which outlives whoever should take it."""

    def ask(self, act: str, generation: int | None = None) -> None:
        leave(self.live / "..reloader", Wish(act=act, generation=generation), World())  # type: ignore[arg-type]

    def never_happened(self, made: list[Call]) -> bool:
        return False

    def done(self) -> bool:
        return super().done() and not (self.live / "..reloader" / "wish.json").exists()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", [BySocket, ByWish])
def test_a_crash_at_every_call_holds_what_was_asked_for_or_never_heard_of_it(tmp_path, row):
    """Never something in between: the record decides; and what is held can be let go afterwards."""
    for pod, made, due in crashed(tmp_path, row):
        assert pod.seen() in (set_of("one"), set_of("two"))
        pod.start()
        if pod.never_happened(made):
            pod.settle_on("two")
            assert (pod.record()["rolled_back"], signals(pod.calls())) == (None, 0)
            pod.ask("rollback", 1)
        pod.settle()
        assert signals(pod.calls()) == due

        pod.ask("resume")
        pod.settle_on("two")
        assert pod.record()["rolled_back"] is None
        assert signals(pod.calls()) == due + 1


class Killed(BaseException):
    """Nobody handles that."""


def test_a_wish_whose_writer_was_killed_is_whole_or_not_there_and_can_be_left_again(tmp_path):
    """At every call of who leaves it."""
    wish, names = Wish(act="rollback", generation=1), []
    leave(tmp_path, wish, World(disk=volumes.recording(names)))
    assert Wishes(tmp_path, World()).take() == wish
    for at in range(len(names)):
        folder = tmp_path / str(at)
        folder.mkdir()

        def killed(index, _name, run, _args, at=at):
            if index == at:
                raise Killed
            return run()

        with pytest.raises(Killed):
            leave(folder, wish, World(disk=volumes.hooked(killed)))
        assert Wishes(folder, World()).take() is None

        leave(folder, wish, World())
        assert Wishes(folder, World()).take() == wish
