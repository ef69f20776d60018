"""What the storm of faults is judged by says no to what it should, and to nothing else."""

from pathlib import Path

import pytest
import requests

from tests.faults.eyes import Eyes, Judge, alike, paired
from tests.faults.judging import Answered, mean, reasons_to_mint, too_soon, trials_too_soon
from tests.servers.counting import Counting, Seen
from tests.servers.misbehaving import Exchange, misbehaving
from tests.waiting import eventually

SECRET, KEY, RENEW_TOKEN, LOGIN = "/v1/secret/data/app", "/v1/kv/app", "/v1/auth/token/renew-self", "/v1/auth/approle/login"
MINT, RENEW = "database/creds/app", "sys/leases/renew"


def seen(at: float, path: str = SECRET, status: int | None = 403, token: int = 1) -> Seen:
    return Seen(at, at + 0.01, path, "GET", token, status=status)


def outage(at: float, path: str = SECRET) -> Seen:
    return Seen(at, at + 0.01, path, "GET", status=503, whole_server=True)


LATE = Seen(-5, 0.3, KEY, "GET", status=500, whole_server=True)
"""A blocking query of before the outage."""


@pytest.mark.parametrize(
    ("asked", "late"),
    [
        ([seen(0), seen(0.1), seen(0.3), seen(0.7)], []),
        ([seen(0), seen(0.03)], ["0.020 s after its failure 1"]),
        ([seen(0), seen(0.1), seen(0.3), seen(0.4)], ["0.090 s after its failure 3"]),
        ([seen(0), seen(0.1, status=200), seen(0.12)], []),
        ([seen(0), seen(0.02, token=2)], []),
        ([seen(0, KEY, 404), seen(0.02, KEY, 404)], []),
        ([outage(0), outage(0.02, KEY), outage(0.2), outage(0.5, KEY)], []),
        ([outage(0), outage(0.02, KEY), outage(0.2), outage(0.35, KEY)], ["0.140 s after the server's failure 3"]),
        ([outage(0), outage(0.002, KEY), outage(0.1)], []),
        ([outage(0), outage(0.012, KEY), outage(0.1), outage(0.22, KEY)], []),
        ([outage(0), outage(0.1), outage(0.3), outage(0.32, KEY)], []),
        ([outage(0), outage(0.1), outage(0.15)], ["0.040 s after the server's failure 2"]),
        ([outage(0), outage(0.02, KEY), outage(0.3), seen(0.305, KEY)], ["beside another one"]),
        ([outage(0), outage(0.02, KEY), outage(0.2), LATE, outage(0.45, KEY)], []),
        ([outage(0), outage(0.02, KEY), seen(0.3, KEY, 200), outage(0.32)], []),
        ([seen(0, RENEW_TOKEN), seen(0.2, RENEW_TOKEN), seen(0.25, RENEW_TOKEN)], ["0.040 s after its failure 2"]),
        ([seen(0, RENEW_TOKEN), seen(0.1, LOGIN, 200), seen(0.12, RENEW_TOKEN)], []),
        ([outage(0), outage(0.02, KEY), outage(0.05, LOGIN), outage(0.15, RENEW_TOKEN), outage(0.2, LOGIN)], []),
        ([outage(0, LOGIN), outage(0.1, LOGIN), outage(0.2, LOGIN)], ["0.090 s after its failure 2"]),
    ],
)
def test_a_retry_that_came_too_soon_is_told(asked: list[Seen], late: list[str]) -> None:
    """Of what fails by itself, of a server that fails for all, and of the token."""
    told = too_soon(asked)
    assert len(told) == len(late)
    assert all(what in each for what, each in zip(late, told, strict=True))


def minted(at: float, lease: str = "a", token: str = "t") -> Answered:
    return Answered(at, MINT, token, lease, refused=False)


def renewed(at: float, lease: str = "a", *, refused: bool = False) -> Answered:
    return Answered(at, RENEW, "t", lease, refused=refused)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([minted(0), minted(5.1), minted(5.2)], ["first", "end", "no reason"]),
        ([minted(0), renewed(4), minted(5)], ["first", "no reason"]),
        ([minted(0), renewed(4), renewed(8), renewed(12), minted(14)], ["first", "end"]),
        ([minted(0), minted(4)], ["first", "no reason"]),
        ([minted(0), renewed(2, "other"), minted(5.1)], ["first", "end"]),
        ([minted(0), renewed(2, refused=True), minted(2.1), minted(2.2)], ["first", "gone", "no reason"]),
        ([minted(0), minted(1, token="u"), minted(2, token="u")], ["first", "token", "no reason"]),
    ],
)
def test_what_was_minted_without_need_is_told(answers: list[Answered], why: list[str]) -> None:
    """Each lease may be followed by one other, when its time, its token or the server ends it."""
    assert reasons_to_mint(answers, MINT, term=6, most=16) == why


@pytest.mark.parametrize(
    ("brought", "late"),
    [
        ([(0, "a"), (61, "b")], []),
        ([(0, "a"), (30, "b")], ["30.0 s after the one before"]),
        ([(0, "a"), (10, "useful"), (20, "b")], []),
    ],
)
def test_a_login_that_did_not_help_and_came_too_soon_is_told(brought: list[tuple[float, str]], late: list[str]) -> None:
    logins = [Answered(at, "auth/approle/login", token, "", refused=False) for at, token in brought]
    revoked = [Answered(99, "auth/token/revoke-self", token, "", refused=False) for token in "ab"]
    assert [what in told for what, told in zip(late, trials_too_soon(logins + revoked), strict=True)] == [True] * len(late)


def test_what_has_no_lease_is_minted_by_its_end_alone() -> None:
    assert reasons_to_mint([minted(0), minted(1, token="u"), renewed(2, refused=True), minted(3)], MINT, term=6, most=None) == [
        "first",
        "no reason",
        "no reason",
    ]


def test_what_was_lost_on_its_way_is_minted_again() -> None:
    lost = [Seen(1.9, 2.1, f"/v1/{MINT}")]
    answers = [minted(0), renewed(1, refused=True), minted(2), minted(3)]
    assert reasons_to_mint(answers, MINT, term=6, most=16, lost=lost) == ["first", "gone"]


@pytest.mark.parametrize(
    ("judge", "one", "two", "good"),
    [
        (alike(2), "a a", "a a", True),
        (alike(2), "a", "a", False),
        (alike(2), "a b", "a b", False),
        (alike(2), "a a", "b b", False),
        (alike(1), "", "", False),
        (paired, "user word", "user word", True),
        (paired, "user word", "user other", False),
        (paired, "", "", False),
    ],
)
def test_a_set_that_is_torn_or_blank_is_seen(judge: Judge, one: str, two: str, good: bool, tmp_path: Path) -> None:
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "one.conf").write_text(one)
    (tmp_path / "..1" / "two.conf").write_text(two)
    (tmp_path / "..data").symlink_to("..1")
    eyes = Eyes({"it": tmp_path}, {"it": judge})
    eyes.start()
    eventually(lambda: eyes.reads["it"] > 1)
    (tmp_path / "..data").rename(tmp_path / "gone")
    eventually(lambda: any("nothing is published" in each for each in eyes.bad))
    eyes.stop()

    assert any("one.conf" in each for each in eyes.bad) is not good


def test_the_forwarder_counts_what_gets_an_answer_and_what_gets_none(tmp_path: Path) -> None:
    """A refused connection is known by the client's own notes."""

    def answer(exchange: Exchange) -> None:
        exchange.answer({"errors": ["no leader"]}, status=500)

    connects = tmp_path / "connects"
    with misbehaving(answer) as server:
        counting = Counting(server.address)
        for token in ("one", "other", "one"):
            assert requests.get(f"{counting.address}/v1/a?index=1", headers={"X-Vault-Token": token}, timeout=5).status_code == 500
        last = counting.seen[-1].ended
    with pytest.raises(requests.ConnectionError):
        requests.put(f"{counting.address}/v1/b", data="x", timeout=5)
    counting.refuse()
    with pytest.raises(requests.ConnectionError, match="refused"):
        requests.get(f"{counting.address}/v1/c", timeout=5)
    since = counting._refused[0][0]
    connects.write_text(
        f"{since - 1} {counting.address.rpartition(':')[2]} /v1/b\n{since + 1} {counting.address.rpartition(':')[2]} /v1/c\n"
    )

    told = counting.requests(connects)
    assert [(each.path, each.method, each.token, each.body, each.status, each.whole_server) for each in told] == [
        ("/v1/a", "GET", 1, 0, 500, True),
        ("/v1/a", "GET", 2, 0, 500, True),
        ("/v1/a", "GET", 1, 0, 500, True),
        ("/v1/b", "PUT", 0, 3, None, False),
        ("/v1/c", "", 0, 0, None, True),
    ]
    assert mean(told, told[0].began, last) == 3 / (last - told[0].began)
