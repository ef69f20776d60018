"""What a check says: how it is, what was seen and where, and what mends it."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a checked thing is."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    FAILED = "failed"


WORST_LAST = tuple(State)
"""The states, what is right first."""


@dataclass(frozen=True)
class Evidence:
    """What was seen, and where: a file of `/proc`, an address, a key."""

    where: str
    seen: str


@dataclass(frozen=True)
class Mend:
    """What mends it, ready to be copied; of several any one will do."""

    kind: str
    """In which form: `pod`, `compose` and `configuration` are YAML to be merged, `vault_policy` and `consul_rules` are added to a policy,
    `command` is for a shell, `words` is for a person."""
    where: str
    """Where it goes."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check says of one thing."""

    state: State
    told: str
    about: str = ""
    """Of what: a pipeline, a source, a server, a volume; empty for the process as a whole."""
    evidence: tuple[Evidence, ...] = ()
    mends: tuple[Mend, ...] = ()
    check: str = ""
    """The id of the check, which stays the same from release to release."""
