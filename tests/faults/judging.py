"""What the log of a forwarder and the audit log of a server tell of a client: did it retry too soon, did it mint too often."""

import datetime as dt
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reloader.backends.vault.own import TRIALS
from reloader.schedule import Backoff
from tests.servers.counting import Seen

LOGIN, RENEW, RENEW_TOKEN, REVOKE_TOKEN = "auth/approle/login", "sys/leases/renew", "auth/token/renew-self", "auth/token/revoke-self"
_READS = {
    "secret/app": ("/v1/secret/", "/v1/sys/internal/ui/mounts/secret", "/v1/sys/capabilities-self"),
    "database/creds/app": ("/v1/database/", "/v1/sys/internal/ui/mounts/database", f"/v1/{RENEW}"),
}
_OF_THE_TOKEN = {f"/v1/{LOGIN}", f"/v1/{RENEW_TOKEN}"}

_BACKOFF = Backoff()
_SLACK = 0.005
_HEARD = 0.005
"""After how many seconds the client knows that a request failed; what it began until then was under way for it."""
_SLOW = 0.3
"""How many seconds a request may need to the server."""
_ROUNDED = 1.0
"""What is left of a lifetime is told in whole seconds."""
_EARLY = 0.15
"""The share of its life that is left when something is issued anew at the earliest."""


def mean(requests: Iterable[Seen], since: float, until: float) -> float:
    """Return how many requests a second began in that time."""
    return sum(since <= seen.began < until for seen in requests) / (until - since)


def too_soon(requests: Sequence[Seen]) -> list[str]:
    """Return each retry that came sooner than the backoff of what failed allows."""
    token = [seen for seen in requests if seen.path in _OF_THE_TOKEN]
    reads = [seen for seen in requests if seen.path not in _OF_THE_TOKEN]
    return [*_alone_too_soon(reads), *_outage_too_soon(reads), *_token_too_soon(token)]


def _alone_too_soon(requests: Sequence[Seen]) -> list[str]:
    """Judge what failed by itself: the same request of the same token, after so many failures of it in a row."""
    found, alike = [], defaultdict(list)
    for seen in requests:
        alike[seen.method, seen.path, seen.token, seen.body].append(seen)
    for (_, path, *_), asked in alike.items():
        failures, last = 0, None
        for seen in asked:
            if last is not None and seen.began - last.ended < _BACKOFF.floor(failures) - _SLACK:
                found.append(f"{path} {seen.began - last.ended:.3f} s after its failure {failures} in a row")
            if not seen.failed:
                failures, last = 0, None
            elif seen.whole_server:
                last = None  # the whole server's backoff counts from here
            else:
                failures, last = failures + 1, seen
    return found


def _token_too_soon(requests: Sequence[Seen]) -> list[str]:
    """Judge the renewals of the token and the logins, which wait for no read; a login begins anew."""
    found, failures = [], defaultdict[str, list[Seen]](list)
    for seen in requests:
        before = failures[seen.path]
        if before and seen.began - before[-1].ended < _BACKOFF.floor(len(before)) - _SLACK:
            found.append(f"{seen.path} {seen.began - before[-1].ended:.3f} s after its failure {len(before)} in a row")
        if seen.failed:
            before.append(seen)
        elif seen.path == f"/v1/{LOGIN}":
            failures.clear()
        else:
            before.clear()
    return found


def _outage_too_soon(requests: Sequence[Seen]) -> list[str]:
    """Judge the time in which nothing but failures of the whole server came back: once two reads say so, one at a time may ask."""
    found, failures, under_way = [], list[Seen](), set[int]()
    events = sorted([(seen.began, 0, number) for number, seen in enumerate(requests)] + [(s.ended, 1, n) for n, s in enumerate(requests)])
    for at, ended, number in events:
        seen = requests[number]
        if ended:
            under_way.discard(number)
            failures = [*failures, seen] if seen.whole_server else []
            continue
        asked = failures[:1] + [failure for failure in failures[1:] if failure.began >= failures[0].ended]
        if len(asked) > 1 and {_read(failure) for failure in asked} != {_read(failures[0])} - {_read(seen)}:
            # What was under way since before the outage puts nothing off when it ends at last.
            known = len(asked) - sum(failure.began < failures[0].ended + _HEARD for failure in asked[1:])
            if at - asked[-1].ended < _BACKOFF.floor(known) - _SLACK:
                before = ", ".join(f"{failure.path} {failure.began - at:.3f} to {failure.ended - at:.3f}" for failure in asked)
                found.append(f"{seen.path} {at - asked[-1].ended:.3f} s after the server's failure {known} ({before})")
            if any(requests[other].began > asked[1].ended for other in under_way):
                found.append(f"{seen.path} beside another one, while the server fails")
        under_way.add(number)
    return found


def _read(seen: Seen) -> str:
    """Return what a request is for: a read of Vault needs several."""
    return next((path for path, ours in _READS.items() if seen.path.startswith(ours)), seen.path)


@dataclass(frozen=True)
class Answered:
    """What the server answered, by its audit log."""

    at: float
    """When it was asked, monotonic."""
    path: str
    token: str
    """Names the token with which it was asked, or that a login brought, without telling it."""
    lease: str
    refused: bool


def audit(file: Path) -> list[Answered]:
    """Return all answers, oldest first."""
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    asked = {entry["request"]["id"]: entry["time"] for entry in entries if entry["type"] == "request"}
    # One that comes while the server is being sealed is answered after that, with an error, and was never written down as asked.
    return [_answered(entry, asked.get(entry["request"]["id"], entry["time"])) for entry in entries if entry["type"] == "response"]


def _answered(entry: dict[str, Any], asked: str) -> Answered:
    request, response = entry["request"], entry.get("response") or {}
    at = dt.datetime.fromisoformat(asked).timestamp() - (time.time() - time.monotonic())
    token = request.get("client_token_accessor") or (response.get("auth") or {}).get("accessor", "")
    lease = (response.get("secret") or {}).get("lease_id", "")
    return Answered(at, request["path"], token, lease, refused=bool(entry.get("error")))


@dataclass
class _Current:
    """What was minted last, and what is known of it."""

    minted: Answered
    ends: float
    rounded: float
    gone: bool = False


def reasons_to_mint(answers: Iterable[Answered], path: str, *, term: float, most: float | None, lost: Sequence[Seen] = ()) -> list[str]:
    """Return why each thing was minted at `path`: "first", "end" of the one before, its "token" or its lease is "gone", or "no reason".

    `term` is how long it lives, `most` how long its lease can be renewed, None for what has no lease; answers that were `lost` on their
    way do not count.
    """
    reasons, current = [], None
    for answer in answers:
        if answer.path == path and not answer.refused:
            if not any(seen.began <= answer.at <= seen.ended for seen in lost):
                reasons.append(_reason(current, answer, term, leased=most is not None))
                current = _Current(answer, answer.at + term, _ROUNDED if most is None else 0.0)
        elif answer.path == RENEW and current is not None and most is not None:
            if answer.refused:
                current.gone = True
            elif answer.lease == current.minted.lease:
                current.ends = min(answer.at + term, current.minted.at + most)
                current.rounded = _ROUNDED if current.ends < answer.at + term else 0.0
    return reasons


def trials_too_soon(answers: Sequence[Answered]) -> list[str]:
    """Return each login on trial, whose token was revoked since it did not help, that came too soon after another such one."""
    given_back = {answer.token for answer in answers if answer.path == REVOKE_TOKEN}
    found, last = [], None
    for login in (answer for answer in answers if answer.path == LOGIN and not answer.refused):
        on_trial = login.token in given_back
        if on_trial and last is not None and login.at - last.at < TRIALS.ceiling(1) - _SLOW:
            found.append(f"a login on trial {login.at - last.at:.1f} s after the one before")
        last = login if on_trial else None
    return found


def _reason(current: _Current | None, answer: Answered, term: float, *, leased: bool) -> str:
    if current is None:
        return "first"
    if answer.at >= current.ends - term * _EARLY - current.rounded - _SLOW:
        return "end"
    if leased and current.gone:
        return "gone"
    return "token" if leased and answer.token != current.minted.token else "no reason"
