"""What counts as a proof that a process took the configuration."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest

from reloader.plan import Verify
from reloader.targets import Judgement, Verdict, Verification
from reloader.targets._find import Match
from reloader.targets._proofs import LATEST, SOONEST, Turnover
from reloader.targets.process import Settings, Target
from reloader.world import World
from reloader.world.clock import Clock
from reloader.world.processes import Child
from tests.servers.nginx import HTTP_DEFAULTS, Nginx
from tests.servers.ports import free_port
from tests.targets.started import Beside, Starter, sidecar, starter, unique, wait_taken
from tests.waiting import eventually

ALIVE = Verify(within=2.0)
WORKERS = Verify(workers=True, within=5.0)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    with starter(tmp_path) as start:
        yield start


class Stepped(Clock):
    """The machine's clock, some seconds later."""

    later = 0.0

    def now(self) -> float:
        return super().now() + self.later


@pytest.fixture
def clock() -> Stepped:
    return Stepped()


@pytest.fixture
def world(clock: Stepped) -> World:
    return replace(sidecar(), clock=clock)


class Listed(Beside):
    """Shows the children that a test lists."""

    listed: frozenset[Child] = frozenset()

    def children(self, pid: int) -> frozenset[Child]:
        return self.listed


class Late(Beside):
    """Lists children only once a process that was stopped has gone on and started some."""

    goes_on = False

    def children(self, pid: int) -> frozenset[Child]:
        before = super().children(pid)
        if self.goes_on:
            self.goes_on = False
            os.kill(pid, signal.SIGCONT)
            return eventually(lambda: (now := super(Late, self).children(pid)) - before and now, every=0.001)
        return before


def decided(verification: Verification) -> Judgement:
    """Return the first judgement that is not pending."""
    return eventually(lambda: (seen := verification.judge()).verdict is not Verdict.PENDING and seen, every=0.005)


def reloaded(name: str, verify: Verify, world: World) -> Verification:
    """Have it reload, and return what proves that, once it has the signal."""
    target = Target(Settings(match=Match(name=name)), verify, world)
    instance = target.find()
    verification = target.reload(instance)
    wait_taken(instance.pid)
    return verification


def verified(name: str, verify: Verify, world: World) -> Verification:
    target = Target(Settings(match=Match(name=name)), verify, world)
    return target.verify(target.find())


class TestAlive:
    def test_one_that_lives_on_is_confirmed_when_the_time_is_over(self, start, world, clock):
        name = unique()
        start.target(name)
        verification = reloaded(name, ALIVE, world)

        seen = verification.judge()
        assert (seen.verdict, verification.proves_completion) == (Verdict.PENDING, False)
        assert seen.look_at > clock.now() + 1

        clock.later = 2
        assert verification.judge().verdict is Verdict.CONFIRMED

    def test_one_that_dies_of_the_new_set_is_seen_at_once(self, start, world):
        name = unique()
        child = start.target(name, "--die-on-hup")
        verification = reloaded(name, ALIVE, world)
        child.hear("signal SIGHUP")

        judgement = decided(verification)

        assert judgement.verdict is Verdict.ENDED
        assert f"pid {child.pid} ended within 2 s of SIGHUP" in judgement.reason

    def test_a_death_stays_seen_when_the_process_was_found_anew(self, start, world):
        name = unique()
        child = start.target(name)
        target = Target(Settings(match=Match(name=name)), ALIVE, world)
        verification = target.reload(target.find())
        child.kill()
        start.target(name)
        target.find()

        assert verification.judge().verdict is Verdict.ENDED

    def test_a_start_counts_from_the_start(self, start, world, clock):
        name = unique()
        child = start.target(name)
        verification = verified(name, ALIVE, world)
        assert verification.judge().verdict is Verdict.PENDING
        clock.later = 2
        assert verification.judge().verdict is Verdict.CONFIRMED
        assert verified(name, ALIVE, world).judge().verdict is Verdict.CONFIRMED

        verification = verified(name, Verify(within=60.0), world)
        child.kill()
        judgement = verification.judge()
        assert judgement.verdict is Verdict.ENDED
        assert "of its start" in judgement.reason


class TestBusy:
    """A process that has the signal before it, as NGINX has while it looks up a name."""

    def asked(self, start: Starter, world: World, verify: Verify, *options: str) -> tuple[Verification, int]:
        name = unique()
        child = start.target(name, "--workers", "1", *options, expect="workers")
        child.hear("up")
        os.kill(child.pid, signal.SIGSTOP)
        target = Target(Settings(match=Match(name=name)), verify, world)
        return target.reload(target.find()), child.pid

    @pytest.mark.parametrize("verify", [WORKERS, ALIVE], ids=["workers", "alive"])
    def test_what_was_not_taken_in_its_time_is_unknown_and_newer_content_need_not_wait(self, start, world, clock, verify):
        verification, pid = self.asked(start, world, verify)
        assert (verification.judge().verdict, verification.proves_completion) == (Verdict.PENDING, verify is WORKERS)

        clock.later = verify.within
        judgement = verification.judge()
        assert (judgement.verdict, verification.proves_completion) == (Verdict.UNKNOWN, False)
        assert judgement.reason == f"pid {pid} has not taken SIGHUP yet: it is busy, or stopped"

        clock.later = 0
        verification.judge()
        os.kill(pid, signal.SIGCONT)
        wait_taken(pid)
        clock.later = 0 if verify.workers else verify.within
        assert decided(verification).verdict is Verdict.CONFIRMED

    def test_its_time_begins_when_it_takes_the_signal(self, start, world, clock):
        verification, pid = self.asked(start, world, WORKERS, "--refuse")
        clock.later = WORKERS.within - 0.1
        assert verification.judge().verdict is Verdict.PENDING

        os.kill(pid, signal.SIGCONT)
        wait_taken(pid)
        clock.later = WORKERS.within * 1.5
        assert verification.judge().verdict is Verdict.PENDING
        clock.later = WORKERS.within * 2
        assert verification.judge().verdict is Verdict.PENDING  # and it is asked once more

        wait_taken(pid)
        clock.later = WORKERS.within * 2.5
        assert verification.judge().verdict is Verdict.PENDING
        clock.later = WORKERS.within * 3.1
        assert verification.judge().verdict is Verdict.REFUSED

    def test_one_that_took_the_signal_late_is_asked_once_more(self, start, world, clock):
        """What it started meanwhile may be of a signal before; and HAProxy loses what it is sent while it reads a configuration."""
        table = Listed()
        verification, pid = self.asked(start, replace(world, processes=table), WORKERS, "--refuse")
        clock.later = 1
        verification.judge()
        os.kill(pid, signal.SIGCONT)
        wait_taken(pid)
        verification.judge()
        table.listed = frozenset([Child(pid=2, started=clock.now())])
        clock.later = 2
        assert verification.judge().verdict is Verdict.PENDING
        wait_taken(pid)
        assert verification.judge().verdict is Verdict.PENDING

        table.listed |= {Child(pid=3, started=clock.now())}
        clock.later = 3

        assert verification.judge().verdict is Verdict.CONFIRMED

    def test_a_look_that_comes_late_is_no_signal_that_was_taken_late(self, start, world, clock):
        """It is the sidecar that was busy."""
        name = unique()
        child = start.target(name)
        verification = reloaded(name, ALIVE, world)
        clock.later = 2
        assert verification.judge().verdict is Verdict.CONFIRMED
        child.hear("signal SIGHUP")
        assert child.end() == []

    def test_one_that_had_a_signal_to_take_already_is_asked_once_more(self, start, world):
        name = unique()
        child = start.target(name)
        os.kill(child.pid, signal.SIGSTOP)
        eventually(lambda: "State:\tT" in Path(f"/proc/{child.pid}/status").read_text(), what="the stop")
        os.kill(child.pid, signal.SIGHUP)
        target = Target(Settings(match=Match(name=name)), Verify(within=0.1), world)
        verification = target.reload(target.find())
        os.kill(child.pid, signal.SIGCONT)

        assert decided(verification).verdict is Verdict.CONFIRMED
        child.hear("signal SIGHUP")
        child.hear("signal SIGHUP")
        assert child.end() == []

    def test_workers_that_come_before_are_of_an_earlier_signal(self, start, world, clock):
        table = Listed()
        verification, pid = self.asked(start, replace(world, processes=table), WORKERS, "--refuse")
        table.listed = frozenset([Child(pid=2, started=clock.now())])
        clock.later = 1
        assert verification.judge().verdict is Verdict.PENDING

        os.kill(pid, signal.SIGCONT)
        wait_taken(pid)
        clock.later = 2
        assert verification.judge().verdict is Verdict.PENDING

    def test_a_signal_that_is_taken_during_a_look_is_proved_all_the_same(self, start, world):
        """What is listed then may be what the signal started."""
        table = Late()
        verification, _pid = self.asked(start, replace(world, processes=table), WORKERS)
        table.goes_on = True

        assert decided(verification).verdict is Verdict.CONFIRMED
        assert not table.goes_on

    def test_one_that_ends_before_is_seen(self, start, world):
        verification, pid = self.asked(start, world, WORKERS)
        os.kill(pid, signal.SIGKILL)
        assert decided(verification).verdict is Verdict.ENDED


class TestWorkers:
    @pytest.mark.parametrize("options", [(), ("--linger",)], ids=["old ones end at once", "old ones linger"])
    def test_new_workers_confirm_at_once(self, start, world, options):
        name = unique()
        start.target(name, "--workers", "2", *options, expect="workers")
        verification = reloaded(name, WORKERS, world)

        assert verification.proves_completion
        assert decided(verification).verdict is Verdict.CONFIRMED

    def test_without_new_workers_it_is_refused_when_the_time_is_over(self, start, world, clock):
        name = unique()
        child = start.target(name, "--workers", "2", "--refuse", expect="workers")
        verification = reloaded(name, WORKERS, world)
        child.hear("up")
        child.hear("signal SIGHUP")
        assert verification.judge().verdict is Verdict.PENDING

        clock.later = 5

        judgement = verification.judge()
        assert judgement.verdict is Verdict.REFUSED
        assert f"pid {child.pid} has no new workers 5 s after SIGHUP" in judgement.reason

    def test_a_worker_that_crashed_and_was_replaced_is_no_proof(self, start, world, clock):
        name = unique()
        child = start.target(name, "--workers", "2", "--refuse", expect="")
        workers = child.hear("workers")[1:]
        child.hear("up")
        verification = reloaded(name, WORKERS, world)
        child.hear("signal SIGHUP")

        os.kill(int(workers[0]), signal.SIGKILL)
        child.hear(f"replaced {workers[0]}")

        assert verification.judge().verdict is Verdict.PENDING
        clock.later = 5
        assert verification.judge().verdict is Verdict.REFUSED

    def test_a_master_that_dies_is_seen_at_once(self, start, world):
        name = unique()
        child = start.target(name, "--workers", "2", "--die-on-hup", expect="workers")
        verification = reloaded(name, WORKERS, world)
        child.hear("up")
        child.hear("signal SIGHUP")

        judgement = decided(verification)

        assert judgement.verdict is Verdict.ENDED
        assert "ended" in judgement.reason

    def test_looks_are_dense_at_first_then_sparse_and_never_after_the_end(self, start, world, clock):
        name = unique()
        start.target(name, "--workers", "1", "--refuse", expect="workers")
        verification = reloaded(name, WORKERS, world)

        waits = []
        for later in (0, 3, 4.95):
            clock.later = later
            before = clock.now()
            waits.append((verification.judge().look_at - before, clock.now() - before))
        (first, _), (second, _), (last, took) = waits
        assert SOONEST <= first < LATEST <= second
        assert last < LATEST + took

    def test_workers_that_end_at_once_are_no_proof(self, start, world, clock):
        """NGINX takes what its workers cannot work with, and its old ones end all the same."""
        name, table = unique(), Listed()
        start.target(name)
        table.listed = frozenset([Child(pid=2, started=1.0)])
        verification = reloaded(name, WORKERS, replace(world, processes=table))

        table.listed |= {Child(pid=3, started=clock.now())}
        assert verification.judge().verdict is Verdict.PENDING
        table.listed = frozenset()
        clock.later = 1
        assert verification.judge().verdict is Verdict.PENDING
        clock.later = 5
        assert verification.judge().verdict is Verdict.REFUSED

    def test_a_start_is_confirmed_by_a_worker(self, start, world, clock):
        name = unique()
        start.target(name, "--workers", "1", expect="workers")
        clock.later = 3600

        assert verified(name, WORKERS, world).judge().verdict is Verdict.CONFIRMED

    def test_a_start_without_a_worker_is_refused_when_the_time_is_over(self, start, world, clock):
        name = unique()
        start.target(name)
        verification = verified(name, WORKERS, world)
        assert verification.judge().verdict is Verdict.PENDING

        clock.later = 5

        assert verification.judge().verdict is Verdict.REFUSED


def children(*pids: int, started: float = 1.0) -> frozenset[Child]:
    return frozenset(Child(pid=pid, started=started) for pid in pids)


class TestProof:
    """The signal is sent at 10."""

    @pytest.mark.parametrize(
        ("before", "old", "new", "proven"),
        [
            ((1, 2), (1, 2), (3,), True),  # all old ones live: it replaces none
            ((1, 2), (2,), (3,), False),  # it may replace the one that ended
            ((1, 2), (2,), (3, 4), True),  # it cannot replace both
            ((1, 2), (), (3,), False),
            ((1, 2), (), (3, 4), True),  # as many as there were
            ((1, 2, 3, 4), (1, 2, 3), (5, 6), True),  # it cannot replace both
            ((1, 2), (1, 2), (), False),
            ((), (), (), False),
            ((), (), (1,), True),
        ],
    )
    def test_new_ones_count_when_they_replace_none(self, before, old, new, proven):
        proof = Turnover().proof(children(*before), 10.0)

        assert bool(proof(children(*old) | children(*new, started=10.0))) is proven

    def test_what_an_earlier_reload_superseded_may_end_at_any_time(self):
        """As NGINX's old workers do when their last connection ends."""
        turnover = Turnover()
        assert turnover.proof(children(1, 2), 10.0)(children(1, 2) | children(3, 4, started=10.0))

        proof = turnover.proof(children(1, 2) | children(3, 4, started=10.0), 20.0)

        assert not proof(children(3, 4, started=10.0))
        assert not proof(children(3, started=10.0) | children(5, started=20.0))
        assert proof(children(3, 4, started=10.0) | children(5, started=20.0))
        assert proof(children(5, 6, started=20.0))

    def test_what_somebody_elses_reload_superseded_just_now_may_end_at_any_time(self):
        """Another pipeline may have asked the same NGINX 100 ms ago."""
        before = children(1, started=5.0) | children(2, 3, started=9.9)
        proof = Turnover().proof(before, 10.0)

        assert proof(children(3, started=9.9) | children(4, 5, started=10.0))
        assert not proof(children(3, started=9.9) | children(4, started=10.0))
        assert proof(children(4, 5, started=10.0))

    def test_what_is_older_than_the_others_for_long_is_a_worker_like_them(self):
        before = children(1, started=1.0) | children(2, started=5.0)
        proof = Turnover().proof(before, 10.0)

        assert not proof(children(3, started=10.0))
        assert not proof(children(2, started=5.0) | children(3, started=10.0))

    def test_one_that_took_a_pid_of_an_old_one_is_new(self):
        assert Turnover().proof(children(1), 10.0)(children(1, started=10.5))

    def test_one_that_is_older_than_the_signal_is_not_new(self):
        assert not Turnover().proof(children(1), 10.0)(children(1, 2, started=1.0))

    def test_a_start_time_is_rounded_down(self):
        assert Turnover().proof(children(1), 10.004)(children(1) | children(2, started=10.0))


@pytest.mark.servers
class TestNginx:
    """The real one."""

    @pytest.fixture
    def site(self, nginx: Callable[[Path, Path], Nginx], tmp_path: Path) -> "Site":
        return Site(nginx, tmp_path)

    @pytest.fixture
    def target(self, site: "Site", world: World) -> Iterator[Target]:
        target = Target(Settings(match=Match(name="nginx", cmdline="master process", pidfile=site.pidfile)), WORKERS, world)
        yield target
        target.close()

    def test_the_master_is_found_and_its_start_is_confirmed(self, target, site):
        assert site.nginx.pid == target.find().pid
        assert decided(target.verify(target.find())).verdict is Verdict.CONFIRMED

    def test_good_content_is_confirmed_by_new_workers(self, target, site):
        for content in ("second", "third", "fourth"):
            site.write(content)
            assert decided(target.reload(target.find())).verdict is Verdict.CONFIRMED
            eventually(lambda content=content: site.served() == content)

    def test_broken_content_is_refused_and_the_old_workers_serve_on(self, target, site, clock):
        site.conf.write_text("no such directive;")
        verification = target.reload(target.find())
        eventually(lambda: "unknown directive" in site.nginx.error_log.read_text())
        assert verification.judge().verdict is Verdict.PENDING

        clock.later = 5

        assert verification.judge().verdict is Verdict.REFUSED
        assert site.served() == "first"


class Site:
    """An NGINX with two workers that serves one word."""

    def __init__(self, nginx: Callable[[Path, Path], Nginx], folder: Path) -> None:
        self._port = free_port()
        self.conf = folder / "nginx.conf"
        self.pidfile = str(folder / "prefix" / "nginx.pid")
        self.write("first")
        self.nginx = nginx(folder / "prefix", self.conf)
        self.nginx.start()

    def write(self, content: str) -> None:
        server = f'server {{ listen 127.0.0.1:{self._port}; return 200 "{content}"; }}'
        self.conf.write_text(f"worker_processes 2; events {{}} http {{ {HTTP_DEFAULTS} {server} }}")

    def served(self) -> str:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
