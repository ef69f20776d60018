"""For how long an answer of Vault holds: pure functions of the answer and the time."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from reloader import schedule

LEAST_INTERVAL = 1.0
"""The least seconds between two issues of the same, however short its lifetime: lifetimes are told in whole seconds."""


class NotNow(Exception):
    """The answer is about to be replaced by the server."""


class OverAlready(Exception):
    """The answer ended before it came."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How an answer ends. At most one of `lasts` and `rotates` is set; where neither is, it stays until somebody changes it."""

    lasts: float | None = None
    """Seconds until it ends."""
    rotates: float | None = None
    """Seconds until the server puts another one in its place."""
    lease: str = ""
    """The name under which the server keeps its end; empty for what ends without (a certificate)."""
    renewable: bool = False

    def due(self, began: float, rng: random.Random) -> float:
        """Return when something is to be done about an answer that was asked for at `began`; infinite for nothing by itself."""
        if self.rotates is not None:
            return schedule.rotation(began, self.rotates)
        if self.lasts is None:
            return inf
        if self.renewable:
            return schedule.renewal(began, self.lasts, rng)
        return self.anew(began, rng)

    def anew(self, began: float, rng: random.Random) -> float:
        """Return when it is issued anew, unless it was renewed until then."""
        return inf if self.lasts is None else max(schedule.reissue(began, self.lasts, rng), began + LEAST_INTERVAL)


def terms_of(answer: Mapping[str, Any], wall: float) -> Terms:
    """Return the terms of an answer that was asked for at `wall`, in seconds since the epoch.

    Raises:
        NotNow: it is being rotated, and the next one is not there yet.
        OverAlready: it has ended: a certificate by this machine's clock, a lease by what the server says.

    """
    lease, lasts = str(answer.get("lease_id") or ""), answer.get("lease_duration")
    if lease and lasts:  # KV v1 names a duration without a lease
        if float(lasts) < LEAST_INTERVAL:
            raise OverAlready
        return Terms(lasts=float(lasts), lease=lease, renewable=bool(answer.get("renewable")))
    data = answer.get("data")
    return _terms_of_fields(data, wall) if isinstance(data, dict) else Terms()


def _terms_of_fields(data: Mapping[str, Any], wall: float) -> Terms:
    """Return the terms that the fields of an answer without a lease tell."""
    if {"rotation_period", "rotation_schedule"} & data.keys() and (ttl := _number(data.get("ttl"))) is not None:
        if ttl <= 0:
            raise NotNow
        return Terms(rotates=ttl)
    if (ttl := _number(data.get("secret_id_ttl"))) is not None and "secret_id" in data:
        if ttl < 0:
            raise OverAlready
        return Terms(lasts=ttl or None)
    if (end := _number(data.get("expiration"))) is not None:
        if end <= wall:
            raise OverAlready
        return Terms(lasts=end - wall)
    return Terms()


def _number(told: Any) -> float | None:
    """Return a number that may be told as one or as a text, by the server's version."""
    try:
        number = float(told)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if isfinite(number) else None
