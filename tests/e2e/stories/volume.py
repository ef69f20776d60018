"""The volume, or its record, cannot be written or taken."""

import os

from tests.e2e.failing import House, Moment, fill, read_only
from tests.e2e.scenes import NOT_TAKEN, UNWRITABLE, Cases, Scene, Story, without_rights

CASES = Cases()


def unwritable(house: House, *told: str, volume: str | None = "one", target: str = "one") -> Story:
    """Have the source say something new that cannot be published, or not wholly."""
    house.say("two")
    yield Moment(UNWRITABLE, ("volume: ", *told), volume=volume, target=target)
    yield Moment(UNWRITABLE, ("volume: ", *told), volume=volume, target=target, lasts=True)


@CASES.case(UNWRITABLE)
def the_volume_is_full(scene: Scene) -> Story:
    scene.tmpfs()
    house = scene.house
    house.fail(max_staleness="3s")
    house.begin()
    fill(house.live / "filler")
    yield from unwritable(house, "the volume is full")
    (house.live / "filler").unlink()


@CASES.case(UNWRITABLE, varies=True)
def the_volume_becomes_read_only(scene: Scene) -> Story:
    mounts = scene.tmpfs()
    house = scene.house
    house.fail(max_staleness="3s")
    house.begin()
    with read_only(mounts, house.path):
        yield from unwritable(house, "the volume is read-only")


@CASES.case(UNWRITABLE, varies=True)
def the_disk_fails(scene: Scene) -> Story:
    house = scene.house
    house.faulty()
    house.fail(max_staleness="3s")
    house.begin()
    house.control({"calls": ["write_file"], "path": str(house.path), "error": "EIO"})
    yield from unwritable(house, "the disk failed")
    house.control()


@CASES.case(UNWRITABLE, varies=True)
def the_record_alone_cannot_be_written(scene: Scene) -> Story:
    """The set is published and confirmed, and a restart would not know of it."""
    house = scene.house
    house.faulty()
    house.fail(max_staleness="3s")
    house.begin()
    house.control({"calls": ["write_file"], "path": r"/record\.json", "error": "ENOSPC", "skip": 1})
    yield from unwritable(house, "record.json", "the volume is full", volume="two", target="two")
    house.control()


@CASES.case(UNWRITABLE)
def the_volume_is_replaced_by_a_file(scene: Scene) -> Story:
    house = scene.house
    house.fail(max_staleness="3s")
    house.begin()
    house.path.rename(scene.folder / "away")
    house.path.touch()
    yield from unwritable(house, str(house.path), volume=None)
    house.path.unlink()


@CASES.case(UNWRITABLE, varies=True)
def something_foreign_is_in_the_way(scene: Scene) -> Story:
    house = scene.house
    house.fail(max_staleness="3s")
    house.begin()
    (house.path / "..data_tmp").mkdir()
    yield from unwritable(house, "..data_tmp", "something of another program is in the way")
    (house.path / "..data_tmp").rmdir()


def not_taken(house: House, *told: str) -> Story:
    """Start on a set of an earlier run that cannot be taken over."""
    house.config["timing"]["resync"] = "1s"
    house.fail(max_staleness="3s")
    house.start()
    yield Moment(NOT_TAKEN, ("volume: ", *told), volume="one", started=False)
    yield Moment(NOT_TAKEN, ("volume: ", *told), volume="one", lasts=True, started=False)


@CASES.case(NOT_TAKEN, varies=True)
def the_volume_is_read_only_at_the_start(scene: Scene) -> Story:
    mounts = scene.tmpfs()
    house = scene.house
    house.begin().sidecar.stop()
    with read_only(mounts, house.path):
        yield from not_taken(house, "the volume is read-only")


@CASES.case(NOT_TAKEN, varies=True)
def the_record_is_of_another_user(scene: Scene) -> Story:
    house = scene.house
    without_rights(house)
    house.begin().sidecar.stop()
    home = house.path / "..reloader"
    os.chown(home, 1234, 1234)
    yield from not_taken(house, "..reloader was made by uid 1234", "runAsUser")
    os.chown(home, 0, 0)
