"""Asking a process to reload: never one that would die of it, never another, and never in vain without a word."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from errno import ENOSYS
from pathlib import Path

import pytest

from reloader.plan import Verify
from reloader.targets import Held, Instance, Trouble, Verdict
from reloader.targets._find import Match
from reloader.targets.process import MIN_UPTIME, Settings, Target
from reloader.world import World
from reloader.world.clock import Clock
from reloader.world.processes import Grip, Process, Processes, SignalMasks
from tests.targets.started import PRINT_SIGNALS, Beside, Starter, sidecar, starter, unique
from tests.waiting import eventually


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    with starter(tmp_path) as start:
        yield start


class Stepped(Clock):
    """The machine's clock, some seconds later."""

    later = 0.0

    def now(self) -> float:
        return super().now() + self.later


def target_of(name: str, *, world: World | None = None, **settings) -> Target:
    return Target(Settings(match=Match(name=name), **settings), Verify(), world or sidecar())


def held(target: Target) -> Held:
    instance = target.find()
    with pytest.raises(Held) as held:
        target.reload(instance)
    return held.value


def test_an_end_after_the_last_look_wakes_who_waits_and_does_so_once(start):
    name = unique()
    child = start.target(name)
    target = target_of(name)
    verification = target.reload(target.find())
    assert verification.judge().verdict is Verdict.PENDING
    child.kill()

    (descriptor,) = target.descriptors()

    assert select.select([descriptor], [], [], 30)[0] == [descriptor]
    assert verification.judge().verdict is Verdict.ENDED
    assert target.descriptors() == ()


def test_a_process_that_catches_the_signal_gets_it_once(start):
    name = unique()
    child = start.target(name)
    target = target_of(name)

    target.reload(target.find())

    child.hear("signal SIGHUP")
    assert child.end() == []


def test_another_signal_can_be_chosen(start):
    name = unique()
    child = start.target(name)
    target = target_of(name, signal=signal.SIGUSR1)

    target.reload(target.find())

    child.hear("signal SIGUSR1")


def test_a_process_that_waits_for_the_blocked_signal_is_ready(start):
    name = unique()
    child = start.target(name, "--handler", "block")
    target = target_of(name)

    target.reload(target.find())

    child.hear("signal SIGHUP")


def test_a_process_whose_only_thread_is_in_sigwait_cannot_be_told_from_one_that_would_die(start):
    """The kernel shows what it waits for as not blocked, so it is held: never fatal comes first."""
    name = unique()
    child = start.target(name, "--handler", "sigwait")
    target = target_of(name)

    eventually(lambda: not Processes().masks(child.pid).catches(signal.SIGHUP))
    assert held(target).trouble is Trouble.NOT_READY
    assert child.end() == []


def test_a_process_whose_handler_comes_late_is_not_killed(start):
    name = unique()
    child = start.target(name, "--late")
    target = target_of(name)

    refused = held(target)
    assert refused.trouble is Trouble.NOT_READY
    assert "no handler for SIGHUP yet and would end by it" in str(refused)

    child.say()
    child.hear("ready")
    target.reload(target.find())

    child.hear("signal SIGHUP")
    assert child.end() == []


def test_a_process_is_not_killed_however_early_it_is_asked(start):
    """From its first instant on, over and over until it can take the signal."""
    name = unique()
    child = start.target(name, expect="")
    target = target_of(name)

    def asked() -> bool:
        target.reload(target.find())
        return True

    eventually(asked, every=0)

    child.hear("up")
    child.hear("signal SIGHUP")


def test_a_process_that_ignores_the_signal_is_not_asked_and_the_mend_is_named(start):
    name = unique()
    child = start.target(name, "--handler", "ignore")

    refused = held(target_of(name))

    assert refused.trouble is Trouble.IGNORED
    assert f"{name} (pid {child.pid}, uid {os.getuid()}) ignores SIGHUP" in str(refused)
    assert "target.signal" in str(refused)


def test_a_process_that_has_ended_is_gone(start):
    name = unique()
    child = start.target(name)
    target = target_of(name)
    instance = target.find()
    child.kill()

    with pytest.raises(Held) as refused:
        target.reload(instance)

    assert refused.value.trouble is Trouble.GONE


def test_a_process_that_ends_while_it_is_asked_is_gone(start):
    name = unique()
    child = start.target(name)

    class Ending(Beside):
        def signal(self, grip: Grip, number: int) -> None:
            child.kill()
            super().signal(grip, number)

    target = target_of(name, world=World(processes=Ending()))

    assert held(target).trouble is Trouble.GONE


def test_a_process_that_ends_while_it_is_found_is_gone(start):
    name = unique()
    child = start.target(name)

    class Ending(Beside):
        def hold(self, pid: int) -> Grip:
            child.kill()
            return super().hold(pid)

    target = target_of(name, world=World(processes=Ending()))

    with pytest.raises(Held) as refused:
        target.find()
    assert refused.value.trouble is Trouble.GONE


def test_a_process_that_becomes_another_program_while_it_is_found_is_not_the_one(start):
    """Its identity is read again under the pidfd, and the pidfd is let go."""
    name = unique()
    shell = start.run(start.interpreter(name), "-c", "import os; print('up', flush=True); input(); os.execlp('sleep', 'sleep', '1000')")
    grips = []

    class Changing(Beside):
        def hold(self, pid: int) -> Grip:
            grips.append(super().hold(pid))
            shell.say()
            eventually(lambda: self.look(pid).argv[:1] == ("sleep",))  # it has that name a moment sooner, and no arguments then
            return grips[0]

    target = target_of(name, world=World(processes=Changing()))

    with pytest.raises(Held) as refused:
        target.find()
    assert refused.value.trouble is Trouble.GONE
    held = Path(f"/proc/self/fdinfo/{grips[0].descriptor}")  # its number may be another thread's by now
    assert not held.exists() or f"Pid:\t{shell.pid}\n" not in held.read_text()


def test_an_instance_that_was_never_found_is_gone(start):
    name = unique()
    child = start.target(name)
    target = target_of(name)

    for instance in (Instance(pid=child.pid, started=1.0), replace(target.find(), started=1.0)):
        with pytest.raises(Held) as refused:
            target.reload(instance)
        assert refused.value.trouble is Trouble.GONE
    assert child.end() == []


class TestMasksThatProveNothing:
    def test_such_a_process_is_asked_only_when_it_has_an_age(self, start):
        name, clock = unique(), Stepped()
        child = start.target(name, "--like-go")
        target = target_of(name, world=replace(sidecar(), clock=clock))

        assert held(target).trouble is Trouble.NOT_READY

        clock.later = MIN_UPTIME
        target.reload(target.find())
        child.hear("signal SIGHUP")

    @pytest.mark.parametrize(
        ("caught", "nothing"),
        [
            pytest.param(0xFFFFFFFD7FC1FEFF, True, id="Go (OpenBao)"),
            pytest.param(0x2000000101005CCD, True, id="the JVM"),
            pytest.param(0x43817EFB, True, id="bash with a trap"),
            pytest.param(0x18016A07, False, id="NGINX"),
            pytest.param(0x4E9, False, id="Python with faulthandler"),
            pytest.param(0x100004602, False, id="Node"),
            pytest.param(0x4440, False, id="Rust"),
        ],
    )
    def test_measured_masks(self, caught, nothing):
        assert SignalMasks(caught=caught, ignored=0, blocked=0).proves_nothing(signal.SIGHUP) is nothing

    @pytest.mark.parametrize(
        ("caught", "blocked", "nothing"),
        [
            pytest.param(0x0, 0xFFFFFFFE7FFBFEFF, True, id="a thread is being started"),
            pytest.param(0x1, 0xFFFFFFFE7FFBFEFF, False, id="the same, with a handler"),
            pytest.param(0x0, 0x14A01, False, id="it waits for some signals"),
        ],
    )
    def test_everything_may_be_blocked_for_a_moment_only(self, caught, blocked, nothing):
        assert SignalMasks(caught=caught, ignored=0, blocked=blocked).proves_nothing(signal.SIGHUP) is nothing


class TestPermission:
    @pytest.mark.skipif(os.getuid() != 0, reason="takes root to become another user")
    def test_a_process_of_another_user_is_held_with_both_mends(self, start):
        name = unique()
        child = start.target(name)
        script = (
            "import json, sys\n"
            "from reloader.plan import Verify\n"
            "from reloader.targets import Held\n"
            "from reloader.targets.process import Match, Settings, Target\n"
            "from reloader.world import World\n"
            f"target = Target(Settings(match=Match(name={name!r})), Verify(), World())\n"
            "try:\n"
            "    target.reload(target.find())\n"
            "except Held as held:\n"
            "    print(json.dumps([held.trouble, str(held)]))\n"
        )
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]

        done = subprocess.run(
            [*nobody, sys.executable, "-c", script], cwd=PRINT_SIGNALS.parents[2], capture_output=True, text=True, check=False
        )

        assert done.returncode == 0, done.stderr
        trouble, message = json.loads(done.stdout)
        assert trouble == Trouble.PERMISSION
        assert f"{name} (pid {child.pid}, uid 0)" in message
        assert "runAsUser" in message
        assert "UID 0 with the capability KILL" in message
        assert child.end() == []


class TestWithoutPidfd:
    @pytest.fixture(autouse=True)
    def _none(self, monkeypatch):
        def refuse(_pid: int, _flags: int = 0) -> int:
            raise OSError(ENOSYS, os.strerror(ENOSYS))

        monkeypatch.setattr(os, "pidfd_open", refuse)

    def test_the_signal_arrives_and_one_warning_says_what_is_weaker(self, start, caplog):
        name, world = unique(), sidecar()
        child = start.target(name)
        for _ in range(2):
            target = target_of(name, world=world)

            target.reload(target.find())

            child.hear("signal SIGHUP")
            assert target.descriptors() == ()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "no pidfd here (Function not implemented)" in caplog.text

    def test_its_end_is_seen_at_the_next_look(self, start):
        name = unique()
        child = start.target(name)
        target = target_of(name)
        instance = target.find()
        verification = target.reload(instance)
        assert verification.judge().look_at <= Clock().now() + 0.1

        child.kill()

        assert verification.judge().verdict is Verdict.ENDED
        with pytest.raises(Held) as refused:
            target.reload(instance)
        assert refused.value.trouble is Trouble.GONE

    def test_a_process_with_another_start_time_is_a_stranger(self, start):
        child = start.target(unique())
        processes = Processes()
        grip = replace(processes.hold(child.pid), started=1.0)

        with pytest.raises(ProcessLookupError):
            processes.signal(grip, signal.SIGHUP)
        assert child.end() == []

    def test_another_failure_is_no_reason_to_do_without(self, monkeypatch, start):
        child = start.target(unique())

        def full(_pid: int, _flags: int = 0) -> int:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "pidfd_open", full)

        with pytest.raises(OSError, match="Too many open files"):
            Processes().hold(child.pid)


class TestProcessTable:
    def test_what_it_tells_of_a_process(self, start):
        name, clock = unique(), Clock()
        before = clock.now()
        child = start.target(name)
        seen = Processes().look(child.pid)

        expected = Process(
            pid=child.pid,
            parent=os.getpid(),
            comm=name,
            argv=(str(start.interpreter(name)), str(PRINT_SIGNALS)),
            uid=os.getuid(),
            started=seen.started,
        )
        assert seen == expected
        assert before - 0.01 <= seen.started <= clock.now()

    def test_names_with_spaces_and_parentheses_are_read_whole(self, start):
        child = start.target("a) R (b")

        assert Processes().look(child.pid).comm == "a) R (b"

    def test_another_root_is_looked_at(self, tmp_path):
        table = tmp_path / "proc" / "7"
        (table / "task" / "7").mkdir(parents=True)
        (table / "stat").write_text("7 (x) S 1 " + "0 " * 17 + "200 0\n")
        (table / "comm").write_text("x\n")
        (table / "cmdline").write_text("x\0-y\0")
        (table / "status").write_text("Name:\tx\nUid:\t5\t6\t5\t5\n")

        assert [(found.pid, found.parent, found.argv, found.uid) for found in Processes(str(tmp_path / "proc")).all()] == [
            (7, 1, ("x", "-y"), 6)
        ]

    def test_the_kernels_list_of_children_is_used_where_there_is_one(self, tmp_path):
        for pid, parent in ((7, 1), (8, 7), (9, 7)):
            folder = tmp_path / str(pid) / "task" / str(pid)
            folder.mkdir(parents=True)
            (tmp_path / str(pid) / "stat").write_text(f"{pid} (x) S {parent} " + "0 " * 17 + "200 0\n")
            (folder / "children").write_text("8 10 " if pid == 7 else "")

        # 9 is not listed, and 10 has ended.
        assert [child.pid for child in Processes(str(tmp_path)).children(7)] == [8]
