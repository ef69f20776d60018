"""A token that we log in for: renewed before its time, and replaced by a new login before its end.

So what was issued with the old one can be had anew while that still lives.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

from requests import codes

from reloader.backends.reads import ReadFailed
from reloader.backends.transport import fits_header
from reloader.backends.turns import Turns
from reloader.backends.vault.exchange import Answered, Exchange
from reloader.backends.vault.identity import Identity
from reloader.backends.vault.login import Logins
from reloader.backends.vault.token import Held, Token, held
from reloader.plan import Vault
from reloader.schedule import Backoff
from reloader.world import World

log = logging.getLogger(__name__)

TRIALS = Backoff(base=60.0, cap=3600.0)
"""How long no other token is tried after a trial that did not help: it is the policy that has to be mended then."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Other:
    """Another token for a request that was denied."""

    held: Held
    on_trial: bool = False
    """Whether the one in use lives, and stays unless this one helps."""
    is_new: bool = True
    """Whether we logged in for it on account of this request."""
    no_trial_before: float = -inf
    """What was known of trials then: what helped says nothing of those that came later."""


class OwnIdentity(Identity):
    """The token of a login; a login that failed is not tried again before its time, whoever asks for a token."""

    def __init__(self, plan: Vault, exchange: Exchange, turns: Turns, world: World) -> None:
        super().__init__(plan, exchange, turns, world)
        self._logins = Logins(plan, exchange)
        self._failures = 0
        self._failed: ReadFailed | None = None
        self._not_before = -inf
        self._trials = 0
        self._no_trial_before = -inf
        self._look_ups_tell = False
        self._seen_alive: dict[str, float] = {}

    def again(self, refused: Token, began: float, failed: Answered, send: Callable[[Token], T]) -> T:
        """Send a request again that was denied; see `Identity`.

        The token is looked up once. One that ended is replaced. One that lives is replaced on trial, since the rights of its role may have
        changed; if that does not help, it stays, the new one is revoked, and there is no such trial for a while.
        """
        with self._alone():
            other = self._instead_of(refused, began, failed)
        helped = True
        try:
            return send(other.held.token)
        except ReadFailed as still:
            helped = isinstance(still, Answered) and still.status != codes.forbidden
            raise
        finally:
            with self._alone():
                self._judge(other, helped=helped)

    def keep(self) -> dict[str, Any] | None:
        """Return the token and the unwrapped secret_id; see `Identity`."""
        secret_id, known = self._logins.secret_ids.keep(), self._held
        kept = {"secret_id": secret_id} if secret_id else {}
        # Nobody knows how many uses of a limited one would be left.
        if known is not None and known.life.uses is None and self.lives(known.token):
            kept["token"] = known.kept(self._world.clock)
        return kept or None

    def adopt(self, kept: Mapping[str, Any]) -> None:
        """Take what `keep` returned, as far as it lives; before the first request."""
        self._logins.secret_ids.adopt(kept.get("secret_id"))
        adopted = Held.adopted(kept.get("token"), self._world)
        if adopted is not None and fits_header(adopted.token.text.reveal()):
            self._take(adopted)

    def revoke(self) -> None:
        """Revoke the current token."""
        known, self._held = self._held, None
        if known is not None:
            self._revoke(known)

    def wake(self) -> None:
        """Log in and try another token whenever that is asked for."""
        self._not_before = self._no_trial_before = -inf
        self._failures = self._trials = 0

    def _serves(self, known: Held) -> bool:
        return known.uses != 0 and self.lives(known.token)

    def _obtain(self) -> Held:
        began = self._world.clock.now()
        if self._failed is not None and began < self._not_before:
            raise ReadFailed(self._failed.kind, str(self._failed), everywhere=True)
        try:
            text, life = self._logins.log_in()
        except ReadFailed as failed:
            self._failures += 1
            self._failed = failed
            # The reads that wait for a token have a longer backoff; this one is for whoever comes beside them.
            self._not_before = self._world.clock.now() + (failed.retry_after or 0.0) + self._backoff.floor(self._failures)
            raise
        finally:
            self._changed = True  # there may be a new secret_id even so
        self._failures, self._failed = 0, None
        return held(text, life, began, self._world.random, ours=True)

    def _look(self) -> None:
        """Do nothing: nobody else has a token for us."""

    def _care(self, known: Held) -> None:
        if self._world.clock.now() >= known.replace_at:
            self._let_end(known)
        else:
            self._renew(known)

    def _let_end(self, known: Held) -> None:
        """Replace a token that cannot be renewed."""
        try:
            new = self._obtain()
        except ReadFailed as failed:
            if self._failures <= 1:
                log.warning("no new vault token, tried again while the one in use lives: %s", failed)
            known.due = max(self._not_before, self._world.clock.now() + self._backoff.delay(max(1, self._failures), self._world.random))
        else:
            self._take(new)

    def _instead_of(self, refused: Token, began: float, failed: Answered) -> _Other:
        known = self._held
        if known is not None and known.token.serial != refused.serial and self._serves(known):
            return _Other(known, is_new=False)
        limited = known is not None and known.life.uses is not None
        lives = not limited and self._is_alive(refused, began)
        dead = not lives and (self._look_ups_tell or (known is not None and known.is_used_up))
        if not dead and self._world.clock.now() < self._no_trial_before:
            raise failed
        if lives:
            self._count_trial()  # from now on, so that others that are denied meanwhile do not each try one
        try:
            new = self._obtain()
        except ReadFailed:
            if not lives:
                raise
            raise failed from None
        if not lives:
            self._ends.pop(refused.serial, None)
            self._take(new)
        return _Other(new, on_trial=lives, no_trial_before=self._no_trial_before)

    def _is_alive(self, token: Token, began: float) -> bool:
        """Return whether a look-up knows the token; one that was made since the request began tells it too."""
        if self._seen_alive.get(token.serial, -inf) >= began:
            return True
        asked = self._world.clock.now()
        if self._look_up(token) is None:
            return False
        self._look_ups_tell = True
        self._seen_alive = {token.serial: asked}
        return True

    def _judge(self, other: _Other, *, helped: bool) -> None:
        if not other.is_new:
            return
        if helped:
            if self._no_trial_before == other.no_trial_before:
                self._trials, self._no_trial_before = 0, -inf
            if other.on_trial:
                self._take(other.held)
            return
        if other.on_trial:
            self._revoke(other.held)
            return
        self._count_trial()
        if other.held.life.uses is None:
            # Without the default policy no look-up tells whether a token lives, so that each one that is denied seems to have ended.
            with suppress(ReadFailed):
                self._is_alive(other.held.token, inf)

    def _count_trial(self) -> None:
        self._trials += 1
        self._no_trial_before = self._world.clock.now() + TRIALS.ceiling(self._trials)

    def _revoke(self, known: Held) -> None:
        self._ends.pop(known.token.serial, None)
        if known.life.batch:  # "batch tokens cannot be revoked"
            return
        try:
            self._exchange.send(known.token.text, "post", "auth/token/revoke-self", json={}, may_be_empty=True)
        except ReadFailed as failed:
            log.warning("vault token not revoked, it lives until its time is over: %s", failed)
