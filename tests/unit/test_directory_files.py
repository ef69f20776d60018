"""The directory backend on plain files: what is read, and what is not."""

import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import pytest

from reloader.backends import directory, scan
from reloader.backends.directory import Scan
from reloader.backends.mounts import Mounts
from reloader.snapshot import FailureKind
from tests.unit.directories import ALL, Inbox, Log, looking, program, settled, succeeds, watching
from tests.waiting import eventually


def names(*relative: str) -> Scan:
    return Scan(names=frozenset(relative))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    directory = tmp_path / "plain"
    directory.mkdir()
    (directory / "a").write_text("1")
    return directory


@pytest.mark.parametrize(
    ("read", "concerned", "unconcerned"),
    [
        (ALL, ("a", "", "..data", ".a"), ("..data_tmp", "..2026_11_21_10_00_00.1", "..reloader")),
        (names("a"), ("a", "b", "", "..data"), ("..data_tmp",)),  # b: a link may lead there
        (names("x/..a"), ("..a", "x"), ("..b",)),
        (Scan(names=frozenset({"wish"}), alone=True), ("wish", ""), ("record", "..data")),
        (Scan(ending=".yaml"), ("a.yaml", "b", "..data"), ("..data_tmp",)),
    ],
)
def test_what_happens_to_generations_concerns_nobody_and_what_happens_to_their_link_everybody(read, concerned, unconcerned):
    assert all(map(read.is_concerned_by, concerned))
    assert not any(map(read.is_concerned_by, unconcerned))


def test_a_write_in_place_is_a_change_that_may_come_in_pieces(plain):
    with watching(plain) as (backend, inbox):
        assert not inbox.reading({"a": "1"}).whole
        settled(backend)
        (plain / "a").write_text("2")
        assert not inbox.reading({"a": "2"}).whole


def test_a_file_renamed_over_another_is_seen(plain):
    with watching(plain) as (backend, inbox):
        settled(backend)
        (plain / "new").write_text("2")
        (plain / "new").rename(plain / "a")
        inbox.reading({"a": "2"})


def test_a_removed_file_is_gone(plain):
    with watching(plain, names("a")) as (backend, inbox):
        inbox.reading({"a": "1"})
        settled(backend)
        (plain / "a").unlink()
        inbox.reading({})


def test_files_come_in_the_order_of_their_names_and_bytes_stay_bytes(plain):
    (plain / "b").write_bytes(b"\xff\x00")
    (plain / "A").write_text("ä")
    with watching(plain) as (_, inbox):
        assert list(inbox.reading({"A": "ä", "a": "1", "b": b"\xff\x00"}).value) == ["A", "a", "b"]


def test_an_empty_directory_is_an_empty_mapping(tmp_path):
    with watching(tmp_path) as (_, inbox):
        inbox.reading({})


def test_only_the_wanted_files_are_read(plain):
    (plain / "huge").touch()
    os.truncate(plain / "huge", scan.MAX_BYTES + 1)
    with watching(plain, names("a", "missing")) as (_, inbox):
        inbox.reading({"a": "1"})


def test_changes_in_folders_are_seen_also_in_folders_made_later(plain):
    (plain / "sub").mkdir()
    with watching(plain) as (backend, inbox):
        inbox.reading({"a": "1"})
        settled(backend)
        (plain / "sub" / "b").write_text("1")
        inbox.reading({"a": "1", "sub/b": "1"})
        (plain / "later" / "deep").mkdir(parents=True)
        (plain / "later" / "deep" / "c").write_text("1")
        inbox.reading({"a": "1", "sub/b": "1", "later/deep/c": "1"})
        (plain / "later" / "deep" / "c").write_text("2")
        inbox.reading({"a": "1", "sub/b": "1", "later/deep/c": "2"})
        shutil.rmtree(plain / "later")
        inbox.reading({"a": "1", "sub/b": "1"})


def test_a_wanted_file_in_a_folder_is_seen(plain):
    (plain / "sub").mkdir()
    with watching(plain, names("sub/b")) as (backend, inbox):
        inbox.reading({})
        settled(backend)
        (plain / "sub" / "b").write_text("1")
        inbox.reading({"sub/b": "1"})


def test_links_to_files_are_followed_and_links_to_folders_and_to_nowhere_are_not(plain, tmp_path):
    (tmp_path / "elsewhere").write_text("there")
    (plain / "link").symlink_to(tmp_path / "elsewhere")
    (plain / "folder").symlink_to(tmp_path)
    (plain / "up").symlink_to("..")
    (plain / "dangling").symlink_to("nowhere")
    (plain / "one").symlink_to("two")
    (plain / "two").symlink_to("one")
    with watching(plain) as (_, inbox):
        inbox.reading({"a": "1", "link": "there"})


def test_a_directory_given_through_a_link_is_watched(plain, tmp_path):
    (tmp_path / "link").symlink_to(plain)
    with watching(tmp_path / "link") as (backend, inbox):
        inbox.reading({"a": "1"})
        settled(backend)
        (plain / "a").write_text("2")
        inbox.reading({"a": "2"})


def test_pipes_and_sockets_do_not_hold_up_a_look(plain):
    os.mkfifo(plain / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(plain / "socket"))
        with watching(plain) as (_, inbox):
            inbox.reading({"a": "1"})


def test_a_pipe_or_a_directory_that_was_asked_for_is_a_mistake(plain):
    os.mkfifo(plain / "pipe")
    (plain / "sub").mkdir()
    with looking(plain) as backend:
        inbox = Inbox()
        backend.watch(names("pipe"), inbox, "pipe")
        backend.watch(names("sub"), inbox, "sub")
        assert "pipe is a device, pipe or socket where a file was expected" in inbox.failure(FailureKind.MISCONFIGURED, "pipe")
        assert "sub is a directory" in inbox.failure(FailureKind.MISCONFIGURED, "sub")


def test_too_many_bytes_are_refused_and_others_are_still_read(plain):
    (plain / "huge").touch()
    os.truncate(plain / "huge", scan.MAX_BYTES + 1)
    with looking(plain) as backend:
        inbox = Inbox()
        backend.watch(ALL, inbox, "all")
        backend.watch(names("a"), inbox, "one")
        assert "more than 64 MiB" in inbox.failure(FailureKind.MISCONFIGURED, "all")
        inbox.reading({"a": "1"}, "one")
        (plain / "huge").unlink()
        inbox.reading({"a": "1"}, "all")


def test_too_many_files_are_refused(plain, monkeypatch):
    monkeypatch.setattr(scan, "MAX_ENTRIES", 3)
    for number in range(3):
        (plain / f"sub-{number}").mkdir()
    with watching(plain) as (_, inbox):
        assert "more than 3 files" in inbox.failure(FailureKind.MISCONFIGURED)


def test_a_name_that_is_not_utf8_is_refused(plain):
    Path(os.fsdecode(os.fsencode(plain) + b"/\xff")).write_text("x")
    with watching(plain) as (_, inbox):
        assert "not UTF-8" in inbox.failure(FailureKind.MISCONFIGURED)


def overflowed(path: str) -> None:
    log = Log("watchdog.observers.inotify_c")
    with watching(Path(path), names("a")) as (backend, inbox):
        settled(backend)
        print("ready", flush=True)
        # Halted meanwhile, for as long as it takes to fill the queue: that is not the backend's time.
        eventually(lambda: (Path(path) / "a").read_text() == "last", within=600, what="a change")
        inbox.reading({"a": "last"})
        eventually(lambda: "overflowed" in "".join(log.lines))


def test_a_change_that_the_kernel_dropped_is_seen(plain):
    running = program(overflowed, plain)
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGSTOP)  # so that nobody empties the queue
    for _ in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) // 2 + 1):  # two events each
        (plain / "noise").mkdir()
        (plain / "noise").rmdir()
    (plain / "a").write_text("last")
    running.send_signal(signal.SIGCONT)
    succeeds(running)


def test_a_look_finds_what_no_event_tells(plain, tmp_path):
    (tmp_path / "elsewhere").write_text("1")
    (plain / "link").symlink_to(tmp_path / "elsewhere")
    with watching(plain) as (backend, inbox):
        inbox.reading({"a": "1", "link": "1"})
        settled(backend)
        (tmp_path / "elsewhere").write_text("2")
        backend.look()
        inbox.reading({"a": "1", "link": "2"})


def test_what_not_everyone_may_read_is_secret(plain):
    with looking(plain) as backend:
        inbox = Inbox()
        (plain / "key").write_text("k")
        (plain / "key").chmod(0o640)
        backend.watch(names("a"), inbox, "open")
        backend.watch(names("key"), inbox, "hidden")
        in_memory = plain.stat().st_dev in Mounts.read().memory
        assert inbox.reading({"a": "1"}, "open").secret == in_memory
        assert inbox.reading({"key": "k"}, "hidden").secret


@pytest.mark.skipif(not any(point == "/dev/shm" for point in Mounts.read().points), reason="needs a tmpfs at /dev/shm")
def test_what_is_in_memory_is_secret():
    assert Path("/dev/shm").stat().st_dev in Mounts.read().memory


@pytest.mark.skipif(not any(point == "/dev/shm" for point in Mounts.read().points), reason="needs a tmpfs at /dev/shm")
def test_a_file_in_memory_is_secret_whatever_its_directory_is_on(plain):
    """As a Secret that is mounted by subPath, or that a link leads to."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as elsewhere, looking(plain) as backend:
        Path(elsewhere.name).write_text("k")
        Path(elsewhere.name).chmod(0o644)
        (plain / "key").symlink_to(elsewhere.name)
        inbox = Inbox()
        backend.watch(names("key"), inbox, "key")
        assert inbox.reading({"key": "k"}, "key").secret


def test_what_is_where_engines_mount_secrets_is_secret(plain, monkeypatch):
    """Compose binds a file of the host there, with the mode that it has."""
    monkeypatch.setattr(directory, "SECRETS", (str(plain.parent),))
    with looking(plain) as backend:
        inbox = Inbox()
        backend.watch(names("a"), inbox, "it")
        assert inbox.reading({"a": "1"}, "it").secret


def test_the_table_of_mounts_is_understood(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 0:21 / / rw shared:1 master:2 - overlay overlay rw\n"
        "30 22 0:44 / /var/run/secrets rw,relatime - tmpfs tmpfs rw\n"
        "31 22 8:1 /x/app.yaml /etc/my\\040app/app.yaml ro - ext4 /dev/sda1 rw\n"
    )
    mounts = Mounts.read(table)
    assert mounts.memory == {os.makedev(0, 44)}
    assert mounts.below("/etc/my app") == {"app.yaml"}
    assert mounts.below("/etc/my") == frozenset()


def test_no_repr_shows_content(plain):
    (plain / "a").write_text("canary")
    with watching(plain) as (_, inbox):
        reading = inbox.reading({"a": "canary"})
    assert "canary" not in repr(reading) + repr(scan.Look(str(plain)).everything())


def test_the_change_of_a_plain_file_is_dated_by_its_change_time(plain):
    os.utime(plain / "a", (0, 0))
    with watching(plain, names("a")) as (backend, inbox):
        changed = inbox.reading({"a": "1"}).changed
        wall = changed - backend._clock.now() + time.time()
    assert abs(wall - (plain / "a").stat().st_ctime) < 0.5


def test_what_no_event_tells_is_found_all_the_same_after_a_while(plain, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").write_text("1")
    (plain / "link").symlink_to(tmp_path / "elsewhere")
    with watching(plain) as (backend, inbox):
        monkeypatch.setattr(directory, "RESYNC", 0.2)
        inbox.reading({"a": "1", "link": "1"})
        settled(backend)
        backend.look()  # the next pause is the shorter one
        (tmp_path / "elsewhere").write_text("2")
        inbox.reading({"a": "1", "link": "2"})
