"""A token that we were given: it is looked up once and renewed where it can be, and whoever gave it has to give the next one."""

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, TypeVar

from reloader.backends.reads import ReadFailed
from reloader.backends.transport import fits_header
from reloader.backends.turns import Turns
from reloader.backends.vault.exchange import Answered, Exchange
from reloader.backends.vault.identity import Identity
from reloader.backends.vault.login import read_file
from reloader.backends.vault.token import Held, Life, Token, held
from reloader.plan import Vault
from reloader.snapshot import FailureKind
from reloader.world import World
from reloader.written import Secret

log = logging.getLogger(__name__)

LOOK = 2.0
"""Seconds between two looks into the file while nobody asks for a token: what hangs on the old one may end long before it is due."""

T = TypeVar("T")


class GivenIdentity(Identity):
    """The token of `vault.auth.token` or `token_file`; the file is read for each request, and now and then without one."""

    def __init__(self, plan: Vault, exchange: Exchange, turns: Turns, world: World) -> None:
        super().__init__(plan, exchange, turns, world)
        self._missed = 0
        """How many looks in a row found no token that is one."""

    def again(self, refused: Token, began: float, failed: Answered, send: Callable[[Token], T]) -> T:  # noqa: ARG002 - for logins
        """Send a request again if there is another token by now; see `Identity`."""
        with self._alone():
            known = self._current()
            if known.token.serial == refused.serial:
                raise self._gone(known) or failed
        return send(known.token)

    def keep(self) -> None:
        """Return None: whoever gave the token gives it to the next run too."""

    def adopt(self, kept: Mapping[str, Any]) -> None:
        """Take nothing."""

    def revoke(self) -> None:
        """Leave the token to whom it belongs."""

    def wake(self) -> None:
        """Do nothing: nothing is put off here."""

    def _serves(self, known: Held) -> bool:
        return known.token.text == self._given()

    def _obtain(self) -> Held:
        text = self._given()
        began = self._world.clock.now()
        # Without the default policy a token may not look itself up: nothing is known then, and it is used as it is.
        life = self._look_up(Token(text, "")) or Life(told=False)
        return held(text, life, began, self._world.random, ours=False)

    def _care(self, known: Held) -> None:
        self._renew(known)

    def _take(self, new: Held) -> None:
        if not new.life.renewable:
            self._let_end(new)
        if self._auth.token_file is not None:
            self._missed, self._look_at = 0, self._world.clock.now() + LOOK
        super()._take(new)

    def _look(self) -> None:
        """Take another token that is in the file by now; what is wrong with it, who asks for one is told."""
        now = self._world.clock.now()
        if now < self._look_at:
            return
        self._look_at = now + LOOK
        try:
            self._current()
            self._missed = 0
        except ReadFailed:
            self._missed += 1
            self._look_at = self._world.clock.now() + max(LOOK, self._backoff.delay(self._missed, self._world.random))

    def _ended(self, known: Held) -> None:
        """Take that a token has ended, unless whoever gave it had it renewed; a limited one is spared that question."""
        began = self._world.clock.now()
        try:
            life = self._look_up(known.token) if known.life.uses is None else None
        except ReadFailed:
            self._later(known)
            return
        if life is None:
            super()._ended(known)
        else:
            again = held(known.token.text, life, began, self._world.random, ours=False)
            again.failures = known.failures
            self._take(again)

    def _let_end(self, known: Held) -> None:
        """Say when a token ends that nothing renews."""
        known.due = known.token.ends
        if known.token.ends < inf:
            log.warning("the token of %s ends at %s and cannot be renewed; put a new one there before", self._where(), self._end(known))

    def _gone(self, known: Held) -> ReadFailed | None:
        """Return what to say where the server does not know the token any more; a limited one is spared the look-up."""
        if known.is_used_up:
            what = f"the token of {self._where()} was good for {known.life.uses} requests and is used up"
        elif known.life.told and known.life.uses is None and self._look_up(known.token) is None:
            ended = known.token.ends <= self._world.clock.now()
            what = f"the token of {self._where()} ended" + (f" at {self._end(known)}" if ended else " or was revoked")
        else:
            return None
        self._ends.pop(known.token.serial, None)
        failure = self._exchange.mistake(f"{what}; put a new one there")
        failure.kind = FailureKind.REFUSED
        return failure

    def _end(self, known: Held) -> str:
        wall = self._world.clock.wall() + known.token.ends - self._world.clock.now()
        return dt.datetime.fromtimestamp(wall, dt.UTC).isoformat(timespec="seconds")

    def _where(self) -> str:
        return f"vault.auth.token_file {self._auth.token_file}" if self._auth.token_file else "vault.auth.token (or VAULT_TOKEN)"

    def _given(self) -> Secret:
        if self._auth.token is not None:
            text = self._auth.token.reveal()
        elif self._auth.token_file is not None:
            text = read_file("token_file", self._auth.token_file, self._exchange)
        else:
            raise self._exchange.mistake("no token; set vault.auth.token_file, or VAULT_TOKEN in the environment")
        if not fits_header(text):
            raise self._exchange.mistake(f"{self._where()} holds no token: one line of printable characters was expected")
        return Secret(text)
