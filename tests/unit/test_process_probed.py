"""Processes that are asked whether they are ready and whether they took the set, and several of them at once."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reloader.plan import Tls, Verify
from reloader.targets import Held, Judgement, Trouble, Verdict, Verification
from reloader.targets._asking import Said
from reloader.targets._find import Match
from reloader.targets._probes import http
from reloader.targets._ready import Ready
from reloader.targets.process import MIN_UPTIME, Settings, Target
from reloader.world import World
from reloader.world.clock import Clock
from tests.servers.certificates import Authority
from tests.servers.misbehaving import Misbehaving, hang, misbehaving
from tests.servers.ports import free_port
from tests.targets.started import Starter, sidecar, starter, unique
from tests.waiting import eventually


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with misbehaving(lambda exchange: exchange.answer("well")) as server:
        yield server


class Stepped(Clock):
    """The machine's clock, some seconds later."""

    later = 0.0

    def now(self) -> float:
        return super().now() + self.later


@pytest.fixture
def make() -> Iterator[Callable[..., Target]]:
    made = []

    def make(name: str, verify: Verify | None = None, *, world: World | None = None, every: bool = False, **settings) -> Target:
        made.append(Target(Settings(match=Match(name=name, all=every), **settings), verify or Verify(), world or sidecar()))
        return made[-1]

    yield make
    for target in made:
        target.close()


def decided(verification: Verification) -> Judgement:
    return eventually(lambda: (seen := verification.judge()).verdict is not Verdict.PENDING and seen, every=0.005)


def held(target: Target) -> Held:
    instance = target.find()
    with pytest.raises(Held) as held:
        target.reload(instance)
    return held.value


def reloads(target: Target) -> bool:
    target.reload(target.find())
    return True


class TestVerify:
    @pytest.mark.parametrize("ask", ["reload", "verify"])
    def test_the_right_answer_of_a_living_process_confirms(self, start, server, make, ask):
        name = unique()
        start.target(name)
        target = make(name, Verify(http=server.address, within=20.0))

        verification = getattr(target, ask)(target.find())

        assert verification.proves_completion
        assert decided(verification).verdict is Verdict.CONFIRMED

    def test_nothing_is_asked_before_the_signal_is_sent(self, start, server, make):
        name = unique()
        start.target(name, "--handler", "ignore")
        held(make(name, Verify(http=server.address)))

        assert server.exchanges == []

    def test_a_wrong_answer_refuses_and_the_signal_is_not_repeated(self, start, make):
        name = unique()
        child = start.target(name)
        clock = Stepped()
        target = make(name, Verify(command=("false",), within=600.0), world=replace(sidecar(), clock=clock))
        verification = target.reload(target.find())
        eventually(lambda: (verification.judge(), verification._proof._no)[1])

        clock.later = 600
        judgement = verification.judge()

        assert judgement.verdict is Verdict.REFUSED
        assert "'false' ended with status 1, 600 s after SIGHUP" in judgement.reason
        child.hear("signal SIGHUP")
        assert child.end() == []

    def test_no_answer_is_unknown_and_the_signal_is_not_repeated(self, start, server, make):
        name = unique()
        child = start.target(name)
        server.behave = hang
        target = make(name, Verify(http=server.address, within=0.1))
        verification = target.reload(target.find())
        assert decided(verification).verdict is Verdict.UNKNOWN

        server.behave = lambda exchange: exchange.answer("well")

        assert eventually(lambda: verification.judge().verdict is Verdict.CONFIRMED)
        child.hear("signal SIGHUP")
        assert child.end() == []

    def test_its_end_is_seen_although_somebody_answers_wrongly(self, start, server, make):
        name = unique()
        start.target(name, "--die-on-hup")
        server.behave = lambda exchange: exchange.answer("", status=503)
        target = make(name, Verify(http=server.address, within=20.0))

        assert decided(target.reload(target.find())).verdict is Verdict.ENDED


class TestReady:
    """The process has the mask of a Go program, which proves nothing."""

    def answering(self, server: Misbehaving, *, status: int = 200) -> None:
        server.behave = lambda exchange: exchange.answer("", status=status)

    def test_http_holds_the_signal_until_it_answers_well(self, start, server, make):
        name = unique()
        child = start.target(name, "--like-go")
        self.answering(server, status=503)
        target = make(name, ready=Ready(http=server.address))
        eventually(lambda: "target.ready.http: status 503, expected 200" in str(held(target)))
        assert held(target).trouble is Trouble.NOT_READY

        self.answering(server)

        eventually(lambda: reloads(target))
        child.hear("signal SIGHUP")
        assert child.end() == []

    def test_tcp_holds_it_until_the_port_takes_connections(self, start, make):
        name, port = unique(), free_port()
        child = start.target(name, "--like-go")
        target = make(name, ready=Ready(tcp=f"127.0.0.1:{port}"))
        eventually(lambda: "takes no connection (Connection refused)" in str(held(target)))

        with socket.create_server(("127.0.0.1", port)):
            eventually(lambda: reloads(target))
        child.hear("signal SIGHUP")

    def test_a_file_holds_it_until_this_very_process_may_have_written_it(self, start, make, tmp_path):
        name, file = unique(), tmp_path / "ready"
        file.touch()
        os.utime(file, (1, 1))
        child = start.target(name, "--like-go")
        target = make(name, ready=Ready(file=str(file)))
        eventually(lambda: "is older than the process" in str(held(target)))
        file.unlink()
        eventually(lambda: "No such file or directory" in str(held(target)))

        file.touch()

        eventually(lambda: reloads(target))
        child.hear("signal SIGHUP")

    def test_it_is_asked_once_and_again_of_a_new_process(self, start, server, make):
        name = unique()
        child = start.target(name)
        target = make(name, ready=Ready(http=server.address))
        eventually(lambda: reloads(target))
        self.answering(server, status=503)
        reloads(target)

        child.kill()
        start.target(name)

        eventually(lambda: "status 503" in str(held(target)))

    def test_nobody_waits_for_its_answer(self, start, server, make):
        name = unique()
        start.target(name)
        server.behave = hang
        target = make(name, ready=Ready(http=server.address))

        assert "no answer yet" in str(held(target))

    def test_a_mask_that_tells_of_a_sure_death_counts_more_than_a_good_answer(self, start, server, make):
        name = unique()
        child = start.target(name, "--handler", "none")
        target = make(name, ready=Ready(http=server.address))
        target.find()
        eventually(lambda: server.exchanges)

        assert "no handler for SIGHUP" in str(held(target))
        assert child.running


class TestMinUptime:
    def test_it_holds_the_signal_until_the_process_is_that_old(self, start, make):
        name, clock = unique(), Stepped()
        child = start.target(name)
        target = make(name, world=replace(sidecar(), clock=clock), min_uptime=60.0)
        assert "until it is 60 s old" in str(held(target))

        clock.later = 60.0
        reloads(target)

        child.hear("signal SIGHUP")

    def test_a_shorter_one_does_not_make_up_for_a_mask_that_proves_nothing(self, start, make):
        name = unique()
        start.target(name, "--like-go")

        assert f"until it is {MIN_UPTIME:g} s old" in str(held(make(name, min_uptime=0.01)))


class TestAll:
    def test_each_that_matches_is_signalled_and_confirmed_by_itself(self, start, make):
        name = unique()
        children = [start.target(name, *options) for options in ((), (), ("--die-on-hup",))]
        target = make(name, Verify(within=0.3), every=True)
        instances = target.instances()
        assert {instance.pid for instance in instances} == {child.pid for child in children}
        assert len(target.descriptors()) == 3

        verdicts = {instance.pid: target.reload(instance) for instance in instances}

        for child in children:
            child.hear("signal SIGHUP")
        assert [decided(verdicts[child.pid]).verdict for child in children] == [Verdict.CONFIRMED, Verdict.CONFIRMED, Verdict.ENDED]

    def test_one_that_comes_later_joins_and_those_that_are_held_stay_held(self, start, make):
        name = unique()
        first = start.target(name)
        target = make(name, Verify(within=20.0), every=True)
        verification = target.reload(target.find())
        descriptors = target.descriptors()

        second = start.target(name)

        assert {instance.pid for instance in target.instances()} == {first.pid, second.pid}
        assert target.descriptors()[: len(descriptors)] == descriptors
        assert verification.judge().verdict is Verdict.PENDING

    def test_one_that_ends_is_let_go_and_the_others_stay(self, start, make):
        name = unique()
        first, second = start.target(name), start.target(name)
        target = make(name, every=True)
        target.instances()

        first.kill()

        assert [instance.pid for instance in target.instances()] == [second.pid]
        assert len(target.descriptors()) == 1
        second.kill()
        with pytest.raises(Held) as held:
            target.instances()
        assert held.value.trouble is Trouble.ABSENT

    def test_workers_are_told_apart_by_their_master(self, start, make):
        name = unique()
        good = start.target(name, "--workers", "2", expect="workers")
        bad = start.target(name, "--workers", "2", "--refuse", expect="workers")
        target = make(name, Verify(workers=True, within=2.0), every=True)

        verdicts = {instance.pid: target.reload(instance) for instance in target.instances()}

        assert set(verdicts) == {good.pid, bad.pid}
        assert decided(verdicts[good.pid]).verdict is Verdict.CONFIRMED
        assert decided(verdicts[bad.pid]).verdict is Verdict.REFUSED

    def test_one_that_executes_a_program_just_now_is_not_let_go(self, start, make):
        """A search misses it for some milliseconds, because it has no arguments."""
        name = unique()
        child = start.target(name)

        class Executing(type(sidecar().processes)):
            now = False

            def look(self, pid):
                seen = super().look(pid)
                return replace(seen, argv=("",), comm="x") if self.now and pid == child.pid else seen

        processes = Executing()
        target = make(name, Verify(within=20.0), world=World(processes=processes), every=True)
        verification = target.reload(target.find())

        processes.now = True

        assert [instance.pid for instance in target.instances()] == [child.pid]
        assert verification.judge().verdict is Verdict.PENDING

    def test_all_alone_names_nobody(self):
        assert [key for key, _ in Settings(match=Match(all=True)).mistakes()] == ["match"]


class TestTls:
    """A probe of a server whose authority is no public one."""

    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path / "authority")

    @pytest.fixture
    def server(self, authority: Authority) -> Iterator[Misbehaving]:
        certificate, key = authority.issue("127.0.0.1")
        with misbehaving(lambda exchange: exchange.answer("well"), (str(certificate), str(key))) as server:
            yield server

    def verified(self, start: Starter, make: Callable[..., Target], server: Misbehaving, tls: Tls) -> Judgement:
        name = unique()
        start.target(name)
        target = make(name, Verify(http=f"{server.address}/is?token=CANARY", tls=tls, within=5.0))
        return decided(target.verify(target.find()))

    def test_one_that_its_authority_vouches_for_is_believed(self, start, make, server, authority):
        assert self.verified(start, make, server, Tls(ca_file=str(authority.ca_file))).verdict is Verdict.CONFIRMED

    @pytest.mark.parametrize("theirs", [False, True], ids=["public authorities", "another authority"])
    def test_any_other_is_no_answer_and_what_mends_that_is_told(self, start, make, server, tmp_path, theirs):
        ca_file = str(Authority(tmp_path / "other").ca_file) if theirs else None
        judgement = self.verified(start, make, server, Tls(ca_file=ca_file))

        assert judgement.verdict is Verdict.UNKNOWN
        assert judgement.reason.startswith("target.verify.http: TLS failed: ")
        assert judgement.reason.endswith(f" (https://127.0.0.1:{server.port}); check target.verify.tls.* and target.verify.http")
        assert server.exchanges == []

    def test_a_file_that_is_missing_is_named(self, start, make, server):
        assert "/nowhere/ca.pem" in self.verified(start, make, server, Tls(ca_file="/nowhere/ca.pem")).reason

    def test_a_name_may_be_expected_in_the_place_of_the_address(self, start, make, authority):
        certificate, key = authority.issue("app.test")
        trusting = Tls(ca_file=str(authority.ca_file))
        with misbehaving(lambda exchange: exchange.answer("well"), (str(certificate), str(key))) as server:
            assert self.verified(start, make, server, trusting).verdict is Verdict.UNKNOWN
            assert self.verified(start, make, server, replace(trusting, server_name="app.test")).verdict is Verdict.CONFIRMED

    @pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
    def test_anyone_is_believed_where_that_is_asked_for(self, start, make, server):
        assert self.verified(start, make, server, Tls(verify=False)).verdict is Verdict.CONFIRMED

    def test_that_anyone_is_believed_is_warned_about(self, server):
        with pytest.warns(Warning, match="Unverified HTTPS"):
            assert http(sidecar(), server.address, key="target.verify.http", tls=Tls(verify=False))(5.0).said is Said.YES

    def test_readiness_is_asked_the_same_way(self, start, make, server, authority):
        name = unique()
        child = start.target(name, "--like-go")
        wanted = f"(https://127.0.0.1:{server.port}); check target.ready.tls.* and target.ready.http"
        distrusting = make(name, ready=Ready(http=server.address))
        eventually(lambda: str(held(distrusting)).endswith(wanted))

        target = make(name, ready=Ready(http=server.address, tls=Tls(ca_file=str(authority.ca_file))))
        eventually(lambda: reloads(target))
        child.hear("signal SIGHUP")
