"""`rollback` and `resume`: through the control socket where there is one, else by a wish that is left on the volume."""

import os
import time
from contextlib import suppress
from pathlib import Path

from reloader import control
from reloader.plan import Pipeline, Plan
from reloader.record import Damaged, Record
from reloader.state import state_directory
from reloader.volume import layout
from reloader.volume.home import LARGEST
from reloader.volume.wish import NAME, NotPossible, Wish, chosen, leave
from reloader.world import World
from reloader.world.unlinked import read

TAKEN_WITHIN = 5.0
"""How many seconds a running reloader has to take a wish until the person is told that none did."""
LOOK = 0.05


def do(plan: Plan, pipeline: str | None, wish: Wish, world: World) -> control.Answer:
    """Have it done, and return whether it was, and what a person is told; as `control.Desk.answer`.

    Raises:
        NotPossible: why not.

    """
    state = state_directory(plan.state)
    try:
        answer = control.ask(state, {"do": wish.act, "pipeline": pipeline, "generation": wish.generation}) if state else None
    except control.Unreachable as error:
        raise NotPossible(str(error)) from None
    if answer is not None:
        return answer
    return {"done": True, "said": [_by_wish(each, wish, world) for each in _meant(plan, pipeline, wish)]}


def _meant(plan: Plan, name: str | None, wish: Wish) -> list[Pipeline]:
    known = {each.name: each for each in plan.pipelines}
    if name is not None and name not in known:
        raise NotPossible(f"there is no pipeline {name}; there are {', '.join(known)}")
    if name is None and wish.act == "rollback" and len(known) > 1:
        raise NotPossible(f"which of them? --pipeline {', '.join(known)}")
    meant = [known[name]] if name is not None else [each for each in plan.pipelines if each.volume is not None]
    if any(each.volume is None for each in meant) or not meant:
        raise NotPossible("without a volume there is nothing to go back to, and without a control socket (state.path) nobody to ask")
    return meant


def _by_wish(pipeline: Pipeline, wish: Wish, world: World) -> str:
    volume = Path(os.path.realpath(pipeline.volume.path)) if pipeline.volume else Path()
    home = volume / layout.HOME
    try:
        exact = _exact(volume, _record(home), wish, world)
        leave(home, exact, world)
    except OSError as error:
        mend = "; run as the user that reloader runs as" if isinstance(error, PermissionError) else ""
        raise NotPossible(f"{pipeline.name}: {error.filename or home}: {error.strerror}{mend}") from None
    except NotPossible as reason:
        raise NotPossible(f"{pipeline.name}: {reason}") from None
    if not _was_taken(home):
        return f"{pipeline.name}: left on the volume; none took it within {TAKEN_WITHIN:g} s, so it is done at the next start"
    return f"{pipeline.name}: {_outcome(home, exact)}"


def _record(home: Path) -> Record:
    try:
        return Record.from_json(read(home / "record.json", LARGEST))
    except FileNotFoundError:
        raise NotPossible(f"nothing was ever published in {home.parent}") from None
    except Damaged as damaged:
        raise NotPossible(f"{home}/record.json: {damaged}") from None


def _exact(volume: Path, record: Record, wish: Wish, world: World) -> Wish:
    """Return the wish with its generation, so that it means the same however often a crash has it taken."""
    if wish.act == "resume":
        return wish
    there = layout.generations(volume)
    linked = layout.linked(volume)
    return Wish(act="rollback", generation=chosen(record, wish.generation, linked, world.clock.wall(), there.__contains__))


def _was_taken(home: Path) -> bool:
    deadline = time.monotonic() + TAKEN_WITHIN
    while (home / NAME).exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK)
    return True


def _outcome(home: Path, wish: Wish) -> str:
    held = None
    with suppress(OSError, NotPossible):
        held = _record(home).rolled_back
    if wish.act == "resume":
        return "nothing is held now; the newest content is next" if held is None else f"generation {held} is held still; see the log"
    if held == wish.generation:
        return f"generation {held} is held until `reloader resume`"
    return f"generation {wish.generation} is not held; the log of reloader says why"
