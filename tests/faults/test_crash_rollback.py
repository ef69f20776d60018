"""Killed at every call while the target refuses a set: what was confirmed comes back, and what was refused is not tried endlessly."""

from typing import ClassVar

import pytest

from tests.faults.matrix import TARGETS, Pod, crashed, set_of, signals


class Rollback(Pod):
    """A master whose new workers prove a reload; it is given what it refuses."""

    verify: ClassVar[str] = "{workers: true, within: 700ms}"
    asks: ClassVar[int] = 2  # for what it refuses, and for what comes back

    def program(self):
        return TARGETS / "picky.py", self.live / "one.conf"

    def taken(self) -> str:
        return self.lines()[-1].split(" ")[-1]

    def heard(self) -> None:
        """Say nothing: what the master refuses is no line of its notes."""

    def lines(self) -> list[str]:
        return (self.folder / "app.notes").read_text().splitlines()

    def begin(self, at: int) -> None:
        self.say("good")
        self.start(at, armed=False)
        self.settle_on("good")
        self.arm()
        self.say("refuse")

    def done(self) -> bool:
        return bool(self.record()["refused"]) and self.confirmed("good")


class RollbackInPlace(Rollback):
    """The files stay the same ones, so going back is writing them again."""

    in_place: ClassVar[bool] = True


@pytest.mark.timeout(900)
@pytest.mark.parametrize("row", [Rollback, RollbackInPlace])
def test_a_crash_at_every_call_of_a_rollback_brings_back_what_was_confirmed(tmp_path, row):
    """After the restart it is on the volume and confirmed, the refused set was asked for as often as due, and the next good one goes on."""
    for pod, _made, due in crashed(tmp_path, row):
        assert pod.in_place or pod.seen() in (set_of("good"), set_of("refuse"))
        pod.start()
        pod.settle()
        assert signals(pod.calls()) == due

        pod.say("better")
        pod.settle_on("better")
        assert signals(pod.calls()) == due + 1
        assert {line.split(" ")[-1] for line in pod.lines()} <= {"nothing", "good", "better"}
