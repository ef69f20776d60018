"""A token of a Vault or OpenBao server: what the server told of it, and when it is renewed or replaced."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Any

from reloader.schedule import renewal
from reloader.world import World
from reloader.world.clock import Clock
from reloader.written import Secret

MARGIN = 20.0
"""How many seconds before its end a token is replaced at the latest, where it has that long: a login may be slow."""
_FULL = 0.95
"""What share of the usual term a renewal brings that is not cut short; the server rounds to whole seconds."""


@dataclass(frozen=True)
class Token:
    """A token of the server."""

    text: Secret
    serial: str
    """Names it without telling it, and is equal for the same token."""
    ends: float = inf
    """When it ends, on the boot clock, and with it every lease that is issued with it; later, once it is renewed."""
    ours: bool = False
    """Whether we logged in for it, so that it is ours to renew, keep and revoke."""
    batch: bool = False
    """Whether it is one that no server revokes before its end."""

    @property
    def revocable(self) -> bool:
        """Return whether we may end it, and with it what was issued with it."""
        return self.ours and not self.batch


@dataclass(frozen=True, kw_only=True)
class Life:
    """What is known of a token's life."""

    left: float = inf
    """How many seconds it lives if nobody renews it."""
    term: float = inf
    """How many seconds a renewal usually brings."""
    renewable: bool = False
    uses: int | None = None
    """How many requests it is good for, None for any number."""
    told: bool = True
    """Whether the server told all that."""
    serial: str = ""
    batch: bool = False

    @classmethod
    def of_login(cls, auth: Mapping[str, Any]) -> "Life":
        """Return what a login or a renewal told; a duration of 0 never ends."""
        term = float(auth.get("lease_duration") or inf)
        batch = auth.get("token_type") == "batch"
        return cls(
            # A batch token holds its end in whole seconds, so that it ends up to one earlier (measured with OpenBao 2.7).
            left=max(0.0, term - 1) if batch else term,
            term=term,
            renewable=bool(auth.get("renewable")),
            uses=int(auth.get("num_uses") or 0) or None,
            serial=str(auth.get("accessor") or ""),
            batch=batch,
        )

    @classmethod
    def of_look_up(cls, data: Mapping[str, Any]) -> "Life":
        """Return what a look-up told; it was a use itself, and -1 means that it was the last one."""
        left = max(1.0, float(data.get("ttl") or 0)) if data.get("expire_time") else inf  # told in whole seconds
        return cls(
            left=left,
            term=float(data.get("period") or data.get("creation_ttl") or inf),
            renewable=bool(data.get("renewable")),
            uses=max(0, int(data["num_uses"])) if data.get("num_uses") else None,
            serial=str(data.get("accessor") or ""),
            batch=data.get("type") == "batch",
        )


@dataclass(eq=False)
class Held:
    """A token that is in use."""

    token: Token
    life: Life
    due: float
    """When it is to be renewed or replaced."""
    replace_at: float
    """From when on it is replaced rather than renewed, where that is possible."""
    uses: int | None
    failures: int = 0
    """How many renewals failed in a row."""

    @property
    def is_used_up(self) -> bool:
        """Return whether it was good for some requests, and they were made."""
        return self.uses == 0

    def kept(self, clock: Clock) -> dict[str, Any]:
        """Return it as plain JSON, with times of the wall clock, for `adopted`."""
        return {
            "text": self.token.text.reveal(),
            "serial": self.token.serial,
            "ends": None if self.token.ends == inf else clock.wall() - clock.now() + self.token.ends,
            "term": None if self.life.term == inf else self.life.term,
            "renewable": self.life.renewable,
            "batch": self.life.batch,
        }

    @classmethod
    def adopted(cls, kept: Any, world: World) -> "Held | None":
        """Return the token that was kept, if it still lives; renewed at once where less than a third of its term is left."""
        match kept:
            case {"text": str(text), "serial": str(serial), "ends": ends, "term": term, "renewable": bool(renewable), "batch": bool(batch)}:
                left = inf if ends is None else float(ends) - world.clock.wall()
                life = Life(left=left, term=term or inf, renewable=renewable, serial=serial, batch=batch)
            case _:
                return None
        if left <= 0:
            return None
        now = world.clock.now()
        known = held(Secret(text), life, now, world.random, ours=True)
        if left < life.term / 3:
            known.due = now
        return known


def held(text: Secret, life: Life, began: float, rng: Random, *, ours: bool) -> Held:
    """Return a token that was had by a request that `began` then; its life counts from there, so that it is never thought too long."""
    token = Token(text, life.serial or secrets.token_hex(8), began + life.left, ours, life.batch)
    replace_at = replacement(began, life.left, rng)
    # A limited token of ours is not renewed, since that would be one use less: it is replaced.
    renewable = life.renewable and not (ours and life.uses)
    due = renewal(began, life.left, rng) if renewable else replace_at
    return Held(token, life, min(due, replace_at), replace_at, life.uses)


def renewed(before: Held, life: Life, began: float, rng: Random) -> Held:
    """Return a token after a renewal; one that grew less than usual is near its end, which no renewal puts off."""
    token = before.token
    final = not life.renewable or life.left < _FULL * before.life.term
    known = Life(left=life.left, term=before.life.term, renewable=not final, uses=before.life.uses, serial=token.serial, batch=token.batch)
    after = held(token.text, known, began, rng, ours=token.ours)
    after.uses = before.uses
    return after


def replacement(now: float, left: float, rng: Random) -> float:
    """Return when a token is replaced that cannot be renewed: at 80 to 90 % of what is left, so that both live side by side."""
    margin = min(MARGIN, left / 5)
    return min(now + left * rng.uniform(0.8, 0.9), now + left - margin)
