"""A volume that fails, fills up, is replaced, or is shared with others: what is published stays whole, and a retry works."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from reloader.volume import VolumeError, VolumeLocked, layout
from tests import volumes
from tests.volumes import ERRORS, NEW, OLD, failing, make, publish, rendered, seen, strangers
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (mounts, other users)")


def prepare(path: Path) -> None:
    """Publish the old set."""
    volume = make(path)
    volumes.cycle(volume, OLD)
    volume.close()


def recorded(path: Path) -> list[str]:
    """Return the calls of an update that nothing disturbs."""
    prepare(path)
    names: list[str] = []
    volumes.cycle(make(path, volumes.recording(names), keep=0), NEW)
    return names


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_an_error_at_any_call_leaves_one_whole_set_and_a_retry_works(number: int, after: bool, tmp_path: Path) -> None:
    """Before and after the call did its work; `published` tells the truth at once, and the same object goes on."""
    prepare(tmp_path / "template")
    for at, name in enumerate(recorded(tmp_path / "recorded")):
        path = tmp_path / f"{at}-{name}"
        shutil.copytree(tmp_path / "template", path, symlinks=True)
        volume = make(path, failing(at, number, after=after), keep=0)
        try:
            volumes.cycle(volume, NEW)
        except VolumeError as error:
            assert str(path) in str(error)  # noqa: PT017 - not every call fails the cycle
        assert seen(path) in (OLD, NEW)
        volume.open()
        assert volume.published is not None
        assert volume.published.fingerprint == volume.fingerprint(rendered(seen(path)))
        assert volume.published.number == int(os.readlink(path / "..data").removeprefix(".."))  # noqa: PTH115

        volumes.cycle(volume, NEW)
        assert seen(path) == NEW
        assert volume.unsaved is None
        assert strangers(path, volume) == set()
        volume.close()


def test_a_publish_that_fails_after_its_rename_is_published_and_cannot_be_discarded(tmp_path: Path) -> None:
    """Its time is read after the rename, from the link."""
    prepare(tmp_path)

    def sync_fails(_index: int, name: str, run, args):
        if name == "sync_directory" and args[0] == tmp_path and (tmp_path / "..data").resolve().name == "..2":
            raise OSError(errno.EIO, "x", str(tmp_path))
        return run()

    volume = make(tmp_path, volumes.hooked(sync_fails))
    volume.open()
    began = volumes.os_time()
    with pytest.raises(VolumeError, match="the disk failed"):
        publish(volume, NEW)
    volume.discard(2)

    assert seen(tmp_path) == NEW
    assert volume.published is not None
    assert volume.published.fingerprint == volume.fingerprint(rendered(NEW))
    assert volume.published.at > began


def test_a_confirmation_that_cannot_be_written_is_kept_and_written_later(tmp_path: Path) -> None:
    """The target was asked and took it: that must not count as failed."""
    broken = False

    def hook(_index: int, name: str, run, args):
        if broken and name == "write_file":
            raise OSError(errno.ENOSPC, "x", str(args[0]))
        return run()

    volume = make(tmp_path, volumes.hooked(hook))
    volume.open()
    number = publish(volume, OLD)
    broken = True
    volume.confirm(number, [{"pid": 1}])
    assert volume.confirmed_by(number, {"pid": 1})
    assert "the volume is full" in (volume.unsaved or "")
    with pytest.raises(VolumeError, match="the volume is full"):
        volume.remember(dataclasses.replace(volume.record, ages={"routes": 5.0}))

    broken = False
    volume.remember(dataclasses.replace(volume.record, ages={"routes": 5.0}))
    assert volume.unsaved is None
    volume.close()
    volume.open()
    assert volume.confirmed_by(number, {"pid": 1})


def test_a_withdrawal_that_failed_hides_no_later_set(tmp_path: Path) -> None:
    """Also where that set gets the number which the empty one would have had."""
    broken = False

    def hook(_index: int, name: str, run, args):
        if broken and name == "make_directory":
            raise OSError(errno.ENOSPC, "x", str(args[0]))
        return run()

    volume = make(tmp_path, volumes.hooked(hook))
    volume.open()
    publish(volume, OLD)
    broken = True
    with pytest.raises(VolumeError, match="the volume is full"):
        volume.withdraw()
    assert volume.published is not None
    broken = False
    number = publish(volume, NEW)

    assert volume.published.number == number
    assert seen(tmp_path) == NEW


def test_a_withdrawal_that_fails_again_and_again_leaves_no_empty_sets(tmp_path: Path) -> None:
    """Each is staged, and cannot be shown; what a person holds stays held until it is done."""
    volume = make(tmp_path)
    volume.open()
    number = publish(volume, OLD)
    volume.note_record(dataclasses.replace(volume.record, rolled_back=number))
    (tmp_path / "..data_tmp").mkdir()
    for _ in range(3):
        with pytest.raises(VolumeError, match="in the way"):
            volume.withdraw(closed=True)
    assert set(volume.record.generations) == layout.generations(tmp_path) == {number}
    assert (volume.record.withdrawn, volume.record.closed, volume.record.rolled_back) == (None, False, number)
    assert seen(tmp_path) == OLD

    (tmp_path / "..data_tmp").rmdir()
    volume.withdraw(closed=True)
    assert volume.published is None
    assert volume.record.closed


def test_half_of_a_removed_generation_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    """Also when the record, which knew that it was to be removed, is lost."""

    def hook(_index: int, name: str, run, args):
        if name == "remove_tree":
            next(path for path in args[0].rglob("*") if path.is_file()).unlink()
            raise OSError(errno.EIO, "x", str(args[0]))
        return run()

    volume = make(tmp_path, volumes.hooked(hook), keep=0)
    volume.open()
    publish(volume, OLD)
    publish(volume, NEW)
    volume.sweep(volumes.os_time() + 61)
    volume.close()
    (tmp_path / "..reloader/record.json").unlink()
    again = make(tmp_path)
    again.open()

    assert not (tmp_path / "..1").exists()
    assert strangers(tmp_path, again) == set()


READER = """
import os, sys
path, out = sys.argv[1], 0
names = ("one", "two/three", "four")
reads = mixed = 0
print("reading", flush=True)
while not os.path.exists(path + ".stop"):
    descriptor = os.open(path + "/..data", os.O_RDONLY | os.O_DIRECTORY)
    by_directory = {open(os.open(name, os.O_RDONLY, dir_fd=descriptor)).read() for name in names}
    os.close(descriptor)
    before = os.readlink(path + "/..data")
    by_links = {open(path + "/" + name).read() for name in names}
    same = os.readlink(path + "/..data") == before
    mixed += len(by_directory) != 1 or (same and len(by_links) != 1)
    reads += 1
print(reads, mixed, flush=True)
"""


def test_a_reader_never_sees_a_mixed_set(tmp_path: Path) -> None:
    """200 publishes under a process that reads all the time, through an open directory and through the user links."""
    path = tmp_path / "volume"
    volume = make(path, keep=1)
    volume.open()
    publish(volume, dict.fromkeys(("one", "two/three", "four"), b"start"))
    reader = subprocess.Popen([sys.executable, "-c", READER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        for step in range(200):
            publish(volume, dict.fromkeys(("one", "two/three", "four"), b"%d" % step * (step + 1)))
            volume.sweep(volumes.os_time())
        Path(f"{path}.stop").touch()
        reads, mixed = map(int, reader.stdout.readline().split())
    finally:
        reader.kill()
        reader.communicate()

    assert mixed == 0
    assert reads > 20


@pytest.mark.parametrize(
    ("make_it", "what"),
    [
        (lambda path: path.write_text("mine"), "a file"),
        (lambda path: path.mkdir(), "a directory"),
        (lambda path: path.symlink_to("/elsewhere"), "a link to '/elsewhere'"),
    ],
)
def test_something_foreign_in_the_way_is_named_before_anything_changes(make_it, what: str, tmp_path: Path) -> None:
    """It is never overwritten; once it is gone, the set is published."""
    prepare(tmp_path)
    make_it(tmp_path / "added")
    volume = make(tmp_path)
    volume.open()
    with pytest.raises(VolumeError, match=rf"added is in the way: {what}"):
        publish(volume, NEW)
    assert seen(tmp_path).items() >= OLD.items()
    assert volume.published is not None
    assert volume.published.number == 1

    (tmp_path / "added").rename(tmp_path / "kept")
    publish(volume, NEW)
    assert seen(tmp_path) == NEW
    assert os.path.lexists(tmp_path / "kept")


def test_something_foreign_that_came_after_staging_is_named_by_the_publish(tmp_path: Path) -> None:
    """Between the two the operator's check may take seconds."""
    prepare(tmp_path)
    volume = make(tmp_path)
    volume.open()
    volume.stage(2, rendered(NEW), "x")
    (tmp_path / "added").touch()
    with pytest.raises(VolumeError, match="added is in the way: a file"):
        volume.publish(2)
    volume.discard(2)

    assert {name: data for name, data in seen(tmp_path).items() if name in OLD} == OLD
    assert not (tmp_path / "..2").exists()


@pytest.mark.parametrize("data", ["..2024_01_01_00_00_00.123456789", "/elsewhere"])
def test_a_directory_that_another_program_fills_is_refused(data: str, tmp_path: Path) -> None:
    """A mounted ConfigMap is laid out just like a volume of ours."""
    (tmp_path / "..data").symlink_to(data)
    with pytest.raises(VolumeError, match="another program fills this directory"):
        make(tmp_path).open()

    assert [path.name for path in tmp_path.iterdir()] == ["..data"]


def test_links_that_a_hand_removed_are_restored(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "app.conf").unlink()
    make(tmp_path).open()

    assert seen(tmp_path) == OLD


def test_a_volume_that_is_replaced_is_taken_anew(tmp_path: Path) -> None:
    """An unmount and a mount, or a directory put in its place; the old one is left alone."""
    path = tmp_path / "volume"
    prepare(path)
    volume = make(path)
    volume.open()
    path.rename(tmp_path / "old")
    assert volume.published is None
    path.mkdir()
    publish(volume, NEW)

    assert seen(path) == NEW
    assert seen(tmp_path / "old") == OLD
    make(tmp_path / "old").open()  # its lock is free
    with pytest.raises(VolumeLocked):
        make(path).open()


def test_nothing_is_written_into_a_volume_that_another_took_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "volume"
    prepare(path)
    volume = make(path)
    volume.open()
    (path / "..reloader/lock").unlink()
    other = make(path)
    other.open()
    volume.confirm(1, [{"pid": 1}])

    assert volume.unsaved is not None
    with pytest.raises(VolumeLocked):
        publish(volume, NEW)
    assert seen(path) == OLD


def test_a_file_where_the_volume_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "volume").touch()
    with pytest.raises(VolumeError, match=rf"{tmp_path}/volume\S*: something of another program is in the way"):
        make(tmp_path / "volume").open()


def in_mount(tmp_path: Path, options: str, script: str) -> dict[str, object]:
    """Run a script on a tmpfs that only its own process sees (`path`, `sh`); return what it says in `say`."""
    head = """
        import json, subprocess, sys
        from pathlib import Path
        from reloader.volume import VolumeError
        from tests.volumes import *
        path = Path(sys.argv[1])
        def sh(command): subprocess.run(command, shell=True, check=True)
        def error(run):
            try: run()
            except VolumeError as error: return str(error)
            return ""
    """
    code = textwrap.dedent(head) + textwrap.dedent(script) + "\nprint(json.dumps(say))"
    mount = f'mount -t tmpfs -o {options} tmpfs "$1" && exec "$0" -c "$2" "$1"'
    (tmp_path / "mount").mkdir()
    argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", mount, sys.executable, str(tmp_path / "mount"), code]
    ran = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)

    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout.splitlines()[-1]))


@NEEDS_ROOT
def test_a_full_volume_keeps_what_is_published_until_there_is_room(tmp_path: Path) -> None:
    """Also over a restart of the sidecar on the full volume."""
    said = in_mount(
        tmp_path,
        "size=400k",
        """
        volume = make(path, keep=0)
        cycle(volume, OLD)
        big = {**NEW, "added/one.conf": b"x" * 600_000}
        say = {"error": error(lambda: publish(volume, big)), "kept": seen(path) == OLD, "left": list(strangers(path, volume))}
        sh(f"head -c 10M /dev/zero > {path}/filler 2>/dev/null || true")
        say["filled"] = error(lambda: publish(volume, NEW))
        volume.close()
        say["restart"] = error(volume.open)
        say["known"] = volume.published.fingerprint == volume.fingerprint(rendered(OLD))
        sh(f"rm {path}/filler")
        cycle(volume, NEW)
        say["new"] = seen(path) == NEW
        """,
    )

    assert "the volume is full: give it more room (`sizeLimit`)" in str(said.pop("error"))
    assert "the volume is full" in str(said.pop("filled"))
    assert said == {"kept": True, "left": [], "restart": "", "known": True, "new": True}


@NEEDS_ROOT
def test_a_read_only_volume_says_so_and_heals(tmp_path: Path) -> None:
    """What is published is known without writing; and the same object goes on once the volume is writable."""
    said = in_mount(
        tmp_path,
        "size=4m",
        """
        volume = make(path)
        cycle(volume, OLD)
        volume.close()  # nothing may be open for writing while a mount becomes read-only
        sh(f"mount -o remount,ro {path}")
        say = {"error": error(lambda: publish(volume, NEW)), "kept": seen(path) == OLD, "number": volume.published.number}
        sh(f"mount -o remount,rw {path}")
        cycle(volume, NEW)
        say["new"] = seen(path) == NEW
        """,
    )

    assert "the volume is read-only: mount it without `readOnly`" in str(said.pop("error"))
    assert said == {"kept": True, "number": 1, "new": True}


def as_user(uid: int, path: Path, script: str) -> str:
    """Run a script as another user, who need not be able to reach this Python; return what it prints."""
    head = """
        import os, sys
        from pathlib import Path
        from reloader.volume import VolumeError
        from tests.volumes import *
        path, uid = Path(sys.argv[1]), int(sys.argv[2])
        World().clock.boot()  # loads the last module that is loaded late
        os.setgroups([]), os.setgid(uid), os.setuid(uid)
    """
    argv = [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(script), str(path), str(uid)]
    ran = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)

    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user can reach and write, as an emptyDir without fsGroup; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o777)
        yield Path(made)


TRY = "volume = make(path)\ntry:\n    cycle(volume, OLD)\nexcept VolumeError as error:\n    print(error)\n"


@NEEDS_ROOT
def test_a_volume_of_another_user_names_the_mend(open_path: Path) -> None:
    """What is published is known all the same, and nothing crashes."""
    prepare(open_path)
    said = as_user(1234, open_path, TRY + "print(volume.published.number)")

    assert "..reloader was made by uid 0, and this is uid 1234" in said.replace("/lock", "")
    assert "runAsUser" in said
    assert said.endswith("\n1\n")


@NEEDS_ROOT
def test_a_volume_that_may_not_be_written_names_its_owner(open_path: Path) -> None:
    open_path.chmod(0o755)
    said = as_user(1234, open_path, TRY)

    assert f"uid 1234 may not, {open_path} belongs to uid 0" in said


@NEEDS_ROOT
def test_an_ordinary_user_works_on_a_volume_of_root(open_path: Path) -> None:
    """The volume's group cannot be set then, and nobody asked for it."""
    assert as_user(1234, open_path, TRY + "print(seen(path) == OLD)") == "True\n"


@NEEDS_ROOT
def test_an_owner_that_may_not_be_set_is_refused_at_start(open_path: Path) -> None:
    script = """
        volume = Volume(Plan(path=str(path), files={"tls.key": File(content="", owner="0")}), World())
        try:
            volume.open()
        except VolumeError as error:
            print(error)
    """
    said = as_user(1234, open_path, script)

    assert "tls.key: owner '0' may not be set by uid 1234 without the capability CHOWN" in said
    assert list(open_path.iterdir()) == []


def test_a_thousand_files_are_published_whole(tmp_path: Path) -> None:
    contents = {f"folder-{number % 7}/file-{number}": os.urandom(64) * 1024 for number in range(1000)}
    volume = make(tmp_path)
    volume.open()
    publish(volume, contents)

    assert eventually(volume.published_files) == contents
