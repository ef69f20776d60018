"""One volume in the hands of one process: staging, publishing, remembering, sweeping."""

import dataclasses
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reloader.plan import Volume as Plan
from reloader.volume import Volume, VolumeError, VolumeLocked
from reloader.volume.wish import NotPossible, chosen
from reloader.world import World
from reloader.world.clock import Clock
from tests import volumes
from tests.servers.certificates import Authority
from tests.volumes import NEW, OLD, make, publish, rendered, seen, strangers

ME = {"pid": 1, "started": 2.5, "boot": "b"}


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """An open volume on a directory that is not there yet."""
    volume = make(tmp_path / "volume")
    volume.open()
    return volume


def reopened(volume: Volume, **world: object) -> Volume:
    """Return the volume as the next run finds it."""
    volume.close()
    plan = Plan(path=str(volume.path), keep=3)
    again = Volume(plan, dataclasses.replace(World(), **world))
    again.open()
    return again


class Boot(Clock):
    """A clock of another boot, or one that was stepped."""

    def __init__(self, boot: str | None = None, *, now: float = 0.0, wall: float = 0.0) -> None:
        self._boot, self._now, self._wall = boot, now, wall

    def boot(self) -> str:
        return self._boot or super().boot()

    def now(self) -> float:
        return super().now() + self._now

    def wall(self) -> float:
        return super().wall() + self._wall


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_nothing_is_published_at_first(volume: Volume) -> None:
    assert volume.published is None
    assert volume.next_number() == 1
    assert volume.published_files() == {}
    assert volume.last_confirmed is None


def test_a_published_set_is_seen_whole_under_its_names(volume: Volume) -> None:
    before = volumes.os_time()
    number = publish(volume, OLD)

    assert seen(volume.path) == OLD == volume.published_files()
    assert strangers(volume.path, volume) == set()
    assert volume.published is not None
    assert volume.published.number == number
    assert before < volume.published.at < volumes.os_time()
    assert abs(volume.published.wall - time.time()) < 60


def test_files_that_leave_lose_their_names_and_new_ones_get_theirs(volume: Volume) -> None:
    publish(volume, OLD)
    publish(volume, NEW)

    assert seen(volume.path) == NEW
    assert not (volume.path / "gone.conf").is_symlink()
    assert (volume.path / "added").readlink() == Path("..data/added")
    assert strangers(volume.path, volume) == set()


def test_a_staged_set_is_not_seen_and_can_be_discarded(volume: Volume) -> None:
    publish(volume, OLD)
    root = volume.stage(2, rendered(NEW), "x")

    assert root == volume.directory(2) == volume.path / "..2"
    assert (root / "conf.d/more.conf").read_bytes() == b"new more"
    assert seen(volume.path) == OLD
    volume.discard(2)
    assert not root.exists()
    assert volume.next_number() == 3


def test_what_is_published_cannot_be_discarded(volume: Volume) -> None:
    volume.discard(publish(volume, OLD))

    assert seen(volume.path) == OLD


def test_the_target_may_see_the_volume_elsewhere(tmp_path: Path) -> None:
    """Links are relative, so that another path shows the same set."""
    volume = Volume(Plan(path=str(tmp_path / "here"), target_path="/etc/nginx/live"), World())
    volume.open()
    publish(volume, OLD)
    (tmp_path / "here").rename(tmp_path / "there")

    assert volume.target_directory(3) == "/etc/nginx/live/..3"
    assert seen(tmp_path / "there") == OLD


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_are_exact_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        volume = make(tmp_path / "volume", dir_mode=0o751)
        volume.open()
        publish(volume, OLD, mode=0o604)
    finally:
        os.umask(before)

    assert mode(volume.path / "..1") == mode(volume.path / "..1/conf.d/deep") == 0o751
    assert mode(volume.path / "..1/conf.d/deep/er.conf") == 0o604
    assert mode(volume.path / "..reloader") == 0o700
    assert {mode(path) for path in (volume.path / "..reloader").iterdir()} == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to another group needs root")
@pytest.mark.parametrize("bits", [0o2770, 0o770])
def test_group_and_setgid_of_the_volume_are_kept(bits: int, tmp_path: Path) -> None:
    """With setgid as fsGroup makes it; without, by giving the group."""
    os.chown(tmp_path, -1, 4242)
    tmp_path.chmod(bits)
    volume = make(tmp_path)
    volume.open()
    publish(volume, OLD)

    for path in (tmp_path / "..1", tmp_path / "..1/conf.d/deep", tmp_path / "..1/conf.d/deep/er.conf"):
        assert path.stat().st_gid == 4242
    assert mode(tmp_path / "..1/conf.d") == 0o750 | bits & 0o2000


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_owners_are_set_by_name_or_number(volume: Volume) -> None:
    publish(volume, OLD, owner="nobody", group="4343")
    status = (volume.path / "app.conf").stat()

    assert status.st_uid == 65534
    assert status.st_gid == 4343


def test_an_owner_that_is_unknown_is_refused_with_the_mend(volume: Volume) -> None:
    with pytest.raises(VolumeError, match=r"app.conf: owner 'nosuchuser' is unknown in this container: write its number"):
        volume.stage(1, rendered({"app.conf": b""}, owner="nosuchuser"), "x")

    assert not volume.directory(1).exists()


@pytest.mark.parametrize("name", ["../x", "a/../x", "/x", "a//b", "..x", "a/.", "", "a\0b"])
def test_a_name_that_leaves_the_set_is_refused(name: str, volume: Volume) -> None:
    with pytest.raises(VolumeError):
        volume.stage(1, rendered({name: b""}), "x")

    assert not volume.directory(1).exists()


def test_a_file_that_is_also_a_folder_is_refused(volume: Volume) -> None:
    with pytest.raises(VolumeError, match="a file and a folder at once"):
        volume.stage(1, rendered({"a": b"", "a/b": b""}), "x")


def test_fingerprints_tell_sets_apart_and_are_keyed(volume: Volume, tmp_path: Path) -> None:
    other = make(tmp_path / "other")
    other.open()
    sets = [
        rendered(OLD),
        rendered(NEW),
        rendered(OLD, mode=0o600),
        rendered(OLD, group="1"),
        rendered({"a": b"bc"}),
        rendered({"ab": b"c"}),
        {},
    ]

    assert len({volume.fingerprint(files) for files in sets}) == len(sets)
    assert volume.fingerprint(rendered(OLD)) == volume.fingerprint(dict(reversed(rendered(OLD).items())))
    assert volume.fingerprint(rendered(OLD)) != other.fingerprint(rendered(OLD))
    assert reopened(volume).fingerprint({}) != other.fingerprint({})


def test_the_next_run_knows_what_is_published_and_confirmed(volume: Volume) -> None:
    number = publish(volume, OLD)
    volume.confirm(number, [ME])
    volume.remember(dataclasses.replace(volume.record, ages={"routes": 5.0}, current={"routes": 2.0}))
    published = volume.published
    again = reopened(volume)

    assert again.published == published
    assert again.fingerprint(rendered(OLD)) == published.fingerprint
    assert again.confirmed_by(number, ME)
    assert not again.confirmed_by(number, {**ME, "pid": 2})
    assert not again.confirmed_by(number + 1, ME)
    assert again.last_confirmed == number
    assert (again.record.ages, again.record.current) == ({"routes": 5.0}, {"routes": 2.0})


def test_an_unchanged_record_is_not_written_again(volume: Volume) -> None:
    volume.confirm(publish(volume, OLD), [ME])
    before = (volume.path / "..reloader/record.json").stat().st_ino
    volume.confirm(1, [ME])

    assert (volume.path / "..reloader/record.json").stat().st_ino == before


def test_another_boot_publishes_at_its_start_and_confirms_nobody_of_it(volume: Volume) -> None:
    """Every process of this boot started after the publish: to be verified, not signalled."""
    publish(volume, OLD)
    again = reopened(volume, clock=Boot("another"))

    assert again.published is not None
    assert again.published.at == 0.0
    assert again.published.fingerprint == again.fingerprint(rendered(OLD))


def test_a_time_that_a_crash_lost_is_the_time_of_discovery(volume: Volume) -> None:
    publish(volume, OLD)
    volume.stage(2, rendered(NEW), volume.fingerprint(rendered(NEW)))
    (volume.path / "link").symlink_to("..2")
    (volume.path / "link").rename(volume.path / "..data")
    discovered = volumes.os_time()
    again = reopened(volume)

    assert again.published is not None
    assert again.published.number == 2
    assert again.published.at > discovered
    assert again.published.fingerprint == again.fingerprint(rendered(NEW))
    assert seen(volume.path) == NEW


def test_an_older_set_that_is_put_back_has_a_new_time(volume: Volume) -> None:
    """A crash after the rename of a rollback: the time of its first publish would hide the reload that is due."""
    publish(volume, OLD)
    publish(volume, NEW)
    volume.close()
    moved = volumes.os_time()
    (volume.path / "link").symlink_to("..1")
    (volume.path / "link").rename(volume.path / "..data")
    again = reopened(volume)

    assert again.published is not None
    assert again.published.number == 1
    assert again.published.at > moved


def test_a_wall_clock_that_was_stepped_back_changes_nothing(volume: Volume) -> None:
    publish(volume, OLD)
    published = volume.published
    again = reopened(volume, clock=Boot(wall=-3600.0))

    assert again.published == published
    publish(again, NEW)
    assert again.published.at > published.at
    assert seen(volume.path) == NEW


def test_a_time_that_is_still_to_come_is_not_believed(volume: Volume) -> None:
    """As in another time namespace: too late would call every target older than the publish, for ever."""
    publish(volume, OLD)
    again = reopened(volume, clock=Boot(now=-3600.0))

    assert again.published is not None
    assert again.published.at <= volumes.os_time() - 3500


@pytest.mark.parametrize("text", ["", "{", json.dumps({"version": 99}), "\0\0"])
def test_a_damaged_record_is_set_aside_and_what_is_published_stays(text: str, volume: Volume) -> None:
    publish(volume, OLD)
    publish(volume, NEW)
    volume.note_record(volume.record)
    (volume.path / "..reloader/record.json").write_text(text)
    discovered = volumes.os_time()
    again = reopened(volume)

    assert seen(volume.path) == NEW
    assert again.published is not None
    assert again.published.at > discovered
    assert again.published.fingerprint == ""
    assert again.next_number() == 3
    assert (volume.path / "..1").is_dir()  # a slow reader may be in it
    assert [path.read_text() for path in (volume.path / "..reloader").glob("record.json.damaged-*")] == [text]


def test_few_damaged_records_are_kept(volume: Volume) -> None:
    for step in range(6):
        (volume.path / "..reloader/record.json").write_text("{")
        volume = reopened(volume, clock=Boot(wall=10.0 * step))

    assert len(list((volume.path / "..reloader").glob("record.json.damaged-*"))) == 3


def test_numbers_grow_also_when_the_record_is_lost(volume: Volume) -> None:
    for contents in (OLD, NEW, OLD):
        publish(volume, contents)
    (volume.path / "..reloader/record.json").unlink()

    assert reopened(volume).next_number() == 4


def test_numbers_grow_past_what_was_swept(volume: Volume) -> None:
    volume.stage(1, rendered(OLD), "x")
    volume.discard(1)

    assert reopened(volume).next_number() == 2


def test_a_sweep_keeps_what_is_needed(tmp_path: Path) -> None:
    volume = make(tmp_path, keep=1)
    volume.open()
    for step in range(6):
        number = publish(volume, {"app.conf": b"%d" % step})
        if number == 2:
            volume.confirm(number, [ME])
    volume.sweep(volumes.os_time())
    assert {path.name for path in tmp_path.glob("..[0-9]")} == {"..1", "..2", "..3", "..4", "..5", "..6"}

    volume.sweep(volumes.os_time() + 61)
    assert {path.name for path in tmp_path.glob("..[0-9]")} == {"..2", "..5", "..6"}
    assert set(volume.record.generations) == {2, 5, 6}


def test_a_lock_names_its_holder(volume: Volume) -> None:
    with pytest.raises(VolumeLocked, match=rf"held by another reloader: process {os.getpid()} on \S+"):
        make(volume.path).open()

    volume.close()
    make(volume.path).open()


def test_who_does_not_have_the_lock_takes_nothing_away(volume: Volume) -> None:
    """Whatever is on a volume is its holder's, also what one's own record does not know."""
    first, second = publish(volume, OLD), publish(volume, NEW)
    other = make(volume.path)

    with pytest.raises(VolumeLocked):
        other.withdraw(closed=True)
    other.discard(first)

    assert volume.directory(first).is_dir()
    assert volume.published is not None
    assert volume.published.number == second


def test_a_volume_that_was_not_opened_yet_is_withdrawn_by_what_it_remembers(volume: Volume) -> None:
    publish(volume, OLD)
    volume.close()
    other = make(volume.path)
    other.withdraw(closed=True)

    assert other.published is None
    assert other.record.closed
    assert seen(volume.path) == {}


def test_a_lock_is_free_at_once_whoever_has_a_copy_of_its_descriptor(volume: Volume) -> None:
    """A child that is just being started has one, until it executes its program."""
    copies = [os.dup(int(each.name)) for each in Path("/proc/self/fd").iterdir() if str(each.resolve()).endswith("/..reloader/lock")]
    assert copies
    try:
        volume.close()
        volume.open()
    finally:
        for copy in copies:
            os.close(copy)


def test_a_holder_that_is_killed_frees_the_lock(tmp_path: Path) -> None:
    script = "volume = make(Path(sys.argv[1])); volume.open(); print('held', flush=True); signal.pause()"
    imports = "import sys, signal; from pathlib import Path; from tests.volumes import make"
    holder = subprocess.Popen([sys.executable, "-c", f"{imports}\n{script}", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(VolumeLocked, match=f"process {holder.pid} on"):
            make(tmp_path).open()
    finally:
        holder.kill()
        holder.communicate()

    make(tmp_path).open()


def test_the_published_files_are_read_without_the_lock(volume: Volume) -> None:
    publish(volume, OLD)

    assert make(volume.path).published_files() == OLD


def test_a_link_that_is_moved_by_hand_is_the_truth(volume: Volume) -> None:
    publish(volume, OLD)
    publish(volume, NEW)
    moved = volumes.os_time()
    (volume.path / "link").symlink_to("..1")
    (volume.path / "link").rename(volume.path / "..data")

    assert volume.published is not None
    assert volume.published.number == 1
    assert volume.published.at > moved
    assert volume.published.fingerprint == volume.fingerprint(rendered(OLD))


class TestExpired:
    """What a certificate in a set, or a lease behind it, means for going back to it."""

    def confirmed(self, volume: Volume, certificate: bytes, expires: float | None = None) -> int:
        files = rendered({"app.conf": b"plain", "tls.crt": certificate})
        number = volume.next_number()
        volume.stage(number, files, volume.fingerprint(files), expires)
        volume.publish(number)
        volume.confirm(number, [ME])
        return number

    @pytest.mark.parametrize(("days", "lasts"), [(1, True), (-1, False)])
    def test_a_set_whose_certificate_has_ended_is_published_and_never_gone_back_to(self, volume, tmp_path, days, lasts):
        """Nor by hand; also after a restart."""
        certificate = Authority(tmp_path / "authority").issue("web", days=days)[0].read_bytes()
        number = self.confirmed(volume, certificate)
        publish(volume, NEW)

        for each in (volume, reopened(volume)):
            assert each.rollback_target() == (number if lasts else None)
            if lasts:
                assert chosen(each.record, None, 2, time.time(), lambda _number: True) == number
            else:
                with pytest.raises(NotPossible, match="no earlier generation"):
                    chosen(each.record, None, 2, time.time(), lambda _number: True)

    @pytest.mark.parametrize(("seconds", "lasts"), [(60.0, True), (-1.0, False)])
    def test_neither_is_one_whose_lease_is_over(self, volume, seconds, lasts):
        number = self.confirmed(volume, b"no certificate", time.time() + seconds)
        assert volume.rollback_target() == (number if lasts else None)


def test_the_empty_set_of_a_withdrawal_is_nothing_to_go_back_to(volume: Volume) -> None:
    """Neither while it is all that there is, nor beside later ones; readers would see nothing, and a person be told of a set."""
    publish(volume, OLD)
    volume.withdraw(closed=True)
    empty = volume.record.withdrawn
    with pytest.raises(NotPossible, match=f"there is no generation {empty}; there is none"):
        chosen(volume.record, empty, None, time.time(), lambda _number: True)

    number = publish(volume, NEW)
    with pytest.raises(NotPossible, match=f"there is no generation {empty}; there is {number} "):
        chosen(volume.record, empty, number, time.time(), lambda _number: True)
