"""What the last publish changed, as a person sees it."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reloader.mask import MASK
from reloader.pipeline import Parts, Pipeline
from reloader.pipeline.changes import CUT, LARGEST, LINES, MOST_BYTES, MOST_LINES
from reloader.plan import FailurePolicy as Failure, File, Pipeline as Plan, Source, Target as TargetPlan, Timing, Volume as VolumePlan
from reloader.snapshot import Mailbox, Reading
from reloader.status import Change, Metrics, Status
from reloader.targets import Verdict
from reloader.volume import Volume
from reloader.volume.in_place import InPlace
from reloader.volume.wish import Wish
from reloader.world import World
from tests.unit.test_pipeline import Slow


class House:
    """A pipeline whose sources the test speaks for, on a volume that may be there already."""

    def __init__(self, folder: Path, content: str, *sources: str, in_place: bool = False) -> None:
        self.world, self.live = World(), folder / "live"
        volume = VolumePlan(path=str(self.live), files={"app.conf": File(content=content)}, in_place=in_place)
        plan = Plan(
            name="app",
            sources={name: Source(kind="none", settings=None) for name in sources},
            volume=volume,
            target=TargetPlan(kind="none", settings=None),
            timing=Timing(settle=0.0, min_interval=0.0),
            failure=Failure(retry_refused=60.0),
        )
        self.mailbox, self.target, status = Mailbox(sources), Slow(self.world), Status(self.world.clock)
        self.target.verdict = Verdict.CONFIRMED
        self.volume = (InPlace if in_place else Volume)(volume, self.world)
        metrics = Metrics(status, "0")
        self.pipeline = Pipeline(Parts(plan, self.mailbox, self.volume, self.target, status, metrics, self.world))
        self.pipeline.open()

    def say(self, *, secret: bool = False, **values: Any) -> None:
        now = self.world.clock.now()
        self.mailbox.put({name: Reading(value=value, at=now, whole=True, secret=secret) for name, value in values.items()})

    def change(self, *, secret: bool = False, **values: Any) -> Change:
        """Return what the cycle changed that took these values."""
        self.say(secret=secret, **values)
        return self.cycle()

    def cycle(self) -> Change:
        self.pipeline._guarded_cycle()
        change = self.pipeline.report().change
        assert change is not None
        return change

    def published(self) -> str:
        return (self.live / "app.conf").read_text()


@pytest.fixture
def make(tmp_path):
    made: list[House] = []

    def make(content: str, *sources: str, **options: Any) -> House:
        for before in made:
            before.pipeline.close()
        made.append(House(tmp_path, content, *sources, **options))
        return made[-1]

    yield make
    for house in made:
        house.pipeline.close()
        house.mailbox.close()


Make = Callable[..., House]
CONTENT = "user=web\npassword={{ db }}\nencoded={{ db | b64encode }}\nroute={{ route }}\n"


def lines(change: Change) -> list[str]:
    return change.diff.splitlines()[2:]


def test_at_the_first_publish_everything_is_new(make: Make):
    house = make(CONTENT, "db", "route")
    house.say(route="a")
    change = house.change(db="canary", secret=True)
    assert (change.generation, change.at) == (1, pytest.approx(house.world.clock.wall(), abs=60))
    assert change.diff == (f"--- /dev/null\n+++ b/app.conf\n@@ -0,0 +1,4 @@\n+user=web\n+password={MASK}\n+encoded={MASK}\n+route=a\n")
    assert "password=canary" in house.published()


def test_a_rotated_secret_is_hidden_before_and_after_and_all_else_is_shown(make: Make):
    house = make(CONTENT, "db", "route")
    house.say(db="canary-old", secret=True)
    house.change(route="a")
    house.say(db="canary-new", secret=True)
    change = house.change(route="b")
    encoded = base64.b64encode(b"canary").decode()[:8]
    assert "canary" not in change.diff
    assert encoded not in change.diff
    assert [line for line in lines(change) if line.startswith(("-", "+"))] == [
        *(f"{sign}{line}" for sign, route in (("-", "a"), ("+", "b")) for line in (f"password={MASK}", f"encoded={MASK}", f"route={route}"))
    ]


def test_what_was_secret_once_is_hidden_when_its_source_is_no_secret_any_more(make: Make):
    """A file whose mode was opened up, and then changed: nobody wants to see what it held before."""
    house = make(CONTENT, "db", "route")
    house.say(db="canary-one", secret=True)
    house.change(route="a")
    house.say(db="canary-one", secret=False)
    assert "canary" not in house.change(route="b").diff
    assert "canary" not in house.change(db="canary-two").diff
    assert "canary" not in house.change(db="public").diff


def test_a_value_that_is_held_is_hidden_though_its_source_says_another(make: Make):
    """What the target refused is taken back, and the rest published with the value of before."""
    house = make(CONTENT, "db", "route")
    house.say(db="canary-one", secret=True)
    house.change(route="a")
    house.target.verdict = Verdict.REFUSED
    change = house.change(db="canary-two", secret=True)
    assert (change.generation, house.published().splitlines()[1]) == (1, "password=canary-one")
    assert "canary" not in change.diff
    house.target.verdict = Verdict.CONFIRMED
    house.cycle()
    change = house.change(route="b")
    assert house.published().splitlines()[1] == "password=canary-one"
    assert "canary" not in change.diff
    assert [line for line in lines(change) if line.startswith(("-", "+"))] == ["-route=a", "+route=b"]


def test_what_a_person_puts_back_is_a_change(make: Make):
    house = make(CONTENT, "db", "route")
    house.say(db="canary-one", secret=True)
    house.change(route="a")
    house.say(db="canary-two", secret=True)
    house.change(route="b")
    asked = house.pipeline.ask(Wish(act="rollback"))
    change = house.cycle()
    assert "generation 1" in asked.result()
    assert change.generation == 1
    assert {"-route=b", "+route=a"} <= set(lines(change))
    assert "canary" not in change.diff


def test_after_a_restart_nothing_is_shown_of_what_nobody_remembers(make: Make):
    """The new process was never told what was secret in the old set; its own is known."""
    make(CONTENT, "db", "route").say(db="canary-one", secret=True)
    before = make(CONTENT, "db", "route")
    before.say(db="canary-one", secret=True)
    before.change(route="a 1")
    house = make("password={{ db }}\nroute={{ route }}\n", "db", "route")
    house.say(db="public")
    change = house.change(route="a 2")
    assert lines(change)[1:] == [
        "-********=********",
        "-password=********",
        "-********=********",
        "-route=a ********",
        "+password=public",
        "+route=a 2",
    ]


def test_after_a_restart_an_unchanged_set_is_known_again(make: Make):
    """It was just made of what the sources say."""
    before = make(CONTENT, "db", "route")
    before.say(db="canary-one", secret=True)
    before.change(route="a")
    house = make(CONTENT, "db", "route")
    house.say(db="canary-one", secret=True)
    house.say(route="a")
    house.pipeline._guarded_cycle()
    assert house.pipeline.report().change is None
    assert {"-route=a", "+route=b"} <= set(lines(house.change(route="b")))


def test_of_an_earlier_runs_generation_that_is_put_back_only_what_is_known_is_shown(make: Make):
    before = make(CONTENT, "db", "route")
    before.say(db="canary-one", secret=True)
    before.change(route="a")
    house = make(CONTENT, "db", "route")
    house.say(db="canary-two", secret=True)
    house.change(route="b")
    house.pipeline.ask(Wish(act="rollback"))
    change = house.cycle()
    assert change.generation == 1
    assert "canary" not in change.diff
    assert "-route=b" in lines(change)


def test_another_name_of_the_directory_is_no_change(make: Make):
    house = make("include {{ generation }}/b;\nroute {{ route }};\n", "route")
    house.change(route="a")
    assert [line for line in lines(house.change(route="b")) if line.startswith(("-", "+"))] == ["-route a;", "+route b;"]


def test_what_is_written_in_place_is_compared_too(make: Make):
    house = make("route {{ route }};\n", "route", in_place=True)
    house.change(route="a")
    assert lines(house.change(route="b"))[1:] == ["-route a;", "+route b;"]


@pytest.mark.parametrize("size", [LARGEST + 1, 2 * LINES])
def test_of_a_large_set_only_the_names_of_files_are_told(make: Make, size: int):
    """By bytes or by lines: comparing them would hold up the delivery."""
    house = make("{{ text }}", "text")
    text = "x" * size if size > LARGEST else "x\n" * size
    assert house.change(text=text).diff == "File app.conf added\n"
    assert house.change(text=text + "y").diff == "File app.conf differs\n"


def test_a_large_set_of_secrets_is_not_searched_for_all_of_them(make: Make):
    house = make("{{ text }}", "text", "more")
    house.say(text="x" * (LARGEST - 1))
    house.say(more=[f"secret-{number}" for number in range(2000)], secret=True)
    assert house.cycle().diff == "File app.conf added\n"


def test_secrets_that_change_nothing_do_not_pile_up(make: Make):
    """A set may stay for a year; what it was made of first and last tells all that is in it."""
    house = make("password={{ db.password }}\n", "db")
    for number in range(200):
        house.say(db={"password": "canary", "id": f"secret-{number}"}, secret=True)
        house.cycle()
    assert house.pipeline.content._publishing.changes._secrets.mask(1).effort < 100
    assert "canary" not in house.change(db={"password": "canary-two", "id": "secret"}, secret=True).diff


def test_a_long_diff_is_cut_between_two_lines_and_says_so(make: Make):
    house = make("{{ text }}", "text")
    many = house.change(text="".join(f"{number}\n" for number in range(1000))).diff
    assert (many.count("\n"), many.endswith(f"\n+196\n{CUT}")) == (MOST_LINES + 1, True)
    house.change(text="")
    wide = house.change(text="".join(f"{number:0900}\n" for number in range(2000, 2100))).diff
    assert len(wide) <= MOST_BYTES + len(CUT)
    assert wide.endswith(CUT)
    assert {len(line) for line in wide.splitlines()[3:-1]} == {901}


def test_what_cannot_be_read_is_no_reason_not_to_publish(make: Make):
    """Somebody removed the generation that readers see: the next set comes all the same."""
    house = make("route {{ route }};\n", "route")
    house.change(route="a")
    (house.live / "..1/app.conf").unlink()
    change = house.change(route="b")
    assert house.published() == "route b;\n"
    assert lines(change)[1:] == ["+route b;"]
