"""Who we are at a Vault or OpenBao server: what holds of a token however it is had.

Logins, look-ups and renewals are done one at a time, whichever thread finds them due.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any, TypeVar

from requests import codes

from reloader.backends.reads import ReadFailed, without_values
from reloader.backends.turns import Job, Turns
from reloader.backends.vault.exchange import DEADLINE, Answered, Exchange
from reloader.backends.vault.token import Held, Life, Token, renewed
from reloader.plan import Vault
from reloader.schedule import Backoff
from reloader.world import World

__all__ = ["REQUESTS", "Identity", "Token"]

log = logging.getLogger(__name__)

REQUESTS = 6
"""How many requests it takes at most to have another token: look-ups of the old and the new one, unwrapping, a login, revoking."""

_LOOK_UP, _RENEW = "auth/token/lookup-self", "auth/token/renew-self"
_UNKNOWN = (codes.bad_request, codes.unauthorized, codes.forbidden, codes.not_found)

T = TypeVar("T")


class Identity(ABC):
    """The token's life; used by several threads at once."""

    def __init__(self, plan: Vault, exchange: Exchange, turns: Turns, world: World) -> None:
        self._auth = plan.auth
        self._exchange = exchange
        self._turns = turns
        self._world = world
        self._backoff = Backoff()
        self._one_at_a_time = threading.Lock()
        self._lock = threading.Lock()
        self._held: Held | None = None
        self._ends: dict[str, float] = {}  # of each token that is not known to have ended
        self._followers: list[Callable[[Token, Token | None], None]] = []
        self._keepers: list[Callable[[], None]] = []
        self._news: list[tuple[Token, Token | None]] = []
        self._changed = self._closed = self._is_tended = False
        self._look_at = inf
        """When to look whether there is another token, though nobody asks for one."""
        self._job = Job(self._tend, 2 * REQUESTS * DEADLINE)

    @abstractmethod
    def again(self, refused: Token, began: float, failed: Answered, send: Callable[[Token], T]) -> T:
        """Send a request again that was denied when it `began` with a token, with another one where that may help.

        Raises:
            ReadFailed: it is still denied (`failed`, where there is no other), or there is no token any more.

        """

    @abstractmethod
    def _serves(self, known: Held) -> bool:
        """Return whether this token is the one to use."""

    @abstractmethod
    def _obtain(self) -> Held:
        """Return a token to use from now on, or raise ReadFailed."""

    @abstractmethod
    def _care(self, known: Held) -> None:
        """Renew or replace a token that lives and is due."""

    def token(self) -> Token:
        """Return the token to use now; one is had where there is none.

        Raises:
            ReadFailed: there is none.

        """
        known = self._held
        if known is not None and self._serves(known):
            return known.token
        with self._alone():
            return self._current().token

    def spend(self, token: Token) -> None:
        """Take that a request is made with a token: it may be good for some number of them."""
        with self._lock:
            if self._held is not None and self._held.token.serial == token.serial and self._held.uses:
                self._held.uses -= 1

    def lives(self, token: Token) -> bool:
        """Return whether a token of this run, or one that was adopted, is not known to have ended."""
        return self._world.clock.now() < self._ends.get(token.serial, -inf)

    def on_new_token(self, tell: Callable[[Token, Token | None], None]) -> None:
        """Call `tell(old, new)` from now on when there is a new token: what was issued with the old one ends with it.

        `new` is None where the old one has ended and there is none yet.
        """
        self._followers.append(tell)

    def on_change(self, tell: Callable[[], None]) -> None:
        """Call `tell()` from now on when `keep` may return something else: a wrapping token is good once, so it must be kept at once."""
        self._keepers.append(tell)

    @abstractmethod
    def keep(self) -> dict[str, Any] | None:
        """Return what the next run needs to go on as who we are: plain JSON, times of the wall clock; None where nothing is ours."""

    @abstractmethod
    def adopt(self, kept: Mapping[str, Any]) -> None:
        """Take what `keep` returned, as far as it lives; before the first request."""

    @abstractmethod
    def revoke(self) -> None:
        """Revoke the current token if it is ours; what was issued with it ends too."""

    @abstractmethod
    def wake(self) -> None:
        """Forget that logins failed: whoever changed a configuration wants to see what that mended."""

    def close(self) -> None:
        """Renew no more."""
        with self._lock:
            self._closed = True
        self._turns.remove(self._job)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one who sees to the token; who is told of a new one is told afterwards, when they may take locks of their own."""
        try:
            with self._one_at_a_time:
                yield
        finally:
            with self._lock:
                news, self._news = self._news, []
                changed, self._changed = self._changed, False
            for keep in self._keepers if changed else ():
                keep()
            for old, new in news:
                for follow in self._followers:
                    follow(old, new)

    def _current(self) -> Held:
        known = self._held
        if known is None or not self._serves(known):
            known = self._obtain()
            self._take(known)
        return known

    def _take(self, new: Held) -> None:
        """Use a token from now on; one that never ends needs no care."""
        with self._lock:
            old, self._held, self._changed = self._held, new, True
            now = self._world.clock.now()
            self._ends = {serial: ends for serial, ends in self._ends.items() if ends > now} | {new.token.serial: new.token.ends}
            if old is not None and old.token.serial != new.token.serial:
                self._news.append((old.token, new.token))
            tend = self._turns.hurry if self._is_tended else self._turns.add
            if min(new.due, self._look_at) < inf and not self._closed:
                self._is_tended = True
                tend(self._job)

    def _tend(self, _hold: float) -> float:
        try:
            with self._alone():
                self._look()
                known = self._held
                if known is not None and known.due <= self._world.clock.now():
                    (self._care if self.lives(known.token) else self._ended)(known)
        except Exception as error:
            log.exception("vault token not renewed", exc_info=without_values(error))
            if (known := self._held) is not None:
                self._later(known)
        known = self._held
        return inf if known is None else min(known.due, self._look_at)

    @abstractmethod
    def _look(self) -> None:
        """Take another token, if it is time to look for one, and there is one."""

    def _ended(self, known: Held) -> None:
        """Tell of a token that ended without a successor; who asks for one next has it, and who is told will ask."""
        known.due = inf
        with self._lock:
            self._news.append((known.token, None))

    @abstractmethod
    def _let_end(self, known: Held) -> None:
        """Do what is to be done about a token that the server does not renew any more."""

    def _renew(self, known: Held) -> None:
        try:
            after = self._renewal(known)
        except ReadFailed as failed:
            if not known.failures:
                log.warning("vault token not renewed, tried again while it lives: %s", failed)
            self._later(known)
            return
        if after is None:
            self._let_end(known)
        else:
            self._take(after)

    def _later(self, known: Held) -> None:
        """Put off what failed, to the time of its replacement at most, and never below what the backoff allows."""
        known.failures += 1
        now = self._world.clock.now()
        known.due = now + self._backoff.delay(known.failures, self._world.random)
        if now < known.replace_at:
            known.due = min(known.due, max(known.replace_at, now + self._backoff.floor(known.failures)))

    def _renewal(self, known: Held) -> Held | None:
        """Return the token renewed; None where the server says that it cannot be."""
        began = self._world.clock.now()
        try:
            auth = self._exchange.send(known.token.text, "post", _RENEW, json={}).get("auth")
        except Answered as failed:
            # Vault says 500 past the max TTL.
            if failed.refused(codes.bad_request, codes.forbidden, codes.not_found) or "max ttl" in failed.said.lower():
                return None
            raise
        if not isinstance(auth, dict):
            return None
        with self._exchange.understanding(_RENEW):
            life = Life.of_login(auth)
        return renewed(known, life, began, self._world.random)

    def _look_up(self, token: Token) -> Life | None:
        """Return what the server tells of a token; None where it does not know it, or may not tell."""
        try:
            data = self._exchange.send(token.text, "get", _LOOK_UP)["data"]
        except Answered as failed:
            if failed.refused(*_UNKNOWN):
                return None
            raise
        with self._exchange.understanding(_LOOK_UP):
            return Life.of_look_up(data)
