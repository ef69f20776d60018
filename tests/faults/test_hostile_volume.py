"""Somebody else who may write on the volume, as the target mostly may, puts things in the way between any two steps of ours.

Whatever that is: nothing outside the volume is read, written, chmodded, chowned or removed, and nothing makes the sidecar wait.
"""

import errno
import os
import shutil
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reloader.volume import VolumeError, layout
from reloader.volume.wish import Wish, Wishes, leave
from reloader.world import World
from reloader.world.disk import Disk
from reloader.world.unlinked import NotOurs, read
from tests.scale import rounds
from tests.volumes import NEW, OLD, cycle, hooked, make, recording

SECRET = b"canary-outside-41c9"
"""What the sidecar may read and nobody else: the token it keeps in `state.path`."""
VICTIMS = ("..reloader", "..1", "..2", "..3", "..1_gone", "conf.d", "conf.d/deep", "added", "..1/conf.d", "..2/conf.d", "..2/added")
"""The directories in which the sidecar works."""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the sidecar's own that has a file of every name that it uses on the volume."""
    outside = tmp_path / "outside"
    names = (
        "record.json",
        "record.json.tmp",
        "key",
        "key.tmp",
        "lock",
        "file.tmp",
        "wish.json",
        "er.conf",
        "site.conf",
        "more.conf",
        "one.conf",
    )
    for name in {*OLD, *names, *(name for name in NEW if not name.startswith("added"))}:
        path = outside / name
        path.parent.mkdir(mode=0o751, parents=True, exist_ok=True)
        path.write_bytes(SECRET)
        path.chmod(0o604)
    outside.chmod(0o751)
    return outside


def state(root: Path) -> dict[str, Any]:
    """Return all that could be changed below a directory."""
    found = {}
    for path in (root, *sorted(root.rglob("*"))):
        status = path.stat(follow_symlinks=False)
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(root))] = (status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


def attacking(volume: Path, victim: str, outside: Path, at: int) -> Disk:
    """Return a disk before whose call `at` a directory is replaced by a link to another one."""

    def hook(index: int, _name: str, run: Callable[[], Any], _args: tuple[Any, ...]) -> Any:
        if index == at:
            path = volume / victim
            with suppress(OSError):
                path.rename(path.with_name(f"{path.name}-moved"))
            with suppress(OSError):
                path.symlink_to(outside)
        return run()

    return hooked(hook)


def calls_of(folder: Path, in_place: bool) -> int:
    names: list[str] = []
    volume = make(folder, recording(names), keep=0, in_place=in_place)
    cycle(volume, NEW)
    return len(names)


@pytest.mark.parametrize("in_place", [False, True], ids=["whole", "in place"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_link_in_the_way_leads_no_step_outside(tmp_path: Path, outside: Path, victim: str, in_place: bool):
    """At any call of a cycle that updates a volume, in a quick run at every fourth: it works or it fails, and changes nothing outside."""
    template = tmp_path / "template"
    cycle(make(template, keep=0, in_place=in_place), OLD)
    shutil.copytree(template, tmp_path / "counted", symlinks=True)
    before, failures = state(outside), 0
    for at in range(0, calls_of(tmp_path / "counted", in_place), rounds(4, 1)):
        path = tmp_path / "volumes" / str(at)
        shutil.copytree(template, path, symlinks=True)
        volume = make(path, attacking(path, victim, outside, at), keep=0, in_place=in_place)
        try:
            cycle(volume, NEW)
            with suppress(VolumeError):
                cycle(volume, OLD)
        except VolumeError:
            failures += 1
        volume.close()
        assert state(outside) == before, f"call {at}"
        assert not [each for each in path.rglob("*") if each.is_file() and not each.is_symlink() and SECRET in each.read_bytes()], (
            f"call {at}"
        )
    assert failures or victim not in ("..reloader", "..2"), "the attack never met a step"


def test_a_volume_that_is_a_link_of_the_operators_works(tmp_path: Path):
    """What leads to the volume is his, not somebody else's."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    volume = make(tmp_path / "link" / "live")
    cycle(volume, OLD)
    assert (tmp_path / "real/live/app.conf").read_bytes() == OLD["app.conf"]
    assert volume.target_directory(1) == f"{tmp_path}/link/live/..1", "as the target may know it, by the name that was written"


ODD = {
    "a link": lambda path, outside: path.symlink_to(outside / "record.json"),
    "a dangling link": lambda path, _: path.symlink_to("/nowhere"),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a socket": lambda path, _: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
    "far too much": lambda path, _: (path.touch(), os.truncate(path, 10**12)),
}


@pytest.fixture
def odd(request, monkeypatch, tmp_path: Path, outside: Path) -> Callable[[Path], None]:
    """Puts something odd in the place of a file."""

    def plant(path: Path) -> None:
        path.unlink()
        ODD[request.param](path, outside)

    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    return plant


every_odd = pytest.mark.parametrize("odd", ODD, indirect=True)


@every_odd
@pytest.mark.parametrize("name", ["record.json", "key"])
def test_something_odd_for_a_file_of_ours_is_replaced(tmp_path: Path, outside: Path, odd, name: str):
    """The sidecar neither waits for it nor reads what it leads to; it starts anew, and what is published stays."""
    before = state(outside)
    volume = make(tmp_path / "live")
    cycle(volume, OLD)
    volume.close()
    odd(tmp_path / "live/..reloader" / name)
    again = make(tmp_path / "live")
    assert again.peek().last == (0 if name == "record.json" else 1)

    cycle(again, NEW)

    assert (tmp_path / "live/app.conf").read_bytes() == NEW["app.conf"]
    assert (tmp_path / "live/..reloader" / name).is_file()
    assert state(outside) == before


@every_odd
def test_something_odd_for_the_lock_is_told(tmp_path: Path, outside: Path, odd):
    """Nobody waits, and nothing is truncated but what is ours."""
    before = state(outside)
    volume = make(tmp_path / "live")
    cycle(volume, OLD)
    odd(tmp_path / "live/..reloader/lock")
    with suppress(VolumeError):
        volume.open()
    with suppress(VolumeError):
        make(tmp_path / "live").open()
    assert state(outside) == before


@every_odd
def test_something_odd_for_a_wish_is_no_wish(tmp_path: Path, outside: Path, odd):
    """And it is looked at once."""
    home = tmp_path / "live/..reloader"
    cycle(make(tmp_path / "live"), OLD)
    leave(home, Wish(act="resume"), World())
    odd(home / "wish.json")
    wishes = Wishes(home, World())
    assert wishes.take() is None
    assert wishes.take() is None


@every_odd
def test_something_odd_in_a_published_set_is_not_read(tmp_path: Path, outside: Path, odd):
    """Not for a diff, and not to be written in place."""
    volume = make(tmp_path / "live")
    cycle(volume, OLD)
    odd(tmp_path / "live/..1/app.conf")
    with suppress(VolumeError):
        assert "app.conf" not in volume.published_files()
    with pytest.raises(OSError, match=r"plain file|more than"):
        layout.read_file(tmp_path / "live/..1/app.conf")


@every_odd
def test_something_odd_in_place_is_told_and_left_alone(tmp_path: Path, outside: Path, odd):
    """What is not a plain file is somebody's, whoever put it there; far too much of it is ours to mend."""
    before = state(outside)
    volume = make(tmp_path / "live", in_place=True)
    cycle(volume, OLD)
    odd(tmp_path / "live/app.conf")
    with suppress(VolumeError):
        cycle(volume, NEW)
    assert state(outside) == before


def test_what_lies_behind_a_link_is_never_read(tmp_path: Path, outside: Path):
    """Neither at the end of a path nor on the way, however it got there."""
    (tmp_path / "live").mkdir()
    (tmp_path / "live/last").symlink_to(outside / "app.conf")
    (tmp_path / "live/folder").symlink_to(outside)
    for path in ("live/last", "live/folder/app.conf"):
        with pytest.raises(OSError) as caught:
            read(tmp_path / path, 1000)
        assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
        assert caught.value.filename == str(tmp_path / path)
    assert read(outside / "app.conf", 1000) == SECRET
    with pytest.raises(NotOurs, match="more than 3 bytes"):
        read(outside / "app.conf", 3)


def test_a_link_for_the_data_link_leads_nowhere(tmp_path: Path, outside: Path):
    """`..data` counts only as a name of a generation that is there, as a directory."""
    path = tmp_path / "live"
    volume = make(path)
    cycle(volume, OLD)
    for to in (str(outside), "../outside", "..reloader", "..7"):
        (path / "..data").unlink()
        (path / "..data").symlink_to(to)
        assert layout.linked(path) is None
        assert volume.published_files() == {}
    (path / "..7").symlink_to(outside)
    assert layout.linked(path) is None
    assert layout.generations(path) == {1}


def test_a_hard_link_is_removed_and_never_written_through(tmp_path: Path, outside: Path):
    """A set is always made of new files."""
    before = state(outside)
    path = tmp_path / "live"
    volume = make(path, keep=0)
    cycle(volume, OLD)
    (path / "..1/app.conf").unlink()
    os.link(outside / "app.conf", path / "..1/app.conf")
    os.link(outside / "app.conf", path / "..reloader/record.json.tmp")
    changed = {**before, "app.conf": state(outside)["app.conf"]}
    with pytest.raises(VolumeError, match="something of another program is in the way"):
        cycle(volume, NEW)
    cycle(volume, NEW)
    assert {name: each[5] for name, each in state(outside).items()} == {name: each[5] for name, each in changed.items()}
    assert (path / "app.conf").read_bytes() == NEW["app.conf"]
