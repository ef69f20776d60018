"""What a closed pipeline does, as it is seen from outside: each action, their order, what undoes them, and `once`, which does none."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.e2e.failing import TARGETS, Application, House, Moment, fill, make_read_only, read_only
from tests.e2e.sidecar import Sidecar, reloader
from tests.faults.pod import Mounts
from tests.scale import rounds
from tests.waiting import eventually

CLOSED = "the same, older"
WITHDRAWN = "it closed before and withdrew what was published, and nothing good came since"
ALL = ["not_ready", "withdraw", "stop_target", "exit"]
LINK = {"calls": ["rename"], "path": r"\.\.data_tmp$"}
LINK_FAILS = {**LINK, "error": "EIO"}
WRITES_FAIL = {"calls": ["write_file", "make_directory"], "path": r"live/\.\.\d", "error": "EIO"}
LIMIT, PATIENCE = 35, 30
"""After how many seconds the next action is done though one is not, and a target is killed that does not end."""

needs_long = pytest.mark.skipif(rounds(0, 1) == 0, reason=f"takes more than {PATIENCE} s: LONG_TESTS")
MakeHouse = Callable[..., House]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeHouse]:
    """Makes a fail-closed house that closes a second after its source failed, and then does these actions."""
    made: list[House] = []

    def build(*actions: object, mounts: Mounts | None = None, mode: str = "closed") -> House:
        seen_from = mounts.seen(Path("/")) if mounts else Path("/")
        house = House(tmp_path, mode, enter=mounts.enter if mounts else (), seen_from=seen_from)
        house.fail(max_staleness="1s", when_closed=list(actions))
        made.append(house)
        return house

    yield build
    for house in made:
        house.close()


def away(house: House) -> Path:
    return house.folder / "away"


def close(house: House) -> None:
    """Let the source go, and wait until the pipeline is closed for it."""
    house.mounted.path.rename(away(house))
    eventually(lambda: house.sidecar.metric("reloader_closed") == 1, what="it to close")


def heal(house: House, text: str = "healed") -> None:
    """Let the source be back, with something new."""
    away(house).rename(house.mounted.path)
    house.say(text)


def well(house: House, text: str = "healed") -> None:
    house.sees(Moment("all is well", volume=text))
    eventually(house.is_well, what="nothing to be owed")


def closed_by(house: House) -> list[str]:
    return list(house.sidecar.pipeline("app")["closed_by"])


def does(house: House, *actions: str) -> None:
    """Wait until just these actions are in effect, as the status says."""
    eventually(lambda: closed_by(house) == list(actions), what=f"{actions} to be in effect")


def left(sidecar: Sidecar) -> int | None:
    """Return the exit status of a sidecar, once it has left by itself."""
    eventually(lambda: not sidecar.running, what="the end of the sidecar")
    return sidecar.status


def test_not_ready_alone_leaves_all_else_as_it_is(make: MakeHouse) -> None:
    house = make("not_ready").begin()
    linked, taken = house.linked(), house.application.taken()
    close(house)
    house.sees(Moment(CLOSED, ("source site is not current",), volume="one"))
    does(house, "not_ready")
    assert (house.linked(), house.application.taken()) == (linked, taken)
    assert house.application.running

    heal(house)
    well(house)


def test_withdraw_shows_an_empty_set_and_deletes_all_others(make: MakeHouse) -> None:
    """The target is not asked for anything, and what it has open it can read."""
    house = make("not_ready", "withdraw").begin()
    house.say("two")
    well(house, "two")
    assert len(house.generations()) == 2
    taken = house.application.taken()
    with (house.live / "app.conf").open() as opened:
        close(house)
        house.sees(Moment(WITHDRAWN, ("source site", "withdrawn until something good is there"), target="two"))
        assert opened.read() == "two"
    does(house, "not_ready", "withdraw")
    assert list((house.live / house.linked()).iterdir()) == []
    eventually(lambda: house.generations() == {house.linked()}, what="the others to be deleted")
    assert not os.path.lexists(house.live / "app.conf")
    assert house.application.taken() == taken

    heal(house)
    well(house)
    assert house.application.taken()[-1] == "signalled healed"


def test_what_the_target_did_not_take_is_withdrawn_until_there_is_something_else(make: MakeHouse) -> None:
    house = make("not_ready", "withdraw")
    house.fail(max_staleness="10m")
    house.begin("picky")
    house.application.refuses_all.touch()
    house.say("two")
    house.sees(Moment(WITHDRAWN, ("rejected: ",), target="one"))
    does(house, "not_ready", "withdraw")
    house.application.refuses_all.unlink()
    house.say("three")
    well(house, "three")


def test_each_action_comes_after_the_one_before_and_exit_is_the_last(make: MakeHouse) -> None:
    """Each is held up in turn: the link does not move while it is made to fail, and the target does not end when it is asked to."""
    house = make(*reversed(ALL))
    house.faulty()
    house.begin("stubborn")
    linked, taken = house.linked(), house.application.taken()
    house.control(held=[LINK])
    close(house)
    eventually((house.live / "..data_tmp").is_symlink, what="the link to be about to move")
    house.sees(Moment(CLOSED, ("source site is not current",), volume="one"))
    house.control(LINK_FAILS)
    house.sees(Moment(CLOSED, ("source site is not current", "the disk failed"), volume="one"))
    does(house, "not_ready")
    assert (house.linked(), house.application.taken()) == (linked, taken)

    house.control()
    eventually(lambda: house.application.taken() == [*taken, "stays nothing"], what="the signal, after the withdrawal")
    does(house, "not_ready", "withdraw", "stop_target")
    assert house.sidecar.running

    house.application.stop()
    assert left(house.sidecar) == 1
    assert house.reads() is None


@pytest.mark.parametrize("action", ["stop_target", {"stop_target": "QUIT"}], ids=["TERM", "QUIT"])
def test_every_target_that_is_there_or_comes_is_stopped_until_it_opens(make: MakeHouse, action: object) -> None:
    expected = -signal.SIGTERM if action == "stop_target" else -signal.SIGQUIT
    house = make("not_ready", "withdraw", action).begin()
    close(house)
    for _ in range(2):
        eventually(lambda: not house.application.running, what="the end of the target")
        assert house.application.status == expected
        assert house.reads() is None
        house.application.start()
    eventually(lambda: not house.application.running, what="the end of the target")
    assert house.application.taken()[1:] == ["started nothing"] * 2
    does(house, "not_ready", "withdraw", "stop_target")
    house.sees(Moment(WITHDRAWN, ("withdrawn until something good is there",)))

    heal(house)
    well(house)
    house.application.start()
    well(house)
    assert house.application.running


def test_all_of_several_targets_are_stopped(make: MakeHouse) -> None:
    house = make("not_ready", "withdraw", "stop_target")
    house.config["target"]["match"] = {"cmdline": rf"picky\.py {house.path}/app\.conf", "all": True}
    other = Application(house.folder / "other", house.path / "app.conf")
    try:
        other.start()
        house.begin()
        close(house)
        eventually(lambda: not house.application.running and not other.running, what="both to end")
        assert (house.application.status, other.status) == (-signal.SIGTERM, -signal.SIGTERM)
    finally:
        other.stop()


@needs_long
def test_a_target_that_does_not_end_is_killed(make: MakeHouse) -> None:
    house = make(*ALL).begin("stubborn")
    close(house)
    eventually(lambda: house.application.taken()[-1] == "stays nothing", what="the signal")
    assert house.sidecar.running
    eventually(lambda: not house.application.running, within=PATIENCE + 15, what="its end")
    assert house.application.status == -signal.SIGKILL
    assert left(house.sidecar) == 1


@pytest.mark.parametrize(
    ("actions", "status"),
    [(["not_ready", "withdraw", "stop_target"], 0), (ALL, 1), (["not_ready", "exit"], 1)],
    ids=["stop_target", "stop_target and exit", "exit"],
)
def test_a_program_that_the_sidecar_runs_ends_and_the_sidecar_with_it(make: MakeHouse, actions: list[str], status: int) -> None:
    """It is asked to end in any case; the status is its own, unless `exit` says 1."""
    house = make(*actions)
    notes = house.folder / "notes"
    command = [sys.executable, str(TARGETS / "run_by_us.py"), str(house.path / "app.conf"), str(notes)]
    house.config["target"] = {"kind": "exec", "command": command, "verify": {"alive": True, "within": "300ms"}}
    house.start()
    eventually(lambda: "started one" in notes.read_text(), what="the start of the program")
    eventually(house.sidecar.settled, what="its confirmation")
    house.mounted.path.rename(away(house))

    assert left(house.sidecar) == status
    assert notes.read_text().splitlines()[-1] == "asked SIGTERM"
    assert house.reads() == (None if "withdraw" in actions else "one")


def test_exit_leaves_when_nothing_came_within_the_grace(make: MakeHouse) -> None:
    """Not before, and again at each start; with something to publish it stays."""
    house = make("not_ready", "exit")
    house.fail(startup_grace="2s")
    house.mounted.path.rename(away(house))
    house.start()
    house.sees(Moment("at the start, nothing is published yet, within `startup_grace`", ("source site",)))
    assert left(house.sidecar) == 1
    assert "nothing good was ever published" in house.sidecar.log()

    heal(house)
    house.begin()
    house.sees(Moment("all is well", volume="healed"))


def test_a_target_is_neither_stopped_nor_anything_withdrawn_where_nothing_was_ever_published(make: MakeHouse) -> None:
    house = make("not_ready", "withdraw", "stop_target")
    house.fail(startup_grace="1s")
    house.mounted.path.rename(away(house))
    house.application.start()
    house.start()
    house.sees(Moment("the same, `startup_grace` is over", ("nothing good was ever published",), target="nothing"))
    does(house, "not_ready")
    heal(house)
    well(house)
    assert house.application.taken() == ["started nothing", "signalled healed"]


def test_closed_and_withdrawn_is_so_after_a_restart_until_something_good_comes(make: MakeHouse) -> None:
    """A target that starts on the empty volume meanwhile gets what comes."""
    house = make("not_ready", "withdraw").begin()
    close(house)
    eventually(lambda: house.reads() is None, what="the withdrawal")
    house.sidecar.stop()
    house.application.stop()
    house.start()
    house.sees(Moment(WITHDRAWN, ("withdrawn until something good is there",), started=False))
    does(house, "not_ready", "withdraw")
    house.application.start()
    house.sees(Moment(WITHDRAWN, target="nothing", started=False))

    heal(house)
    well(house)
    assert house.application.taken()[-2:] == ["started nothing", "signalled healed"]


def test_it_is_published_before_it_is_ready_again(make: MakeHouse) -> None:
    """While the source is back and nothing can be written, it stays closed, and targets are stopped."""
    house = make("not_ready", "withdraw", "stop_target")
    house.faulty()
    house.begin()
    close(house)
    eventually(lambda: not house.application.running and house.reads() is None, what="the end of the target")
    house.control(WRITES_FAIL)
    heal(house)
    house.sees(Moment(WITHDRAWN, ("withdrawn until something good is there", "the disk failed")))
    house.application.start()
    eventually(lambda: not house.application.running, what="its end")
    house.control()
    eventually(house.sidecar.ready, what="readiness")
    assert house.reads() == "healed"
    house.application.start()
    well(house)


def test_an_empty_list_does_nothing_and_tells(make: MakeHouse) -> None:
    house = make().begin()
    close(house)
    state = eventually(lambda: house.sidecar.pipeline("app"), what="a status")
    assert (state["ready"], state["degraded"], state["closed"], state["closed_by"]) == (True, True, True, [])
    assert house.sidecar.ready()
    assert "source site is not current" in house.sidecar.get("/readyz").text
    assert house.reads() == house.application.runs_on() == "one"
    heal(house)
    well(house)


def test_what_is_withdrawn_is_not_ready_though_nobody_asked_for_that(make: MakeHouse) -> None:
    """There is nothing that may be relied on."""
    house = make("withdraw").begin()
    close(house)
    house.sees(Moment(WITHDRAWN, ("withdrawn until something good is there",), target="one"))
    does(house, "withdraw")
    heal(house)
    well(house)


@pytest.mark.parametrize(
    ("mode", "own", "closes"), [("open", "closed", True), ("closed", "open", False)], ids=["closed in open", "open in closed"]
)
def test_a_source_has_a_mode_and_a_limit_of_its_own(make: MakeHouse, mode: str, own: str, closes: bool) -> None:
    house = make("not_ready", mode=mode)
    house.fail(max_staleness="10m")
    other = house.folder / "other"
    other.mkdir()
    (other / "text").write_text("x")
    house.config["sources"]["other"] = {"kind": "files", "path": str(other), "on_failure": own, "max_staleness": "1s"}
    house.config["volume"]["files"]["app.conf"]["content"] = "{{ site.text }} {{ other.text }}"
    house.begin()
    house.mounted.path.rename(away(house))
    house.source_fails(str(house.mounted.path))
    house.sees(Moment("a source cannot be read or is refused, its value younger than `max_staleness`", volume="one x"))
    other.rename(house.folder / "gone")
    house.mode = own
    house.sees(Moment(CLOSED, ("source other is not current (stale for more than 1 s)",), volume="one x"))
    assert (house.sidecar.metric("reloader_closed") == 1) == closes

    (house.folder / "gone").rename(other)
    heal(house)
    eventually(lambda: house.reads() == "healed x", what="the newest content")
    well(house, "healed x")


@contextmanager
def beside(house: House) -> Iterator[Sidecar]:
    """Run another pipeline in the same process, whose source is well."""
    folder = house.folder / "beside"
    folder.mkdir()
    (folder / "text").write_text("fine")
    config = {
        "sources": {"site": {"kind": "files", "path": str(folder)}},
        "volume": {"path": str(house.folder / "beside-live"), "files": {"app.conf": {"content": "{{ site.text }}"}}},
        "target": {"kind": "none"},
        "failure": {"mode": "closed"},
    }
    file = house.folder / "beside.yaml"
    file.write_text(yaml.safe_dump(config))
    house.write()
    sidecar = Sidecar(house.folder / "both", house.file, file)
    sidecar.start()
    try:
        yield sidecar
    finally:
        sidecar.stop()


def test_a_pipeline_that_closes_leaves_the_other_one_alone(make: MakeHouse) -> None:
    """A Pod asks for one of them at `/readyz/NAME`."""
    house = make("not_ready", "withdraw")

    def answers() -> list[bool]:
        return [sidecar.get(path).ok for path in ("/readyz", "/readyz/app", "/readyz/beside", "/startupz", "/healthz")]

    with beside(house) as sidecar:
        eventually(lambda: answers() == [True] * 5, what="both to be ready")
        house.mounted.path.rename(away(house))
        eventually(lambda: house.reads() is None, what="the withdrawal")
        eventually(lambda: answers() == [False, False, True, True, True], what="one to be ready")
        assert [sidecar.metric("reloader_closed", pipeline=name) for name in ("app", "beside")] == [1, 0]
        assert (house.folder / "beside-live" / "app.conf").read_text() == "fine"
        heal(house)
        eventually(lambda: answers() == [True] * 5, what="both to be ready")


def test_on_a_full_volume_what_is_deleted_first_makes_room_for_the_withdrawal(make: MakeHouse, mounts: Mounts) -> None:
    house = make("not_ready", "withdraw", mounts=mounts).begin()
    house.say("two")
    well(house, "two")
    fill(house.live / "filler")
    close(house)
    house.sees(Moment(WITHDRAWN, ("withdrawn until something good is there",), target="two"))
    (house.live / "filler").unlink()
    heal(house)
    well(house)


def test_on_a_read_only_volume_nothing_after_the_withdrawal_is_done_before_it(make: MakeHouse, mounts: Mounts) -> None:
    """It is not ready at once; and the rest follows as soon as the volume can be written."""
    house = make(*ALL, mounts=mounts).begin()
    with read_only(mounts, house.path):
        close(house)
        house.sees(Moment(CLOSED, ("source site is not current", "the volume is read-only"), volume="one"))
        does(house, "not_ready")
        assert house.application.running

    eventually(lambda: house.reads() is None, what="the withdrawal")
    assert left(house.sidecar) == 1
    assert house.application.status == -signal.SIGTERM


@needs_long
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_what_cannot_be_withdrawn_holds_up_the_next_actions_for_a_while_only(make: MakeHouse, mounts: Mounts, how: str) -> None:
    house = make(*ALL, mounts=mounts).begin()
    if how == "full":
        fill(house.live / "filler")
    else:
        make_read_only(mounts, house.path)
    close(house)
    does(house, "not_ready")
    assert house.application.running
    eventually(lambda: not house.application.running, within=LIMIT + 15, what="the end of the target")
    assert house.application.status == -signal.SIGTERM
    assert left(house.sidecar) == 1
    assert house.reads() == "one"


@pytest.mark.parametrize(
    ("mode", "own", "fallback", "status", "text"),
    [
        ("open", None, True, 0, "fallback"),
        ("open", None, False, 1, None),
        ("closed", None, True, 1, None),
        ("open", "closed", True, 1, None),
        ("closed", "open", False, 1, None),
        ("closed", "open", True, 0, "fallback"),
    ],
    ids=[
        "open with a fallback",
        "open without",
        "closed with one",
        "a closed source with a fallback",
        "an open source",
        "an open source with one",
    ],
)
def test_once_without_data(make: MakeHouse, mode: str, own: str | None, fallback: bool, status: int, text: str | None) -> None:
    """It waits for the grace, and then publishes the fallback or nothing."""
    house = make(mode=mode)
    house.fail(startup_grace="500ms")
    if own:
        house.config["sources"]["site"]["on_failure"] = own
    if fallback:
        house.have_fallback()
    house.mounted.path.rename(away(house))
    house.write()
    done = reloader("once", house.file)
    assert (done.returncode, house.reads()) == (status, text), done.stderr
    assert "source site" in done.stderr

    heal(house)
    assert reloader("once", house.file).returncode == 0
    assert house.reads() == "healed"


def test_what_is_withdrawn_is_remembered_as_closed(make: MakeHouse) -> None:
    """So the record tells a later run, and whoever looks at the volume."""
    house = make("not_ready", "withdraw").begin()
    assert not house.record()["closed"]
    close(house)
    eventually(lambda: house.reads() is None, what="the withdrawal")
    eventually(lambda: house.record()["closed"], what="the record")
    assert house.record()["withdrawn"] == int(house.linked()[2:])
