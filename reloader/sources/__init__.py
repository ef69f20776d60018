"""What to read, and what an answer means.

A source of a new kind is one module here, `reloader/sources/KIND.py`, or a module that a package names under the entry point
group `reloader.sources`. It has two names: `Settings`, a dataclass made with `written.plain`, and `Source`, which follows the protocol
below. The module is imported only when a configuration names its kind, so an unused client library is never loaded.

`Settings` may have a method `mistakes()` for rules between its keys: it yields `(key, message)`, the key dotted where it is nested.
Making a `Source` touches no server: it is how a configuration is checked for the connections that it needs.
"""

from collections.abc import Callable, Hashable
from typing import Any, Protocol

from reloader.kinds import Kinds
from reloader.plan import BackendPlan, Connections
from reloader.snapshot import Outcome, Reading

KINDS = Kinds("reloader.sources", __path__, "source")


class Source(Protocol):
    """One configured source. It holds no connection and no thread: those are its backend's."""

    backend: BackendPlan
    """Who is asked."""
    read: Hashable
    """What is asked, in the backend's own words; equal reads are asked once."""

    def interpret(self, reading: Reading) -> Outcome:
        """Return the reading with the value as templates will see it, or the failure that the answer amounts to."""
        ...


def make(kind: str, settings: Any, connections: Connections) -> Source:
    """Return a source of that kind.

    Raises:
        ValueError: it needs a connection that the pipeline does not configure, and which.

    """
    build: Callable[[Any, Connections], Source] = KINDS.load(kind).Source
    return build(settings, connections)
