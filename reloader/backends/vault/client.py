"""One Vault or OpenBao server as the backend sees it: requests as who we are there."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from requests import codes

from reloader.backends.reads import ReadFailed
from reloader.backends.turns import Turns
from reloader.backends.vault.exchange import DEADLINE, Answered, Exchange
from reloader.backends.vault.given import GivenIdentity
from reloader.backends.vault.identity import REQUESTS, Identity
from reloader.backends.vault.own import OwnIdentity
from reloader.backends.vault.token import Token
from reloader.plan import Vault
from reloader.snapshot import FailureKind
from reloader.world import World

__all__ = ["DEADLINE", "LONGEST", "Answer", "Answered", "Client", "Token"]

LONGEST = (3 + 2 * REQUESTS) * DEADLINE
"""How many seconds it takes at most to ask for something: the request, and again with another token, which another thread may be at, too.

One more is made where a lease hangs on an older token.
"""


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    body: Mapping[str, Any] = field(repr=False)
    token: Token
    """With which it was had."""


class Client:
    """Requests with the right token, each within `DEADLINE`; used by several threads at once."""

    def __init__(self, plan: Vault, turns: Turns, world: World) -> None:
        self._exchange = Exchange(plan, turns.open, world)
        self._clock = world.clock
        kind = GivenIdentity if plan.auth.method == "token" else OwnIdentity
        self.identity: Identity = kind(plan, self._exchange, turns, world)

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        """Return the answer to a read.

        Raises:
            ReadFailed: there is none; `Answered` when the server said so itself.

        """
        return self._ask("get", path, params=parameters)

    def post(self, path: str, body: Mapping[str, Any], *, token: Token | None = None) -> Answer:
        """Return the answer to a write, made with `token` or the current one; raises as `get`."""
        if token is not None:
            return self._send(token, "post", path, json=body)
        return self._ask("post", path, json=body)

    def failure(self, kind: FailureKind, path: str, what: str) -> ReadFailed:
        """Return a failure that says where it was."""
        return self._exchange.failure(kind, path, what)

    def understanding(self, path: str) -> AbstractContextManager[None]:
        """Take fields that are none of Vault's for an answer of something else; see `Exchange`."""
        return self._exchange.understanding(path)

    def close(self) -> None:
        """Free the connections."""
        self.identity.close()
        self._exchange.close()

    def _ask(self, method: str, path: str, **arguments: Any) -> Answer:
        token, began = self.identity.token(), self._clock.now()
        try:
            return self._send(token, method, path, **arguments)
        except Answered as failed:
            if not failed.refused(codes.forbidden):
                raise
            return self.identity.again(token, began, failed, lambda other: self._send(other, method, path, **arguments))

    def _send(self, token: Token, method: str, path: str, **arguments: Any) -> Answer:
        self.identity.spend(token)
        return Answer(self._exchange.send(token.text, method, path, **arguments), token)
