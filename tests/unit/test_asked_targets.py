"""Targets that are asked by a request or a command: what confirms, what refuses, and what is asked again."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reloader.plan import Tls, Verify
from reloader.targets import Held, Judgement, Trouble, Verdict, Verification, command, http
from reloader.targets._asking import Answer, Attempt, Said
from reloader.world import World
from reloader.world.clock import Clock
from reloader.written import Secret
from tests.servers.certificates import Authority
from tests.servers.misbehaving import Exchange, Misbehaving, cut, hang, misbehaving, redirect_to
from tests.servers.ports import free_port
from tests.waiting import eventually


def ok(exchange: Exchange) -> None:
    exchange.answer("well")


def failing(exchange: Exchange) -> None:
    exchange.answer("CANARY", status=500)


class Stepped(Clock):
    """The machine's clock, some seconds later."""

    later = 0.0

    def now(self) -> float:
        return super().now() + self.later


@pytest.fixture
def clock() -> Stepped:
    return Stepped()


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with misbehaving(ok) as server:
        yield server


def requested(address: str, verify: Verify | None = None, **settings) -> http.Target:
    return http.Target(http.Settings(url=f"{address}/-/reload", **settings), verify or Verify(), World())


def commanded(*argv: str, verify: Verify | None = None, clock: Clock | None = None, **settings) -> command.Target:
    return command.Target(command.Settings(command=argv, **settings), verify or Verify(), World(clock=clock or Clock()))


def reloaded(target: http.Target | command.Target) -> Verification:
    return target.reload(target.instances()[0])


def decided(verification: Verification) -> Judgement:
    return eventually(lambda: (seen := verification.judge()).verdict is not Verdict.PENDING and seen, every=0.005)


class TestRequest:
    def test_the_expected_status_confirms(self, server):
        verification = reloaded(requested(server.address))

        assert verification.proves_completion
        assert decided(verification).verdict is Verdict.CONFIRMED
        assert [exchange.target for exchange in server.exchanges] == ["/-/reload"]

    def test_headers_are_sent_and_never_told(self, server):
        target = requested(server.address, headers={"Authorization": Secret("Bearer CANARY")})

        assert decided(reloaded(target)).verdict is Verdict.CONFIRMED
        assert server.exchanges[0].headers["authorization"] == "Bearer CANARY"
        assert "CANARY" not in repr(http.Settings(url="http://a", headers={"a": Secret("CANARY")}))

    def test_another_status_refuses_and_the_body_is_not_told(self, server):
        server.behave = failing

        judgement = decided(reloaded(requested(server.address)))

        assert judgement.verdict is Verdict.REFUSED
        assert judgement.reason == "target.url: status 500, expected 200"

    def test_a_redirect_is_an_answer_and_is_not_followed(self, server):
        server.behave = redirect_to("/elsewhere", 302)

        assert decided(reloaded(requested(server.address))).verdict is Verdict.REFUSED
        assert decided(reloaded(requested(server.address, status=302))).verdict is Verdict.CONFIRMED
        assert len(server.exchanges) == 2

    def test_what_nobody_received_is_asked_again_and_newer_content_need_not_wait(self):
        port = free_port()
        verification = reloaded(requested(f"http://127.0.0.1:{port}"))
        judgement = decided(verification)
        assert (judgement.verdict, verification.proves_completion) == (Verdict.UNKNOWN, False)
        assert judgement.reason == "target.url: Connection refused"

        with misbehaving(ok) as server:
            requested_there = reloaded(requested(server.address))
            verification._ask = requested_there._ask
            assert verification.judge().verdict is Verdict.UNKNOWN, "until there is an answer"
            assert verification.proves_completion
            assert eventually(lambda: verification.judge().verdict is Verdict.CONFIRMED)

    def test_without_an_answer_it_is_asked_again_for_nothing_else_can_confirm_it(self, server):
        server.behave = cut
        verification = reloaded(requested(server.address))
        assert decided(verification).verdict is Verdict.UNKNOWN

        server.behave = ok

        assert eventually(lambda: verification.judge().verdict is Verdict.CONFIRMED)
        assert len(server.exchanges) == 2

    def test_without_an_answer_a_proof_is_asked_rather_than_the_reload_again(self, server):
        server.behave = lambda exchange: cut(exchange) if exchange.path == "/-/reload" else exchange.answer("new")

        assert decided(reloaded(requested(server.address, Verify(http=f"{server.address}/is", body="new")))).verdict is Verdict.CONFIRMED
        assert [exchange.path for exchange in server.exchanges] == ["/-/reload", "/is"]

    def test_looking_does_not_wait_for_an_answer_and_no_second_reload_is_begun(self, server):
        server.behave = hang
        target = requested(server.address, timeout=20.0)
        verification = reloaded(target)
        eventually(lambda: server.exchanges)

        assert verification.judge().verdict is Verdict.PENDING
        with pytest.raises(Held) as held:
            reloaded(target)
        assert held.value.trouble is Trouble.NOT_READY

    def test_a_certificate_that_is_not_trusted_is_no_answer(self, tmp_path):
        authority = Authority(tmp_path)
        certificate, key = authority.issue("127.0.0.1")
        with misbehaving(ok, (str(certificate), str(key))) as server:
            judgement = decided(reloaded(requested(server.address)))
            assert judgement.verdict is Verdict.UNKNOWN
            assert "TLS failed" in judgement.reason
            assert server.exchanges == []

            trusting = requested(server.address, tls=Tls(ca_file=str(authority.ca_file)))
            assert decided(reloaded(trusting)).verdict is Verdict.CONFIRMED


class TestCommand:
    def test_status_0_confirms(self, tmp_path):
        ran = tmp_path / "ran"

        assert decided(reloaded(commanded("touch", str(ran)))).verdict is Verdict.CONFIRMED
        assert ran.exists()

    def test_another_status_refuses_and_what_it_wrote_is_not_told(self):
        judgement = decided(reloaded(commanded("sh", "-c", "echo CANARY; exit 3")))

        assert judgement == Judgement(verdict=Verdict.REFUSED, reason="target.command: 'sh' ended with status 3")

    def test_one_that_cannot_be_started_is_tried_again(self, tmp_path):
        program = tmp_path / "program"
        verification = reloaded(commanded(str(program)))
        judgement = decided(verification)
        assert judgement.verdict is Verdict.UNKNOWN
        assert "cannot be started: No such file or directory" in judgement.reason

        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)

        assert eventually(lambda: verification.judge().verdict is Verdict.CONFIRMED)

    def test_one_that_does_not_end_is_killed_with_all_that_it_started(self, tmp_path):
        pids = tmp_path / "pids"
        verification = reloaded(commanded("sh", "-c", f"sleep 1000 & echo $! > {pids}; wait", timeout=0.5))

        judgement = decided(verification)

        assert judgement.verdict is Verdict.UNKNOWN
        assert "did not end within 0.5 s and was killed" in judgement.reason
        eventually(lambda: not is_running(int(pids.read_text())))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestProof:
    """Of a reload that was asked for by a command, so that only the proof uses the server."""

    def proved(self, clock: Clock | None = None, **verify) -> Verification:
        return reloaded(commanded("true", verify=Verify(**verify), clock=clock))

    def over(self, verification: Verification, clock: Stepped, answered: str) -> Judgement:
        """Return the verdict at the end of a time in which it got such an answer."""
        eventually(lambda: (verification.judge(), getattr(verification._taken, answered))[1])
        clock.later = 600
        return verification.judge()

    @pytest.mark.parametrize(
        "expected",
        [
            {"status": 200},
            {"body": '"version": 7'},
            {"json": {"data.version": 7, "data.good": True, "data.hosts.1.name": "b"}},
        ],
        ids=lambda expected: next(iter(expected)),
    )
    def test_the_right_answer_confirms(self, server, expected):
        server.behave = lambda exchange: exchange.answer({"data": {"version": 7, "good": True, "hosts": [{}, {"name": "b"}]}})

        assert decided(self.proved(http=server.address, **expected)).verdict is Verdict.CONFIRMED

    @pytest.mark.parametrize(
        ("expected", "told"),
        [
            ({"status": 204}, "status 200, expected 204"),
            ({"body": "version 8"}, "the body does not match"),
            ({"json": {"version": 8}}, "version is not as expected"),
            ({"json": {"good": 1}}, "good is not as expected"),
            ({"json": {"version.x": 8}}, "the body has no version.x"),
            ({"json": {"hosts.2": 8}}, "the body has no hosts.2"),
        ],
    )
    def test_a_wrong_answer_refuses_when_the_time_is_over(self, server, clock, expected, told):
        server.behave = lambda exchange: exchange.answer({"version": 7, "good": True, "hosts": []})
        judgement = self.over(self.proved(clock, http=server.address, within=600.0, **expected), clock, "_no")

        assert judgement == Judgement(verdict=Verdict.REFUSED, reason=f"target.verify.http: {told}, 600 s after the request")

    def test_what_is_no_json_is_a_wrong_answer(self, server, clock):
        judgement = self.over(self.proved(clock, http=server.address, within=600.0, json={"a": 1}), clock, "_no")

        assert "the body is not JSON" in judgement.reason

    def test_it_is_asked_until_it_says_yes(self, server):
        server.behave = lambda exchange: exchange.answer("", status=503 if len(server.exchanges) < 3 else 200)

        assert decided(self.proved(http=server.address, within=20.0)).verdict is Verdict.CONFIRMED
        assert len(server.exchanges) == 3

    @pytest.mark.parametrize("behave", [hang, cut], ids=["no answer in time", "closed"])
    def test_no_answer_at_all_is_unknown_and_has_its_time_again(self, server, behave):
        server.behave = behave
        verification = self.proved(http=server.address, within=0.2)
        assert verification.proves_completion
        assert decided(verification).verdict is Verdict.UNKNOWN
        assert not verification.proves_completion

        server.behave = ok

        assert eventually(lambda: verification.judge().verdict is Verdict.CONFIRMED)

    def test_it_stays_unknown_until_there_is_an_answer_which_may_then_be_wrong_for_a_while(self, server):
        server.behave = cut
        verification = self.proved(http=server.address, within=0.2)
        assert decided(verification).verdict is Verdict.UNKNOWN
        assert verification.judge().verdict is Verdict.UNKNOWN

        server.behave = failing

        seen = eventually(lambda: (seen := verification.judge().verdict) is not Verdict.UNKNOWN and seen, every=0.005)
        assert seen is Verdict.PENDING
        assert eventually(lambda: verification.judge().verdict is Verdict.REFUSED)

    def test_a_wrong_answer_counts_even_if_none_comes_later(self, server, clock):
        def once(exchange: Exchange) -> None:
            failing(exchange) if len(server.exchanges) == 1 else hang(exchange)

        server.behave = once

        verification = self.proved(clock, http=server.address, within=600.0)
        eventually(lambda: (verification.judge(), len(server.exchanges) == 2)[1])
        clock.later = 600
        assert verification.judge().verdict is Verdict.REFUSED

    def test_a_command_says_yes_no_or_nothing(self, clock, tmp_path):
        there = tmp_path / "there"
        verification = self.proved(command=("test", "-e", str(there)), within=20.0)
        eventually(lambda: "ended with status 1" in (verification.judge(), verification._taken._no)[1])
        there.touch()
        assert decided(verification).verdict is Verdict.CONFIRMED

        judgement = self.over(self.proved(clock, command=("false",), within=600.0), clock, "_no")
        assert (judgement.verdict, "ended with status 1" in judgement.reason) == (Verdict.REFUSED, True)

        clock.later = 0
        judgement = self.over(self.proved(clock, command=("sh", "-c", "kill -9 $$"), within=600.0), clock, "_nothing")
        assert (judgement.verdict, "killed by signal 9" in judgement.reason) == (Verdict.UNKNOWN, True)

    def test_a_target_that_is_only_looked_at_is_proved_too(self, server):
        target = commanded("true", verify=Verify(http=server.address))

        assert decided(target.verify(target.instances()[0])).verdict is Verdict.CONFIRMED
        assert server.exchanges


class TestAttempt:
    def test_a_question_that_fails_is_no_answer_and_quotes_nothing(self):
        def fail(_seconds: float) -> Answer:
            raise KeyError("CANARY")

        attempt = Attempt(fail, 1.0)

        assert eventually(lambda: attempt.answer) == Answer(said=Said.NOTHING, reason="asking failed (KeyError)")

    def test_a_thread_that_cannot_be_started_is_no_answer(self, monkeypatch):
        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)

        assert Attempt(lambda _seconds: Answer(said=Said.YES), 1.0).answer.said is Said.NOTHING
