"""What is asked for at a Vault server, and what it issued: plain data, and its form in a file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

from reloader.backends.vault.identity import Token
from reloader.snapshot import Reading
from reloader.written import Secret as Hidden


@dataclass(frozen=True)
class Secret:
    """The fields of a secret at `path`, written as for the command line; `poll` in seconds does not hold for what has a lease."""

    path: str
    version: int | None = None
    """A version of a KV v2 secret, the latest unless given."""
    poll: float = 30.0


@dataclass(frozen=True)
class Write:
    """What `path` issues for some parameters."""

    path: str
    parameters: str = field(repr=False)
    """A JSON object, as `parameters_of` writes it."""
    poll: float | None = None
    """Seconds between two writes of what has neither lease nor end; once per run without."""


Read = Secret | Write
_READS: Mapping[str, type[Read]] = {"read": Secret, "write": Write}
_TIMES = ("at", "ends", "renew", "anew")


def parameters_of(parameters: Mapping[str, str | int | bool]) -> str:
    """Return parameters in a form that is equal for equal ones only: in Python, a tuple with 1 equals one with True."""
    return json.dumps(dict(parameters), sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Issued:
    """What the server made for us, and must not make again before it is needed. Times are those of the boot clock."""

    read: Read
    token: Token
    """Its lease ends with this one."""
    value: Mapping[str, Any] = field(repr=False)
    at: float
    """When it came."""
    ends: float = inf
    term: float = inf
    """How many seconds the server granted at first, and grants again as long as it can be renewed in full."""
    lease: str = ""
    renew: float = inf
    """When its lease is renewed."""
    anew: float = inf
    """When it is issued anew, unless it was renewed until then."""
    leave: float = inf
    """When it is issued anew however long it could be renewed, because its token has a successor."""

    @property
    def replace(self) -> float:
        """Return when it is issued anew."""
        return min(self.anew, self.leave)

    @property
    def due(self) -> float:
        """Return when something is to be done about it."""
        return min(self.renew, self.replace)

    def reading(self) -> Reading:
        """Return it as a source says it."""
        expires = None if self.ends == inf else self.ends
        detail = "issued" if expires is None else f"issued for {self.term:.0f} s"
        return Reading(value=self.value, at=self.at, current_until=self.due, whole=True, expires=expires, detail=detail)


class Damaged(ValueError):
    """A file holds something else than what was kept."""


class Form:
    """The form of what was issued in a file that others cannot read: times by the wall clock, given tokens only as marks.

    A given token is its operator's to keep; a mark tells whether it is still the same. One that we logged in for is kept with it, to renew.
    """

    def __init__(self, key: str, *, ahead: float) -> None:
        self._key = key
        self._ahead = ahead
        """By how many seconds the wall clock is ahead of the boot clock."""

    def mark(self, token: Token) -> str:
        """Return what tells a token from others, and nothing else of it."""
        return hashlib.blake2b(token.text.reveal().encode(), key=bytes.fromhex(self._key)).hexdigest()

    def plain(self, issued: Issued) -> dict[str, Any]:
        """Return what was issued as plain JSON."""
        kind = "write" if isinstance(issued.read, Write) else "read"
        token = {"serial": issued.token.serial, "ends": self._wall(issued.token.ends), "mark": self.mark(issued.token)}
        if issued.token.ours:
            token |= {"text": issued.token.text.reveal(), "batch": issued.token.batch}
        times = {name: self._wall(getattr(issued, name)) for name in _TIMES}
        term = None if issued.term == inf else issued.term
        return {kind: asdict(issued.read), "token": token, "value": issued.value, "lease": issued.lease, "term": term, **times}

    def issued(self, plain: Mapping[str, Any]) -> tuple[Issued, str]:
        """Return what was issued, and the mark of its token; the token of an operator has no text here.

        Raises:
            Damaged: it is not what was kept.

        """
        try:
            read = next(cls(**plain[kind]) for kind, cls in _READS.items() if kind in plain)
            token, term = plain["token"], plain["term"]
            at, ends, renew, anew = (self._boot(plain[name]) for name in _TIMES)
            ours, batch = "text" in token, bool(token.get("batch"))
            known = Token(Hidden(token.get("text", "")), str(token["serial"]), self._boot(token["ends"]), ours, batch)
            made = Issued(
                read=read,
                token=known,
                value=dict(plain["value"]),
                lease=str(plain["lease"]),
                term=inf if term is None else float(term),
                at=at,
                ends=ends,
                renew=renew,
                anew=anew,
            )
            return made, str(token["mark"])
        except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
            raise Damaged(type(error).__name__) from None

    def _wall(self, at: float) -> float | None:
        return None if at == inf else at + self._ahead

    def _boot(self, at: float | None) -> float:
        return inf if at is None else float(at) - self._ahead
