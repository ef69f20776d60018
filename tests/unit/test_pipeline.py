"""One cycle after the other, by hand: when the pipeline acts, and when it wants to be called again."""

from pathlib import Path

import pytest

from reloader.pipeline import Parts, Pipeline
from reloader.plan import File, Pipeline as Plan, Source, Target as TargetPlan, Timing, Volume as VolumePlan
from reloader.snapshot import Mailbox, Reading
from reloader.status import Metrics, Status
from reloader.targets import Instance, Judgement, Verdict
from reloader.volume import Volume
from reloader.world import World


class Slow:
    """A target that takes a set when the test says so, and only then."""

    proves_completion = True

    def __init__(self, world: World) -> None:
        self._clock = world.clock
        self.verdict = Verdict.PENDING
        self.asked = 0

    def instances(self) -> tuple[Instance, ...]:
        return (Instance(),)

    def reload(self, _instance: Instance) -> "Slow":
        self.asked += 1
        return self

    verify = reload

    def judge(self) -> Judgement:
        return Judgement(verdict=self.verdict, look_at=self._clock.now() + 60)

    def descriptors(self) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        pass


class House:
    """A pipeline of one source, one file and a slow target."""

    def __init__(self, folder: Path) -> None:
        self.world = World()
        self.live = folder / "live"
        volume = VolumePlan(path=str(self.live), files={"app.conf": File(content="{{ text }}")})
        plan = Plan(
            name="app",
            sources={"text": Source(kind="none", settings=None)},
            volume=volume,
            target=TargetPlan(kind="none", settings=None),
            timing=Timing(settle=0.0, min_interval=0.0),
        )
        self.mailbox, self.target = Mailbox(["text"]), Slow(self.world)
        status = Status(self.world.clock)
        parts = Parts(plan, self.mailbox, Volume(volume, self.world), self.target, status, Metrics(status, "0"), self.world)
        self.pipeline = Pipeline(parts)
        self.pipeline.open()

    def say(self, text: str) -> None:
        self.mailbox.put({"text": Reading(value=text, at=self.world.clock.now(), whole=True)})

    def cycle(self) -> float:
        """Run one cycle as `run` does, and return when the next one is wanted."""
        return self.pipeline._guarded_cycle()

    def published(self) -> str:
        return (self.live / "app.conf").read_text()


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    yield house
    house.pipeline.close()
    house.mailbox.close()


def test_a_change_that_comes_while_a_reload_is_verified_is_published_as_soon_as_that_is_over(house):
    """Its wake-up is used up while the target is still reading, so the confirmation itself has to lead to another cycle at once."""
    house.say("one")
    house.cycle()
    house.say("two")
    house.cycle()
    assert house.published() == "one"

    house.target.verdict = Verdict.CONFIRMED
    assert house.cycle() <= house.world.clock.now()
    house.cycle()
    assert house.published() == "two"
    assert house.target.asked == 2


def test_a_pipeline_at_rest_wants_no_cycle_soon(house):
    house.target.verdict = Verdict.CONFIRMED
    house.say("one")
    assert house.cycle() > house.world.clock.now() + 10


def test_a_target_that_ends_on_a_new_set_is_looked_for_at_once(house):
    """Its descriptor wakes nobody once its end was seen."""
    house.target.verdict = Verdict.ENDED
    house.say("one")

    assert house.cycle() <= house.world.clock.now()
