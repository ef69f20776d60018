"""A volume that is written in place, failed and killed at every call of the disk: what is begun is finished or taken back, and known."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from reloader.volume import Volume, VolumeError
from tests import volumes
from tests.volumes import ERRORS, NAMES, NEW, OLD, failing, make, publish, rendered, seen, strangers

ROOT = Path(__file__).parents[2]
TOPS = {name.partition("/")[0] for name in NAMES}


def in_place(path: Path, disk=None, **more) -> Volume:
    return make(path, disk, in_place=True, **more)


def whole(path: Path) -> dict[str, bytes]:
    """Return what readers see; a file that left is empty, and stays the same file for when it comes back."""
    return {name: data for name, data in seen(path).items() if data}


def prepare(path: Path) -> None:
    volume = in_place(path)
    volumes.cycle(volume, OLD)
    volume.close()


def recorded(path: Path) -> list[str]:
    """Return the calls of an update that nothing disturbs."""
    prepare(path)
    names: list[str] = []
    volumes.cycle(in_place(path, volumes.recording(names), keep=0), NEW)
    return names


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """A volume with the old set in place."""
    prepare(tmp_path)
    volume = in_place(tmp_path)
    volume.open()
    return volume


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_an_error_at_any_call_is_taken_back_and_a_retry_works(number: int, after: bool, tmp_path: Path) -> None:
    """One error leaves no mix, because what was published is written back."""
    prepare(tmp_path / "template")
    names = recorded(tmp_path / "recorded")
    assert {"overwrite_file", "write_file"} <= set(names)
    for at, name in enumerate(names):
        path = tmp_path / f"{at}-{name}"
        shutil.copytree(tmp_path / "template", path, symlinks=True)
        volume = in_place(path, failing(at, number, after=after), keep=0)
        try:
            volumes.cycle(volume, NEW)
        except VolumeError as error:
            assert str(path) in str(error)  # noqa: PT017 - not every call fails the cycle
        assert whole(path) in (OLD, NEW)
        volume.open()
        assert volume.published is not None
        assert volume.published.fingerprint == volume.fingerprint(rendered(whole(path)))

        volumes.cycle(volume, NEW)
        assert whole(path) == NEW
        assert volume.unsaved is None
        assert strangers(path, volume) <= TOPS
        volume.close()


@pytest.mark.parametrize("when", ["before", "after", "amid"])
@pytest.mark.parametrize("before", [{}, OLD], ids=["first", "update"])
def test_after_a_kill_at_any_call_the_next_run_finishes_it(before: Mapping[str, bytes], when: str, tmp_path: Path) -> None:
    """Readers may have met a mix until then; afterwards they see one whole set, published after the last write."""
    if before:
        prepare(tmp_path / "template")
    names = recorded(tmp_path / "recorded") if before else first(tmp_path / "recorded")
    for at, name in enumerate(names):
        if when == "amid" and name not in volumes.AMID:
            continue
        path = tmp_path / f"{at}-{name}"
        if before:
            shutil.copytree(tmp_path / "template", path, symlinks=True)
        spawned = volumes.os_time()
        kill(path, at, when)
        mixed = whole(path) not in (before, NEW)
        killed = volumes.os_time()

        found = in_place(path, keep=0)
        found.open()
        assert whole(path) in (before, NEW)
        assert strangers(path, found) <= TOPS
        published = found.published
        if whole(path):
            assert published is not None
            assert published.fingerprint == found.fingerprint(rendered(whole(path)))
            assert published.at > spawned or (whole(path) == OLD and not mixed)
            assert not mixed or published.at > killed
        volumes.cycle(found, {**NEW, "app.conf": b"following"})
        assert whole(path) == {**NEW, "app.conf": b"following"}
        found.close()


def first(path: Path) -> list[str]:
    """Return the calls of a first publish."""
    names: list[str] = []
    volumes.cycle(in_place(path, volumes.recording(names), keep=0), NEW)
    return names


def kill(path: Path, at: int, when: str) -> None:
    """Run a cycle in a process of its own that is killed at that call."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.volumes"])
    child = context.Process(target=volumes.cycle_until_killed, args=(str(path), NEW, at, when), kwargs={"in_place": True})
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL


def test_a_volume_that_fails_for_long_is_torn_and_equals_no_content(tmp_path: Path) -> None:
    """So the set that it should have is written again, though its fingerprint is the published one's; nothing piles up meanwhile."""
    prepare(tmp_path)
    broken = False

    def hook(_index: int, name: str, run, args):
        if broken and name == "overwrite_file":
            args[0].write_bytes(b"half")
            raise OSError(errno.EIO, "x", str(args[0]))
        return run()

    volume = in_place(tmp_path, volumes.hooked(hook))
    volume.open()
    broken = True
    for _ in range(3):
        with pytest.raises(VolumeError, match="the disk failed"):
            publish(volume, NEW)
        volume.discard(volume.record.last)
    assert volume.published is not None
    assert (volume.published.number, volume.published.fingerprint) == (1, "")

    broken = False
    publish(volume, OLD)
    assert whole(tmp_path) == OLD
    assert volume.published.fingerprint == volume.fingerprint(rendered(OLD))
    assert strangers(tmp_path, volume) <= TOPS


def test_a_file_stays_the_same_one_with_its_mode(volume: Volume) -> None:
    """A single mount shows the inode, whatever happens to the name."""
    file = volume.path / "app.conf"
    file.chmod(0o604)
    inode = file.stat().st_ino
    with file.open("rb") as mounted:
        publish(volume, NEW)
        assert mounted.read() == NEW["app.conf"]
        publish(volume, {**NEW, "app.conf": b"x"})
        assert os.pread(mounted.fileno(), 100, 0) == b"x"

    assert (file.stat().st_ino, file.stat().st_mode & 0o777) == (inode, 0o604)


def test_a_configured_mode_is_set(volume: Volume) -> None:
    volume._plan.files["app.conf"].__dict__["mode"] = 0o600
    publish(volume, NEW, mode=0o600)

    assert (volume.path / "app.conf").stat().st_mode & 0o777 == 0o600
    assert (volume.path / "conf.d/site.conf").stat().st_mode & 0o777 == 0o640


def test_a_file_that_left_is_emptied_and_removed_unless_it_is_still_configured(volume: Volume) -> None:
    """Through a mount of it, the old content would be seen for ever; and were it removed, the mount would never see the new one."""
    publish(volume, {**NEW, "foreign": b"x"})
    publish(volume, {**NEW})
    assert not (volume.path / "foreign").exists()
    assert (volume.path / "gone.conf").read_bytes() == b""
    inode = (volume.path / "app.conf").stat().st_ino
    volume.withdraw()
    assert whole(volume.path) == {}
    assert volume.published is None

    publish(volume, OLD)
    assert whole(volume.path) == OLD
    assert (volume.path / "app.conf").stat().st_ino == inode


def test_the_last_confirmed_set_is_put_back(volume: Volume) -> None:
    publish(volume, NEW)
    target = volume.rollback_target()
    assert target == 1
    volume.publish(target)

    assert whole(volume.path) == OLD
    assert volume.published is not None
    assert volume.published.number == 1


def test_what_a_hand_changed_is_written_again_at_the_next_start(volume: Volume) -> None:
    """Nobody is known to run on it then."""
    volume.close()
    assert volume.confirmed_by(1, {"pid": 1, "started": 2.5, "boot": "b"})
    began = volumes.os_time()
    (volume.path / "app.conf").write_text("by hand")
    volume.open()

    assert whole(volume.path) == OLD
    assert volume.published is not None
    assert volume.published.at > began
    assert not volume.confirmed_by(1, {"pid": 1, "started": 2.5, "boot": "b"})


def test_a_volume_with_links_becomes_one_in_place(tmp_path: Path) -> None:
    """The links of an earlier run are ours to remove."""
    linked = make(tmp_path)
    volumes.cycle(linked, OLD)
    linked.close()
    volume = in_place(tmp_path)
    volume.open()

    assert whole(tmp_path) == OLD
    assert not any((tmp_path / name).is_symlink() for name in TOPS)


@pytest.mark.parametrize("name", ["app.conf", "conf.d"])
def test_a_link_that_points_elsewhere_is_never_written_through(name: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = tmp_path / "volume"
    path.mkdir()
    (path / name).symlink_to(elsewhere)
    volume = in_place(path)
    volume.open()
    with pytest.raises(VolumeError, match=f"{name} is in the way"):
        publish(volume, OLD)

    assert list(elsewhere.iterdir()) == []


def test_generation_is_the_volume(tmp_path: Path) -> None:
    assert in_place(tmp_path).target_directory(7) == str(tmp_path)
    assert in_place(tmp_path, target_path="/etc/app").target_directory(7) == "/etc/app"


def test_what_it_costs_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume = in_place(tmp_path)
    volume.open()
    publish(volume, OLD)

    assert [each.message for each in caplog.records] == ["written in place"]
    assert "not atomic" in caplog.records[0].fields["reason"]


SINGLE_MOUNT = """
import json, subprocess, sys
from pathlib import Path
from tests.volumes import *
path, elsewhere = Path(sys.argv[1]) / "volume", Path(sys.argv[1]) / "mounted"
path.mkdir(), (path / "app.conf").write_text("before"), (path / "extra").write_text("before"), elsewhere.mkdir()
for name in ("app.conf", "extra"):
    (elsewhere / name).touch()
    subprocess.run(["mount", "--bind", path / name, elsewhere / name], check=True)
subprocess.run(["mount", "--bind", path / "extra", path / "extra"], check=True)
volume = make(path, in_place=True)
volume.open()
publish(volume, {"app.conf": b"one", "extra": b"one"})
say = [(elsewhere / name).read_text() for name in ("app.conf", "extra")]
publish(volume, {"app.conf": b"two"})
print(json.dumps(say + [(elsewhere / name).read_text() for name in ("app.conf", "extra")] + [(path / "extra").exists()]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root (mounts)")
def test_files_that_are_mounted_one_by_one_show_every_set(tmp_path: Path) -> None:
    """One that left, and that is a mount of its own on the volume too, cannot be removed; it is emptied."""
    argv = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", textwrap.dedent(SINGLE_MOUNT), str(tmp_path)]
    ran = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == ["one", "one", "two", "", True]
    assert "file emptied" in ran.stderr
