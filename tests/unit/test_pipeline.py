"""One cycle after the other, by hand: when the pipeline acts, and when it wants to be called again."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, Literal

import pytest

from reloader.pipeline import Parts, Pipeline
from reloader.pipeline.guard import Guard, Rules
from reloader.pipeline.intake import Intake
from reloader.pipeline.turnstile import Turnstile
from reloader.plan import (
    Check,
    FailurePolicy as Failure,
    File,
    Pipeline as Plan,
    Source,
    Target as TargetPlan,
    Timing,
    Volume as VolumePlan,
)
from reloader.snapshot import Mailbox, Reading, Snapshot
from reloader.status import Metrics, PipelineReport, Status
from reloader.targets import Held, Instance, Judgement, Target, Trouble, Verdict
from reloader.volume import Volume
from reloader.volume.wish import Wish
from reloader.world import World
from reloader.world.children import Children
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


class Several:
    """A target of several processes, each of which does as the test says."""

    def __init__(self, world: World) -> None:
        self._clock = world.clock
        self.there: dict[int, float] = {}
        """When each was started, by pid."""
        self.troubles: dict[int, Trouble] = {}
        self.verdicts: dict[int, Verdict] = {}
        self.signalled: list[int] = []

    def instances(self) -> tuple[Instance, ...]:
        return tuple(Instance(pid=pid, started=started, boot=self._clock.boot()) for pid, started in self.there.items())

    def reload(self, instance: Instance) -> "Answer":
        if instance.pid in self.troubles:
            raise Held(self.troubles[instance.pid], "as it was told to")
        self.signalled.append(instance.pid)
        return Answer(self, instance)

    def verify(self, instance: Instance) -> "Answer":
        return Answer(self, instance)

    def descriptors(self) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        pass


class Answer:
    """What one of them says."""

    proves_completion = False

    def __init__(self, target: Several, instance: Instance) -> None:
        self._target, self._instance = target, instance

    def judge(self) -> Judgement:
        verdict = self._target.verdicts.get(self._instance.pid, Verdict.CONFIRMED)
        return Judgement(verdict=verdict, reason="as it was told to", look_at=self._target._clock.now() + 60)


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
    """A pipeline of some sources, one file that holds them all, and a target, which is slow unless another is given."""

    def __init__(
        self,
        folder: Path,
        *sources: str,
        name: str = "app",
        target: Callable[[World], Target] = Slow,
        min_interval: float = 0.0,
        mode: Literal["open", "closed"] = "open",
        turnstile: Turnstile | None = None,
        children: Children | None = None,
    ) -> None:
        self.name = name
        self.clock = Stepped()
        self.world = World(clock=self.clock, children=children or Children())
        self.live = folder / name / "live"
        files = {"app.conf": File(content=" ".join(f"{{{{ {source} }}}}" for source in sources))}
        volume = VolumePlan(path=str(self.live), files=files, check=Check(command=("true",)) if children else None)
        plan = Plan(
            name=name,
            sources={source: Source(kind="none", settings=None) for source in sources},
            volume=volume,
            target=TargetPlan(kind="none", settings=None),
            timing=Timing(settle=0.0, min_interval=min_interval),
            failure=Failure(mode=mode, retry_refused=60.0),
        )
        self.mailbox, self.target = Late(sources), target(self.world)
        self.status = Status(self.world.clock)
        self.metrics = Metrics(self.status, "0")
        self.intake = Intake(name, {}, self.mailbox, self.metrics, {source: Guard(Rules(read=source)) for source in sources})
        self.volume = Volume(volume, self.world)
        parts = Parts(plan, self.mailbox, self.volume, self.target, self.status, self.metrics, self.world, intake=self.intake)
        self.pipeline = Pipeline(replace(parts, turnstile=turnstile or Turnstile()))
        self.pipeline.open()

    def say(self, value: object, *, source: str = "text", lasts: float = inf) -> None:
        now = self.world.clock.now()
        self.mailbox.put({source: Reading(value=value, at=now, whole=True, current_until=now + lasts)})

    def judge(self, verdict: Verdict) -> None:
        """Let the target come to a verdict on what is published, and take what follows at once."""
        self.target.verdict = verdict
        self.cycle()
        self.target.verdict = Verdict.PENDING

    def cycle(self) -> float:
        """Run one cycle as `run` does, and return when the next one is wanted."""
        return self.pipeline._guarded_cycle()

    def refusals(self, stage: str = "verify") -> float | None:
        return self.metrics.registry.get_sample_value("reloader_refusals_total", {"pipeline": self.name, "stage": stage})

    @property
    def report(self) -> PipelineReport:
        return self.status.reports[self.name]

    def published(self) -> str | None:
        file = self.live / "app.conf"
        return file.read_text() if file.exists() else None


@pytest.fixture
def make(tmp_path):
    made: list[House] = []

    def make(*sources: str, **options: Any) -> House:
        made.append(House(tmp_path, *sources, **options))
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


def test_of_several_processes_each_is_signalled_once_however_late_one_of_them_is_ready(make):
    """Who confirmed a set runs on it still when another is asked to take the same."""
    house = make("text", target=Several)
    house.target.there = {1: 0.0, 2: 0.0}
    house.target.troubles = {2: Trouble.NOT_READY}
    house.say("one")
    house.cycle()
    assert house.target.signalled == [1]

    house.target.troubles = {}
    for _ in range(3):
        house.cycle()

    assert house.target.signalled == [1, 2]
    assert house.report.owed is None


def test_of_several_processes_those_that_confirmed_stay_so_when_another_one_is_gone(make):
    house = make("text", target=Several)
    house.target.there = {1: 0.0, 2: 0.0, 3: 0.0}
    house.target.troubles, house.target.verdicts = {2: Trouble.NOT_READY}, {3: Verdict.PENDING}
    house.say("one")
    house.cycle()
    house.target.troubles = {2: Trouble.GONE}
    house.cycle()
    del house.target.there[2]
    house.target.verdicts = {}
    for _ in range(3):
        house.cycle()

    assert sorted(house.target.signalled) == [1, 3]
    assert house.report.owed is None


def test_several_processes_that_started_on_a_set_and_confirm_at_once_owe_nothing(make):
    """Nobody wakes the pipeline to ask again."""
    house = make("text", target=Several)
    house.target.there = dict.fromkeys((1, 2, 3), 1e12)
    house.say("one")
    house.cycle()

    assert house.report.owed is None
    assert house.target.signalled == []


def test_a_change_waits_for_the_least_interval_whatever_is_looked_at_meanwhile(make):
    house = make("text", min_interval=300.0)
    house.target.verdict = Verdict.CONFIRMED
    house.say("one")
    house.cycle()
    house.clock.later = 10
    house.say("two")
    for later in (50, 100, 200, 280):  # at each of them everything is looked at
        house.clock.later = later
        house.cycle()
        assert house.published() == "one"

    house.clock.later = 310
    house.cycle()
    assert house.published() == "two"


def test_at_a_process_that_gives_no_answer_others_have_their_turn(make):
    """While it may still say yes or no, they wait; that it says nothing at all may last for ever."""
    turnstile = Turnstile()
    mute, other = (make("text", name=name, target=Several, turnstile=turnstile) for name in ("mute", "other"))
    for house in (mute, other):
        turnstile.enter(house.name)
        house.target.there = {1: 0.0}
        house.say("one")
    mute.target.verdicts = {1: Verdict.PENDING}
    mute.cycle()
    other.cycle()
    assert (mute.published(), other.published()) == ("one", None)

    mute.target.verdicts = {1: Verdict.UNKNOWN}
    mute.cycle()
    other.cycle()
    assert other.published() == "one"

    mute.target.verdicts = {}
    mute.cycle()
    assert mute.report.owed is None


class Confused(Children):
    """Children of a program that has a mistake."""

    def run(self, _argv: Sequence[str], *, timeout: float) -> Any:
        raise KeyError(timeout)


def test_a_set_that_is_not_published_for_a_mistake_of_ours_leaves_nothing(make):
    """It is tried again, and would fill the volume."""
    house = make("text", children=Confused())
    house.say("one")
    for _ in range(3):
        house.cycle()

    assert [path.name for path in house.live.iterdir()] == ["..reloader"]


def test_a_mistake_of_ours_is_told_and_the_pipeline_judged_all_the_same(make):
    house = make("text", mode="closed")
    house.target.verdict = Verdict.CONFIRMED
    house.say("one", lasts=10)
    house.cycle()
    house.pipeline.delivery.converge = None
    house.cycle()
    assert (house.report.ready, house.report.degraded) == (True, True)
    assert house.report.reasons[-1].startswith("internal error: TypeError in pipeline/")

    house.clock.later = 700
    house.cycle()
    assert not house.report.ready

    del house.pipeline.delivery.converge
    house.say("two")
    house.cycle()
    assert (house.report.ready, house.report.reasons) == (True, ())


def test_a_pipeline_of_which_nothing_can_be_told_is_not_relied_on_if_it_is_closed(make):
    for mode in ("open", "closed"):
        house = make("text", name=mode, mode=mode)
        house.say("one")
        house.target.verdict = Verdict.CONFIRMED
        house.cycle()
        house.pipeline._view = None
        for _ in range(2):
            house.cycle()
        assert house.report.ready == (mode == "open")
        assert len(house.report.reasons) == 1


def test_what_does_not_render_is_one_refusal_however_often_it_is_looked_at(make):
    house = make("text")
    house.target.verdict = Verdict.CONFIRMED
    house.say(b"\xff")
    for _ in range(3):
        house.pipeline.content.look_again()
        house.cycle()
    assert house.refusals("render") == 1

    house.say("one")
    house.cycle()
    house.say(b"\xff")
    house.cycle()
    assert house.refusals("render") == 2
