"""Killed at every call of `disk` and `processes`, on the first publish and on one update: the reload happens as due, and no set is torn."""

from typing import ClassVar

import pytest

from tests.faults.matrix import TARGETS, Pod, crashed, set_of, signals


class FirstPublish(Pod):
    """Nothing was ever published."""

    def begin(self, at: int) -> None:
        self.say("new")
        self.start(at)

    def done(self) -> bool:
        return self.confirmed("new")


class Update(FirstPublish):
    """An earlier run published and confirmed something else."""

    def begin(self, at: int) -> None:
        self.say("old")
        self.start()
        self.settle_on("old")
        self.kill()
        super().begin(at)


class _InPlace(Pod):
    in_place: ClassVar[bool] = True

    def program(self):
        return TARGETS / "reading.py", self.live, "plain"


class FirstInPlace(_InPlace, FirstPublish):
    """The files stay the same ones."""


class UpdateInPlace(_InPlace, Update):
    """The files stay the same ones."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", [FirstPublish, Update, FirstInPlace, UpdateInPlace])
def test_a_crash_at_every_call_loses_doubles_and_tears_nothing(tmp_path, row):
    """After the restart the last state arrives, signalled as often as due, and no reader saw a mix, but in place until then."""
    for pod, _made, due in crashed(tmp_path, row):
        assert pod.in_place or pod.seen() in (None, set_of("old"), set_of("new"))
        pod.start()
        pod.settle()
        assert signals(pod.calls()) == due
        assert pod.in_place or all(len(set(note["read"].values())) == 1 for note in pod.noted() if note["read"])
