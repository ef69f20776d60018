"""Which process a match means."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reloader.plan import Verify
from reloader.targets import Held, Trouble
from reloader.targets._find import AMBIGUITY_LASTS, Match, masters, name_of
from reloader.targets.process import Settings, Target
from reloader.world import World
from reloader.world.clock import Clock
from reloader.world.processes import Process
from tests.targets.started import PRINT_SIGNALS, Beside, Started, Starter, sidecar, starter, unique
from tests.waiting import eventually


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def targets() -> Iterator["Targets"]:
    targets = Targets()
    yield targets
    targets.close()


class Targets:
    def __init__(self) -> None:
        self.made = []

    def __call__(self, world: World | None = None, **match) -> Target:
        target = Target(Settings(match=Match(**match)), Verify(), world or sidecar())
        self.made.append(target)
        return target

    def close(self) -> None:
        for target in self.made:
            target.close()


class Stepped(Clock):
    """The machine's clock, some seconds later."""

    later = 0.0

    def now(self) -> float:
        return super().now() + self.later


class Counting(Beside):
    scans = 0

    def all(self) -> Iterator[Process]:
        self.scans += 1
        return super().all()


def trouble(target: Target) -> Trouble:
    with pytest.raises(Held) as held:
        target.find()
    return held.value.trouble


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def processes(*rows: tuple[int, int, str, str]) -> dict[int, Process]:
    """Return a table of (pid, parent, comm, command line)."""
    return {
        pid: Process(pid=pid, parent=parent, comm=comm, argv=tuple(line.split(" ")), uid=0, started=float(pid))
        for pid, parent, comm, line in rows
    }


def pids_of_masters(table: dict[int, Process], pattern: str, own: int = 999) -> list[int]:
    matches = frozenset(pid for pid, process in table.items() if re.search(pattern, " ".join(process.argv)))
    return [process.pid for process in masters(table, matches, own)]


class TestNames:
    def test_a_whole_name_is_found(self, start, targets):
        name = unique()
        child = start.target(name)

        assert child.pid == targets(name=name).find().pid

    def test_a_part_of_a_name_is_no_match(self, start, targets):
        name = unique()
        start.target(name)

        assert trouble(targets(name=name[:-1])) is Trouble.ABSENT

    def test_a_name_longer_than_the_kernel_keeps_is_found(self, start, targets):
        name = unique("a-very-long-name")
        child = start.target(name)

        assert child.pid == targets(name=name).find().pid

    def test_of_two_long_names_that_the_kernel_cuts_alike_only_the_one_is_meant(self, start, targets):
        first, second = unique("a-very-long-name"), unique("a-very-long-name")
        start.target(first)
        child = start.target(second)

        assert child.pid == targets(name=second).find().pid

    def test_a_script_with_a_long_name_is_found_behind_its_interpreter(self, start, targets, tmp_path):
        script = tmp_path / unique("a-very-long-script")
        script.write_text(f"#!{Path(sys.executable).resolve()}\n{PRINT_SIGNALS.read_text()}")
        script.chmod(0o755)
        child = start.run(script)

        assert child.pid == targets(name=script.name).find().pid

    def test_a_module_that_python_runs_is_found_by_its_command_line(self, start, targets, tmp_path):
        module = unique("m").replace("-", "_")
        (tmp_path / f"{module}.py").write_text(PRINT_SIGNALS.read_text())
        child = start.run("env", "-C", tmp_path, sys.executable, "-m", module)

        assert child.pid == targets(cmdline=rf"python[\d.]* -m {module}$").find().pid

    def test_a_name_of_exactly_15_bytes_that_shows_nowhere_in_the_arguments_is_itself(self):
        process = Process(pid=1, parent=0, comm="fifteen-bytes-x", argv=("postgres: writer",), uid=0, started=0)

        assert name_of(process) == "fifteen-bytes-x"


class TestConditions:
    def test_all_conditions_must_hold(self, start, targets):
        name = unique()
        child = start.target(name, "this one")
        start.target(name, "other")

        assert child.pid == targets(name=name, cmdline="this one", uid=os.getuid()).find().pid
        assert trouble(targets(name=name, cmdline="this one", uid=os.getuid() + 1)) is Trouble.ABSENT

    def test_a_pid_file_is_trimmed(self, start, targets, tmp_path):
        child = start.target(unique())
        (tmp_path / "pid").write_text(f"  {child.pid} \nwhat else PostgreSQL writes\n")

        assert child.pid == targets(pidfile=str(tmp_path / "pid")).find().pid

    @pytest.mark.parametrize("content", ["", "\n", "nginx", "-1", "0", "12.5", "²", str(2**40)])
    def test_a_pid_file_with_anything_else_names_nobody(self, targets, tmp_path, content):
        (tmp_path / "pid").write_text(content)

        assert trouble(targets(pidfile=str(tmp_path / "pid"))) is Trouble.ABSENT

    def test_a_pid_file_that_is_a_pipe_makes_nobody_wait(self, targets, tmp_path):
        os.mkfifo(tmp_path / "pid")

        assert trouble(targets(pidfile=str(tmp_path / "pid"))) is Trouble.ABSENT

    def test_a_pid_file_that_is_not_there_yet_names_nobody(self, targets, tmp_path):
        assert trouble(targets(pidfile=str(tmp_path / "pid"))) is Trouble.ABSENT

    def test_a_pid_file_older_than_the_process_was_written_by_another(self, start, targets, tmp_path):
        child = start.target(unique())
        (tmp_path / "pid").write_text(str(child.pid))
        os.utime(tmp_path / "pid", (1, 1))

        assert trouble(targets(pidfile=str(tmp_path / "pid"))) is Trouble.ABSENT

    def test_a_pid_file_older_than_the_process_is_believed_when_the_name_fits_too(self, start, targets, tmp_path):
        name = unique()
        child = start.target(name)
        (tmp_path / "pid").write_text(str(child.pid))
        os.utime(tmp_path / "pid", (1, 1))

        assert child.pid == targets(pidfile=str(tmp_path / "pid"), name=name).find().pid

    def test_a_pid_file_that_names_a_successor_is_followed(self, start, targets, tmp_path):
        """An upgrade of NGINX in place: the old master still runs."""
        name = unique()
        old, new = start.target(name), start.target(name)
        (tmp_path / "pid").write_text(str(old.pid))
        target = targets(pidfile=str(tmp_path / "pid"), name=name)

        assert old.pid == target.find().pid
        (tmp_path / "pid").write_text(str(new.pid))
        assert new.pid == target.find().pid

    def test_what_no_process_can_satisfy_is_a_mistake(self):
        mistakes = {
            key
            for settings in (Settings(), Settings(match=Match(uid=-1)), Settings(match=Match(name="x"), signal=9))
            for key, _ in settings.mistakes()
        }

        assert mistakes == {"match", "match.uid", "signal"}
        assert not list(Settings(match=Match(name="nginx")).mistakes())


class TestTrees:
    def test_the_topmost_of_a_tree_is_the_master(self, start, targets):
        name = unique()
        child = start.target(name, "--workers", "3", expect="workers")

        assert child.pid == targets(name=name).find().pid

    def test_a_shell_around_the_target_is_seen_through(self, start, targets):
        name = unique()
        command = f"{start.interpreter(name)} {PRINT_SIGNALS}; true"
        shell = start.run("sh", "-c", command)

        found = targets(cmdline=name).find()

        assert found.pid != shell.pid
        assert sidecar().processes.look(found.pid).parent == shell.pid

    def test_a_wrapper_that_was_found_first_gives_way_to_what_it_starts(self, start, targets):
        name = unique()
        shell = start.run("sh", "-c", f"echo up; read line; {start.interpreter(name)} {PRINT_SIGNALS}; true")
        target = targets(cmdline=name)
        assert shell.pid == target.find().pid

        shell.say()
        shell.hear("up")

        assert shell.pid != target.find().pid

    def test_a_shell_script_that_is_all_there_is_can_be_meant(self, start, targets):
        name = unique()
        shell = start.run("sh", "-c", f"trap 'echo hup' HUP; echo up; while read {name.replace('-', '_')}; do :; done")

        assert shell.pid == targets(cmdline=name.replace("-", "_")).find().pid

    @pytest.mark.parametrize(
        "wrapper", ["/sbin/tini -- app", "/usr/bin/dumb-init app", "/bin/sh -c app;true", "sudo -E app", "-bash -c app"]
    )
    def test_wrappers_of_a_match_are_not_meant(self, wrapper):
        table = processes((10, 0, "w", wrapper), (11, 10, "sh", "sh -c app"), (12, 11, "app", "app"), (13, 12, "app", "app"))

        assert pids_of_masters(table, "app") == [12]

    def test_a_match_below_others_that_do_not_match_is_still_no_master(self):
        table = processes((10, 0, "app", "app"), (11, 10, "helper", "helper"), (12, 11, "app", "app --once"))

        assert pids_of_masters(table, "app") == [10]

    def test_the_sandbox_is_never_meant(self):
        assert pids_of_masters(processes((1, 0, "pause", "/pause"), (7, 0, "x", "x")), ".") == [7]

    def test_a_shell_around_the_sidecar_is_not_meant(self):
        """Its arguments name the target too."""
        table = processes(
            (10, 0, "sh", "sh -c reloader run --process app;"), (11, 10, "reloader", "reloader run --process app"), (20, 0, "app", "app")
        )

        assert pids_of_masters(table, "app", own=11) == [20]

    def test_a_ring_of_reused_pids_ends(self):
        assert pids_of_masters(processes((10, 11, "app", "app"), (11, 10, "x", "x")), "app") == [10]

    def test_the_sidecar_and_what_it_started_are_never_meant(self, start, targets, tmp_path):
        """A check such as `nginx -t` bears the target's name."""
        name = unique()
        start.target(name)
        (tmp_path / "pid").write_text(str(os.getpid()))

        assert trouble(targets(World(), name=name)) is Trouble.ABSENT
        assert trouble(targets(World(), pidfile=str(tmp_path / "pid"))) is Trouble.ABSENT

    def test_what_has_ended_and_is_not_reaped_is_not_there(self, start, targets):
        name = unique()
        child = start.target(name)
        os.kill(child.pid, 9)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

        assert trouble(targets(name=name)) is Trouble.ABSENT


class TestSeveral:
    def test_several_unrelated_matches_are_waited_for_then_listed(self, start, targets):
        name, clock = unique(), Stepped()
        children = [start.target(name, "secret-argument") for _ in range(2)]
        target = targets(replace(sidecar(), clock=clock), name=name)

        assert trouble(target) is Trouble.NOT_READY
        clock.later = AMBIGUITY_LASTS - 1
        assert trouble(target) is Trouble.NOT_READY
        clock.later = AMBIGUITY_LASTS + 0.1
        with pytest.raises(Held) as held:
            target.find()
        assert held.value.trouble is Trouble.AMBIGUOUS
        assert all(f"{name} (pid {child.pid}, uid {os.getuid()})" in str(held.value) for child in children)
        assert "secret-argument" not in str(held.value)

    def test_the_one_that_is_left_is_found_and_a_later_doubt_waits_anew(self, start, targets):
        name, clock = unique(), Stepped()
        first, second = start.target(name), start.target(name)
        target = targets(replace(sidecar(), clock=clock), name=name)
        assert trouble(target) is Trouble.NOT_READY
        clock.later = AMBIGUITY_LASTS + 1
        assert trouble(target) is Trouble.AMBIGUOUS

        first.kill()
        assert second.pid == target.find().pid

        second.kill()
        start.target(name)
        start.target(name)
        assert trouble(target) is Trouble.NOT_READY

    def test_a_process_that_is_held_stays_the_one(self, start, targets):
        name, world = unique(), World(processes=Counting())
        child = start.target(name)
        target = targets(world, name=name)
        target.find()
        start.target(name)

        assert child.pid == target.find().pid
        assert world.processes.scans == 1


class TestEnds:
    def test_a_restarted_process_is_found_anew(self, start, targets):
        name = unique()
        old = start.target(name)
        target = targets(name=name)
        before = target.find()

        old.kill()
        assert trouble(target) is Trouble.ABSENT
        new = start.target(name)

        after = target.find()
        assert (new.pid, before.boot) == (after.pid, after.boot)
        assert before != after

    def test_its_end_wakes_who_waits_and_then_wakes_no_more(self, start, targets):
        name = unique()
        child = start.target(name)
        target = targets(name=name)
        target.find()
        (descriptor,) = target.descriptors()
        poll = Polled(descriptor)
        assert not poll.readable(0)

        os.kill(child.pid, 9)

        assert poll.readable(10_000)
        assert target.descriptors() == (descriptor,)  # for all it knows nobody was woken by it yet
        assert target.descriptors() == ()

    def test_a_process_that_becomes_another_program_is_let_go(self, start, targets):
        name = unique()
        shell: Started = start.run("sh", "-c", f"echo up; read {name.replace('-', '_')}; exec sleep 1000")
        target = targets(cmdline=name.replace("-", "_"))
        assert shell.pid == target.find().pid

        shell.say()

        eventually(lambda: trouble(target) is Trouble.ABSENT)
        assert target.descriptors() == ()

    def test_nothing_stays_open(self, start, targets):
        name = unique()
        target = targets(name=name)
        before = open_descriptors()
        for _ in range(3):
            child = start.target(name)
            target.find()
            child.stop()
            assert trouble(target) is Trouble.ABSENT

        # Each process has left us its two pipes, closed again.
        assert open_descriptors() == before


class Polled:
    def __init__(self, descriptor: int) -> None:
        import select

        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def readable(self, milliseconds: int) -> bool:
        return bool(self._poll.poll(milliseconds))


def test_a_stranger_that_got_the_pid_is_not_found_in_its_place(tmp_path):
    """Run in a pid namespace of its own, where the next pid can be chosen."""
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "tests.targets.reuse_pid", str(tmp_path)],
        cwd=PRINT_SIGNALS.parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no pid namespace to be had: {done.stderr.strip()}")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("untouched") == 2


class Executing(Beside):
    """Shows a process as it is for some milliseconds while it executes itself, as HAProxy's master does at each reload: no arguments."""

    pid = 0

    def look(self, pid: int) -> Process:
        process = super().look(pid)
        return replace(process, argv=("",)) if pid == self.pid else process


def test_a_held_process_that_executes_itself_is_kept(start, targets):
    """Its arguments are gone for that moment, and its worker's are not: the worker must not be taken for the one that is meant."""
    name, executing = unique(), Executing()
    master = start.target(name, "--workers", "1", expect="workers")
    target = targets(World(processes=executing), cmdline=name)
    instance = target.find()
    executing.pid = master.pid
    assert target.find() == instance
    assert instance.pid == master.pid


def test_a_worker_is_not_taken_while_its_master_executes_itself(start, targets):
    """Found anew at that moment, nobody is meant; a moment later it is the master."""
    name, executing = unique(), Executing()
    executing.pid = start.target(name, "--workers", "1", expect="workers").pid
    target = targets(World(processes=executing), cmdline=name)
    assert trouble(target) is Trouble.NOT_READY
    master, executing.pid = executing.pid, 0
    assert target.find().pid == master


def test_of_all_processes_nobody_is_meant_where_the_only_one_executes_itself(start, targets):
    """An empty answer would mean that nobody owes anything."""
    name, executing = unique(), Executing()
    executing.pid = start.target(name, "--workers", "1", expect="workers").pid
    target = targets(World(processes=executing), cmdline=name, all=True)
    assert trouble(target) is Trouble.NOT_READY
    master, executing.pid = executing.pid, 0
    assert target.find().pid == master


PRETENDING = "import ctypes, sys; ctypes.CDLL(None).prctl(15, sys.argv[1].encode()); print(flush=True); sys.stdin.read()"


@pytest.mark.skipif(os.getuid() != 0, reason="takes root to become another user")
class TestPretenders:
    @pytest.fixture
    def pretender(self) -> Iterator[Starter]:
        """Starts a process of another user that calls itself, and is called, as it likes."""
        started = []

        def start(name: str, *argv: str) -> subprocess.Popen[str]:
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", PRETENDING, name, *argv]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            started.append(process)
            process.stdout.readline()
            return process

        yield start
        for each in started:
            each.kill()
            each.communicate()

    def test_one_that_takes_the_name_keeps_the_signal_away_from_both(self, start, targets, pretender):
        """It is not clear which is meant, so nobody is asked, and that is told with both users."""
        name = unique()[:15]
        child, other = start.target(name), pretender(name)
        clock = Stepped()
        target = targets(replace(sidecar(), clock=clock), name=name)

        assert trouble(target) is Trouble.NOT_READY
        clock.later = AMBIGUITY_LASTS + 1
        with pytest.raises(Held, match=rf"2 processes match .*\(pid {child.pid}, uid 0\).*\(pid {other.pid}, uid 65534\)"):
            target.find()

    @pytest.mark.parametrize("by", ["name", "cmdline"])
    def test_the_user_tells_it_apart(self, start, targets, pretender, by):
        """A name is anyone's to take, and a user is not."""
        name = unique()[:15]
        child = start.target(name)
        pretender(name, name)

        assert targets(**{by: name}, uid=0).find().pid == child.pid
