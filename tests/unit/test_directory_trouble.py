"""The directory backend when the directory, the kernel or a subscriber does not play along."""

import contextlib
import ctypes
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from reloader.backends.directory import Scan
from reloader.backends.wake import Watches
from reloader.snapshot import FailureKind, Reading
from reloader.world import World
from tests.unit.directories import ALL, Inbox, Log, looking, program, settled, succeeds, watching
from tests.waiting import eventually

STRANGER = 100_000
"""Plus its pid, the uid that a process takes: nobody else has it, so its limits are its own."""

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else or to mount")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    directory = tmp_path / "plain"
    directory.mkdir()
    (directory / "a").write_text("1")
    return directory


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_a_directory_that_is_missing_is_refused_until_it_is_there(tmp_path):
    with watching(tmp_path / "later") as (backend, inbox):
        assert inbox.failure(FailureKind.REFUSED) == f"{tmp_path}/later does not exist; is the volume mounted?"
        assert backend.mode == "poll"
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "a").write_text("1")
        inbox.reading({"a": "1"})
        settled(backend)


def test_a_file_where_a_directory_was_expected_is_a_mistake(plain):
    with watching(plain / "a") as (_, inbox):
        assert "restart" in inbox.failure(FailureKind.MISCONFIGURED)


def test_a_directory_deleted_and_made_again_is_watched_again(plain):
    with watching(plain) as (backend, inbox):
        settled(backend)
        shutil.rmtree(plain)
        inbox.failure(FailureKind.REFUSED)
        plain.mkdir()
        (plain / "a").write_text("2")
        inbox.reading({"a": "2"})
        settled(backend)
        (plain / "a").write_text("3")
        inbox.reading({"a": "3"})


def test_a_directory_renamed_away_and_replaced_at_once_is_seen(plain):
    with watching(plain) as (backend, inbox):
        inbox.reading({"a": "1"})
        settled(backend)
        new = plain.with_name("new")
        new.mkdir()
        (new / "a").write_text("2")
        plain.rename(plain.with_name("old"))
        new.rename(plain)
        inbox.reading({"a": "2"})
        settled(backend)
        (plain / "a").write_text("3")
        inbox.reading({"a": "3"})


def test_a_directory_replaced_as_its_watch_begins_is_watched_anew(plain):
    """The look that follows the beginning of a watch sees another directory: that is what is to be watched then."""
    with looking(plain) as backend:
        aim, handled = backend._watches.aim, threading.Event()

        def replaced(directories):
            begun = aim(directories)
            backend._watches.aim = aim
            backend._watches._callback._matters = lambda name: handled.set() if name == "last" else True
            new, old = plain.with_name("new"), plain.with_name("old")
            new.mkdir()
            (new / "a").write_text("2")
            plain.rename(old)
            new.rename(plain)
            (old / "last").mkdir()
            assert handled.wait(10)
            return begun

        backend._watches.aim, inbox = replaced, Inbox()
        backend.watch(ALL, inbox, "it")
        inbox.reading({"a": "2"})
        (plain / "a").write_text("3")
        inbox.reading({"a": "3"})


def test_a_directory_that_comes_back_with_its_old_inode_is_watched_anew(tmp_path):
    identity, wake = (1, 2), threading.Event()
    watches = Watches(wake)
    try:
        for _ in range(2):
            directory = tmp_path / "it"
            directory.mkdir()
            assert watches.aim({identity: str(directory)})
            assert not watches.aim({identity: str(directory)})
            wake.clear()
            directory.rmdir()
            assert wake.wait(10)
            eventually(lambda: watches._callback.ended)
    finally:
        watches.close()


def test_only_what_matters_wakes(tmp_path):
    told: list[str] = []
    wake = threading.Event()
    watches = Watches(wake, lambda name: told.append(name) or name == "b")
    try:
        watches.aim({(1, 2): str(tmp_path)})
        for name in ("..gone", "a"):
            (tmp_path / name).touch()
            eventually(lambda name=name: told and told[-1] == name)
            assert not wake.is_set()
        (tmp_path / "b").touch()
        assert wake.wait(30)
    finally:
        watches.close()


def test_a_wish_is_seen_and_a_record_beside_it_wakes_nobody(plain):
    with watching(plain, Scan(names=frozenset({"wish"}), alone=True)) as (backend, inbox):
        inbox.reading({})
        settled(backend)
        (plain / "record").write_text("1")
        (plain / "wish").write_text("1")
        inbox.reading({"wish": "1"})


def test_a_change_between_the_first_look_and_the_watch_is_seen(plain, monkeypatch):
    aim = Watches.aim

    def late(watches: Watches, directories: Mapping[tuple[int, int], str]) -> bool:
        (plain / "a").write_text("2")
        monkeypatch.setattr(Watches, "aim", aim)
        return aim(watches, directories)

    monkeypatch.setattr(Watches, "aim", late)
    with watching(plain) as (_, inbox):
        inbox.reading({"a": "2"})


def test_an_unchanged_failure_is_delivered_once_and_the_same_content_ends_it(plain):
    with watching(plain) as (backend, inbox):
        inbox.reading({"a": "1"})
        away = plain.rename(plain.with_name("away"))
        inbox.failure(FailureKind.REFUSED)
        backend.look()
        away.rename(plain)
        inbox.reading({"a": "1"})
    assert [type(outcome).__name__ for outcome in inbox.outcomes()] == ["Reading", "Failure", "Reading"]


def unreadable_file(path: str) -> None:
    os.setuid(STRANGER + os.getpid())
    with watching(Path(path)) as (_, inbox):
        reason = inbox.failure(FailureKind.REFUSED)
        assert f"{path}/key may not be read: it has mode 0400 and owner 0:0, and reloader runs as {os.getuid()}:0" in reason, reason
        assert "fsGroup" in reason


@needs_root
def test_a_file_that_may_not_be_read_is_refused_with_mode_and_user(open_to_all):
    (open_to_all / "key").write_text("k")
    (open_to_all / "key").chmod(0o400)
    succeeds(program(unreadable_file, open_to_all))


def unreadable_directory(path: str) -> None:
    os.setuid(STRANGER + os.getpid())
    log = Log()
    with watching(Path(path)) as (backend, inbox):
        assert "mode 0700" in inbox.failure(FailureKind.REFUSED)
        assert backend.mode == "poll"
        print("refused", flush=True)
        inbox.reading({"a": "1"})
        settled(backend)
    assert len(log.lines) <= 1, log.lines


@needs_root
def test_a_directory_that_may_not_be_read_is_polled_until_it_may(open_to_all):
    directory = open_to_all / "locked"
    directory.mkdir(mode=0o700)
    (directory / "a").write_text("1")
    running = program(unreadable_directory, directory)
    assert running.stdout.readline() == "refused\n"
    directory.chmod(0o755)
    succeeds(running)


def listed_only(path: str) -> None:
    os.setuid(STRANGER + os.getpid())
    log = Log()
    with watching(Path(path), Scan(names=frozenset({"a"}))) as (backend, inbox):
        inbox.reading({"a": "1"})
        assert backend.mode == "poll"
        print("read", flush=True)
        inbox.reading({"a": "2"})
    assert len(log.lines) == 1, log.lines
    assert "cannot be watched" in log.lines[0]


@needs_root
def test_a_file_in_a_directory_that_may_be_entered_but_not_listed_is_polled(open_to_all):
    """Watchdog takes the kernel's refusal for success here, and would never wake."""
    directory = open_to_all / "entered"
    directory.mkdir()
    (directory / "a").write_text("1")
    directory.chmod(0o711)
    running = program(listed_only, directory)
    assert running.stdout.readline() == "read\n"
    (directory / "a").write_text("2")
    succeeds(running)


def exhausted(path: str) -> None:
    os.setuid(STRANGER + os.getpid())
    libc = ctypes.CDLL(None)
    taken = []
    while (descriptor := libc.inotify_init()) >= 0:
        taken.append(descriptor)
    log, threads = Log(), threading.active_count()
    with watching(Path(path)) as (backend, inbox):
        inbox.reading({"a": "1"})
        assert backend.mode == "poll"
        print("polled", flush=True)
        inbox.reading({"a": "2"})
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(2):  # two turns more
            began = backend._began
            backend.look()
            eventually(lambda began=began: backend._began > began)
        assert threading.active_count() == threads + 1
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
        assert [line for line in log.lines if "instance limit" in line] == log.lines
        assert len(log.lines) == 1
        os.close(taken.pop())
        settled(backend)


@needs_root
def test_without_inotify_instances_the_directory_is_polled_with_one_warning_and_no_leak(open_to_all):
    (open_to_all / "a").write_text("1")
    running = program(exhausted, open_to_all)
    assert running.stdout.readline() == "polled\n"
    (open_to_all / "a").write_text("2")
    succeeds(running)


def mounted_alone(path: str) -> None:
    directory, beneath = Path(path, "mounted"), Path(path, "beneath")
    subprocess.run(["mount", "--bind", beneath, directory / "a"], check=True)
    log = Log()
    with watching(directory, Scan(names=frozenset({"a"}))) as (backend, inbox):
        inbox.reading({"a": "1"})
        eventually(lambda: log.lines)
        assert backend.mode == "poll"
        beneath.write_text("2")
        inbox.reading({"a": "2"})
    assert "a mounted by itself" in log.lines[0]


@needs_root
def test_a_file_that_is_mounted_by_itself_is_polled(tmp_path):
    own_mounts = ("unshare", "--mount", "--propagation", "private")
    if not shutil.which("unshare") or subprocess.run([*own_mounts, "true"], check=False).returncode:
        pytest.skip("needs a mount namespace")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "a").touch()
    (tmp_path / "beneath").write_text("1")
    succeeds(program(mounted_alone, tmp_path, launcher=own_mounts))


def test_a_subscriber_that_fails_is_told_so_and_holds_up_nobody(plain):
    class Failing(Inbox):
        def put(self, outcomes):
            super().put(outcomes)
            if any(isinstance(outcome, Reading) for outcome in outcomes.values()):
                raise RuntimeError("canary")

    log, failing, good = Log(), Failing(), Inbox()
    with looking(plain) as backend:
        backend.watch(ALL, failing, "it")
        assert failing.failure(FailureKind.MISCONFIGURED).startswith("internal error: RuntimeError in backends/directory.py:")
        backend.watch(Scan(names=frozenset({"a"})), good, "it")
        good.reading({"a": "1"})
        settled(backend)
        (plain / "a").write_text("2")
        good.reading({"a": "2"})
        assert failing.outcomes()[2].value == {"a": "2"}
    assert log.lines
    assert "canary" not in "".join(log.lines)


def test_a_mistake_of_ours_is_a_failure_and_not_the_end(plain, monkeypatch):
    broken = True

    def look(_directory: str) -> None:
        if broken:
            raise RuntimeError("canary")
        return original(_directory)

    from reloader.backends import directory as module

    original = module.Look
    monkeypatch.setattr(module, "Look", look)
    with watching(plain) as (backend, inbox):
        assert inbox.failure(FailureKind.MISCONFIGURED).startswith("internal error: RuntimeError in backends/directory.py:")
        broken = False
        backend.look()
        inbox.reading({"a": "1"})


def test_nothing_runs_before_somebody_waits_and_after_the_end(plain):
    with looking(plain) as backend:
        assert backend.heartbeats() == ()
        backend.look()
        backend.watch(ALL, Inbox(), "it")
        (beat,) = backend.heartbeats()
        assert beat.thread == f"directory {plain}"
        assert beat.due > World().clock.now()
        settled(backend)
    assert backend.heartbeats() == ()
    backend.close()


def test_the_end_frees_every_descriptor(plain):
    def descriptors() -> int:
        return len([each for each in Path("/proc/self/fd").iterdir() if _is_inotify(each)])

    before = descriptors()
    with watching(plain) as (backend, _inbox):
        settled(backend)
        assert descriptors() == before + 1
    assert descriptors() == before


def _is_inotify(descriptor: Path) -> bool:
    with contextlib.suppress(OSError):
        return "inotify" in str(descriptor.readlink())
    return False


def test_a_backend_that_was_closed_starts_nothing(plain):
    with looking(plain) as backend:
        backend.close()
        backend.watch(ALL, Inbox(), "it")
        assert backend.heartbeats() == ()


def test_a_file_that_may_be_read_now_is_read(plain, tmp_path):
    (plain / "a").chmod(0o000)
    with watching(plain) as (_, inbox):
        (plain / "a").chmod(stat.S_IRUSR)
        inbox.reading({"a": "1"})


def test_a_look_that_hangs_counts_as_no_answer_and_as_no_death(plain, monkeypatch):
    """A network file system whose server is gone: the age shows it, and the reading is back as soon as the server is."""
    from reloader.backends import directory as module

    gate, original = threading.Event(), module.Look
    with watching(plain) as (backend, inbox):
        inbox.reading({"a": "1"})
        settled(backend)
        monkeypatch.setattr(module, "Look", lambda path: gate.wait(30) and original(path))
        monkeypatch.setattr(module, "LONGEST_LOOK", 0.05)
        began = World().clock.now()
        backend.look()
        reason = eventually(lambda: backend.tell_overdue() or inbox.failure_now(FailureKind.UNREACHABLE), what="the failure")
        assert "has lasted for more than" in reason
        failure = inbox.outcomes()[-1]
        assert began <= failure.current_until <= failure.at
        (beat,) = backend.heartbeats()
        assert beat.due > World().clock.awake()
        gate.set()
        inbox.reading({"a": "1"})


def test_only_the_names_that_are_meant_are_read_of_a_directory(plain):
    """Whatever else it has, and whatever is below it; what is there and cannot be a file is empty."""
    (plain / "a.yaml").write_text("1")
    (plain / ".hidden.yaml").write_text("2")
    (plain / "below").mkdir()
    (plain / "below" / "b.yaml").write_text("3")
    (plain / "c.yaml").symlink_to("nothing")
    (plain / "d.yaml").mkdir()
    with watching(plain, Scan(ending=".yaml")) as (backend, inbox):
        inbox.reading({"a.yaml": "1", "c.yaml": "", "d.yaml": ""})
        settled(backend)
        (plain / "e.yaml").write_text("5")
        inbox.reading({"a.yaml": "1", "c.yaml": "", "d.yaml": "", "e.yaml": "5"})


def test_one_who_came_while_there_were_too_many_threads_is_in_nobodys_way(plain, monkeypatch):
    """The next one gets a thread again."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with looking(plain) as backend:
        refused, inbox = Inbox(), Inbox()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError):
                backend.watch(ALL, refused, "it")
        assert backend.heartbeats() == ()
        backend.watch(ALL, inbox, "it")
        inbox.reading({"a": "1"})
        assert refused.puts == []
