"""The failure table, a case a row and more, for both modes: something fails, is told, and heals by itself.

What is expected is the README's own table. A case is a story (`tests/e2e/stories/`): each moment of it must come to be seen as that table
says; after the last one the cause is gone, and the newest content arrives.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.e2e.failing import TOLD
from tests.e2e.scenes import Scene
from tests.e2e.stories import content, sources, target, volume
from tests.scale import rounds
from tests.waiting import eventually

pytestmark = pytest.mark.servers

ROOMS = (sources, content, volume, target)
CASES = {name: case for room in ROOMS for name, case in room.CASES.items()}
MODES = ("open", "closed")


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path, mode: str) -> Iterator[Scene]:
    made = Scene(tmp_path, mode, request.getfixturevalue)
    yield made
    made.close()


def told_here() -> Iterator[tuple[str, str]]:
    """Yield each case with each mode under which it is told; variations by turns under one of them in the short form."""
    variations = [name for name, case in CASES.items() if case.varies]
    for name, case in CASES.items():
        yield from ((name, mode) for mode in MODES if not case.varies or rounds(variations.index(name) % 2 == MODES.index(mode), True))


@pytest.mark.parametrize(("case", "mode"), list(told_here()))
def test_the_failure_table(case: str, scene: Scene) -> None:
    """Each moment of the story is seen as the README says, from every side; and afterwards the newest content arrives."""
    told, seen = CASES[case], set()
    for moment in told.story(scene):
        scene.house.sees(moment)
        seen.add(moment.situation)
    assert seen == set(told.situations)

    scene.house.say("healed")
    eventually(lambda: (scene.house.reads() or "").partition(" ")[0] == "healed", what="the newest content")
    eventually(scene.house.is_well, what="nothing to be wrong")


def test_every_situation_of_the_readme_has_a_case() -> None:
    assert {(situation, mode) for case, mode in told_here() for situation in CASES[case].situations} == set(product(TOLD, MODES))


def test_no_case_takes_the_name_of_another() -> None:
    assert len(CASES) == sum(len(room.CASES) for room in ROOMS)
