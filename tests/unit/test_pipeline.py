"""One cycle after the other, by hand: when the pipeline acts, and when it wants to be called again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reloader.pipeline import Parts, Pipeline
from reloader.pipeline.guard import Guard, Rules
from reloader.pipeline.intake import Intake
from reloader.plan import FailurePolicy as Failure, File, Pipeline as Plan, Source, Target as TargetPlan, Timing, Volume as VolumePlan
from reloader.snapshot import Mailbox, Reading, Snapshot
from reloader.status import Metrics, Status
from reloader.targets import Instance, Judgement, Verdict
from reloader.volume import Volume
from reloader.volume.wish import Wish
from reloader.world import World
from reloader.world.clock import Clock


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
        verdict = self.verdict
        if verdict is Verdict.REFUSED:  # of one set, and not of the one that comes back
            self.verdict = Verdict.PENDING
        return Judgement(verdict=verdict, look_at=self._clock.now() + 60)

    def descriptors(self) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        pass


class Stepped(Clock):
    """The machine's clock, some seconds later."""

    later = 0.0

    def now(self) -> float:
        return super().now() + self.later

    def wall(self) -> float:
        return super().wall() + self.later


class Late(Mailbox):
    """A mailbox into which something comes just before it is looked into."""

    comes: Callable[[], None] | None = None

    def take(self) -> Snapshot:
        comes, self.comes = self.comes, None
        if comes is not None:
            comes()
        return super().take()


class House:
    """A pipeline of some sources, one file that holds them all, and a slow target."""

    def __init__(self, folder: Path, *sources: str) -> None:
        self.clock = Stepped()
        self.world = World(clock=self.clock)
        self.live = folder / "live"
        volume = VolumePlan(path=str(self.live), files={"app.conf": File(content=" ".join(f"{{{{ {name} }}}}" for name in sources))})
        plan = Plan(
            name="app",
            sources={name: Source(kind="none", settings=None) for name in sources},
            volume=volume,
            target=TargetPlan(kind="none", settings=None),
            timing=Timing(settle=0.0, min_interval=0.0),
            failure=Failure(retry_refused=60.0),
        )
        self.mailbox, self.target = Late(sources), Slow(self.world)
        status = Status(self.world.clock)
        self.metrics = Metrics(status, "0")
        self.intake = Intake("app", {}, self.mailbox, self.metrics, {name: Guard(Rules(read=name)) for name in sources})
        self.volume = Volume(volume, self.world)
        parts = Parts(plan, self.mailbox, self.volume, self.target, status, self.metrics, self.world, intake=self.intake)
        self.pipeline = Pipeline(parts)
        self.pipeline.open()

    def say(self, text: str, *, source: str = "text") -> None:
        self.mailbox.put({source: Reading(value=text, at=self.world.clock.now(), whole=True)})

    def judge(self, verdict: Verdict) -> None:
        """Let the target come to a verdict on what is published, and take what follows at once."""
        self.target.verdict = verdict
        self.cycle()
        self.target.verdict = Verdict.PENDING

    def cycle(self) -> float:
        """Run one cycle as `run` does, and return when the next one is wanted."""
        return self.pipeline._guarded_cycle()

    def refusals(self) -> float | None:
        return self.metrics.registry.get_sample_value("reloader_refusals_total", {"pipeline": "app", "stage": "verify"})

    def published(self) -> str:
        return (self.live / "app.conf").read_text()


@pytest.fixture
def make(tmp_path):
    made: list[House] = []

    def make(*sources: str) -> House:
        made.append(House(tmp_path, *sources))
        return made[-1]

    yield make
    for house in made:
        house.pipeline.close()
        house.mailbox.close()


@pytest.fixture
def house(make):
    return make("text")


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


def test_that_a_source_had_items_is_remembered_however_late_they_come(house):
    """Once readers see them, a crash must not let an empty answer pass as the first."""
    house.cycle()
    items = Reading(value=["a"], at=house.world.clock.now(), whole=True)
    house.mailbox.comes = lambda: house.intake.put({"text": items})
    house.cycle()
    assert house.published() == "['a']"
    assert house.volume.record.filled == {"text": "text"}


def test_a_pipeline_at_rest_wants_no_cycle_soon(house):
    house.target.verdict = Verdict.CONFIRMED
    house.say("one")
    assert house.cycle() > house.world.clock.now() + 10


def test_a_target_that_ends_on_a_new_set_is_looked_for_at_once(house):
    """Its descriptor wakes nobody once its end was seen."""
    house.target.verdict = Verdict.ENDED
    house.say("one")

    assert house.cycle() <= house.world.clock.now()


def test_what_is_refused_is_tried_again_once_the_rest_is_confirmed_and_is_one_refusal(make):
    """Tried along with what is new, it would take that back with it; that it is refused still is no news."""
    house = make("site", "tls")
    house.say("good", source="site")
    house.say("one", source="tls")
    house.cycle()
    house.judge(Verdict.CONFIRMED)
    house.say("bad", source="site")
    house.cycle()
    assert house.published() == "bad one"
    house.judge(Verdict.REFUSED)
    assert house.published() == "good one"
    house.judge(Verdict.CONFIRMED)

    house.clock.later = 120
    house.say("two", source="tls")
    house.cycle()
    assert house.published() == "good two"
    house.judge(Verdict.CONFIRMED)
    house.cycle()
    assert house.published() == "bad two"

    house.judge(Verdict.REFUSED)
    assert house.published() == "good two"
    assert house.refusals() == 1


def test_what_is_refused_does_not_wait_for_ever_for_the_rest(make):
    """It may be what the target needs to confirm anything."""
    house = make("text")
    house.say("one")
    house.cycle()
    house.judge(Verdict.CONFIRMED)
    house.say("two")
    house.cycle()
    house.judge(Verdict.REFUSED)
    house.target.proves_completion = False
    assert house.published() == "one"

    house.clock.later = 70
    house.cycle()
    assert house.published() == "one"
    house.clock.later = 150
    house.cycle()
    assert house.published() == "one"  # it is still being asked

    house.judge(Verdict.REFUSED)
    house.clock.later = 152
    house.cycle()
    assert house.published() == "two"


def cut_short(house: House) -> None:
    """End it between the record of a refusal and the rollback."""
    house.say("one")
    house.cycle()
    house.judge(Verdict.CONFIRMED)
    house.say("two")
    house.cycle()
    refused = house.pipeline._volume.published
    house.pipeline.content._refusals.note(refused.fingerprint, "verify")
    house.pipeline.close()
    assert house.published() == "two"


def test_a_rollback_that_was_cut_short_is_gone_on_with_before_the_target_is_asked(make):
    """It would be asked again for what it refused."""
    cut_short(make("text"))

    house = make("text")

    assert house.published() == "one"
    house.say("two")
    house.cycle()
    house.judge(Verdict.CONFIRMED)
    assert (house.published(), house.target.asked) == ("one", 1)


def test_what_a_person_holds_is_not_taken_back_at_the_start_though_it_was_refused_once(make):
    house = make("text")
    cut_short(house)
    house = make("text")
    house.pipeline.ask(Wish(act="rollback", generation=2))
    house.cycle()
    assert house.published() == "two"
    house.pipeline.close()

    assert make("text").published() == "two"
