"""Who we are at a Vault or OpenBao server: the one place that has the token, and knows what to do when it ends or is refused."""

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from reloader.backends.turns import Turns
from reloader.backends.vault_exchange import Exchange
from reloader.plan import VaultAuth
from reloader.world import World
from reloader.written import Secret


@dataclass(frozen=True)
class Token:
    """A token of the server."""

    text: Secret
    serial: str
    """Names it without telling it, and is equal for the same token."""
    ends: float = inf
    """When it ends, on the boot clock, and with it every lease that is issued with it."""
    ours: bool = False
    """Whether we logged in for it, so that it is ours to renew, keep and revoke."""


class Identity:
    """The token's life; used by several threads at once."""

    def __init__(self, auth: VaultAuth, exchange: Exchange, turns: Turns, world: World) -> None:
        self._auth = auth
        self._exchange = exchange
        self._turns = turns
        self._world = world
        self._lock = threading.Lock()
        self._current: Token | None = None
        self._told: list[Callable[[Token, Token], None]] = []

    def token(self) -> Token:
        """Return the token to use now; a token file is read each time, so that a rotated one is taken at once.

        Raises:
            ReadFailed: there is none.

        """
        text = Secret(self._given())
        with self._lock:
            old = self._current
            if old is not None and old.text == text:
                return old
            new = self._current = Token(text, secrets.token_hex(8))
        if old is not None:
            for tell in self._told:
                tell(old, new)
        return new

    def instead_of(self, refused: Token) -> Token | None:
        """Return another token than the one that the server refused, None when there is no other."""
        token = self.token()
        return None if token == refused else token

    def lives(self, token: Token) -> bool:
        """Return whether a token is not known to have ended."""
        return self._world.clock.now() < token.ends

    def on_new_token(self, tell: Callable[[Token, Token], None]) -> None:
        """Call `tell(old, new)` from now on when there is a new token: the leases of the old one end with it."""
        self._told.append(tell)

    def keep(self) -> Mapping[str, Any] | None:
        """Return the current token as plain JSON with times of the wall clock; None where it is not ours."""
        return None

    def adopt(self, kept: Mapping[str, Any]) -> None:
        """Take a token that was kept, if it still lives."""

    def revoke(self) -> None:
        """Revoke the current token if it is ours."""

    def _given(self) -> str:
        if self._auth.token is not None:
            return self._checked(self._auth.token.reveal(), "vault.auth.token (or VAULT_TOKEN)")
        if self._auth.token_file is not None:
            return self._checked(self._read(self._auth.token_file), f"vault.auth.token_file {self._auth.token_file}")
        raise self._exchange.mistake("no token; set vault.auth.token_file, or VAULT_TOKEN in the environment")

    def _read(self, path: str) -> str:
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            raise self._exchange.mistake(f"vault.auth.token_file {path}: {error.strerror}; mount the file that holds the token") from None

    def _checked(self, token: str, where: str) -> str:
        # requests quotes a header that it cannot send in its error, so such a token must not get that far.
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise self._exchange.mistake(f"{where} holds no token: one line of printable characters was expected")
        return token
