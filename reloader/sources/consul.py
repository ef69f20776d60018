"""Values of a Consul server: the text of a key, the keys below a folder, the instances of a service, names of services or nodes."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from reloader.plan import Connections
from reloader.snapshot import Failure, FailureKind, Outcome, Reading
from reloader.written import Duration, Whole, plain

if TYPE_CHECKING:
    from reloader.backends.consul.reads import Read

# What the way to the server would take for another path: an empty, `.` or `..` part.
_UNSAFE = re.compile(r"(^|/)\.{0,2}/|(^|/)\.{1,2}$")

_WAYS = ("key", "prefix", "service", "services", "nodes")


@plain
class Settings:
    """What a source of kind `consul` is told; exactly one of `key`, `prefix`, `service`, `services` and `nodes`."""

    key: str | None = None
    """A key; its text is the value."""
    prefix: str | None = None
    """A folder of keys; a mapping of the rest of their path to their text is the value."""
    service: str | None = None
    """A service; a list of its instances is the value."""
    services: bool = False
    """Whether the sorted names of all services are the value."""
    nodes: bool = False
    """Whether the sorted names of all nodes are the value."""
    passing: bool = True
    """Whether only instances count whose checks all pass."""
    tag: str | None = None
    """The tag that an instance must have."""
    near: str | None = None
    """The node by whose distance the instances are sorted, `_agent` for the one that is asked; by id without it."""
    default: str | None = None
    """The text where there is no such key; never for an outage."""
    min_items: Whole | None = None
    """The least number of items that an answer must have; None for 1 after the first one that had any."""
    hold: Duration = 0.0
    """How many seconds an answer with fewer items than the one in use must last before it counts."""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield each key whose value cannot work, with what was expected."""
        given = [name for name in _WAYS if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            yield given[1] if given else "key", f"expected exactly one of {', '.join(_WAYS[:-1])} and {_WAYS[-1]}"
        yield from self._strangers()
        if self.key is not None and (not self.key or self.key.endswith("/") or _UNSAFE.search(self.key)):
            yield "key", "expected a key such as app/flags, without a slash at either end"
        if self.prefix and _UNSAFE.search(self.prefix):
            yield "prefix", "expected a folder of keys such as nginx/routes/, without a slash at its start"
        if self.service is not None and not re.fullmatch(r"[^/\s]+", self.service):
            yield "service", "expected the name of a service"

    def _strangers(self) -> Iterator[tuple[str, str]]:
        """Yield the keys that mean nothing beside the others."""
        if self.service is None:
            for name, given in (("passing", not self.passing), ("tag", self.tag is not None), ("near", self.near is not None)):
                if given:
                    yield name, "expected only with service"
        if self.key is None and self.default is not None:
            yield "default", "expected only with key"
        for name, guards in (("min_items", self.min_items is not None), ("hold", self.hold > 0)):
            if guards and self.key is not None:
                yield name, "expected only with prefix, service, services or nodes: a key has no items"


class Source:
    """A text, a mapping or a list, by what is asked for."""

    def __init__(self, settings: Settings, connections: Connections) -> None:
        if connections.consul is None or not connections.consul.address:
            raise ValueError("needs a Consul server: set consul.address, or CONSUL_HTTP_ADDR in the environment")
        self.backend = connections.consul
        self._settings = settings
        # What anyone may read is nobody's secret, and the catalog is not made for secrets: masking ports and names would hide a change.
        guarded = connections.consul.token is not None or connections.consul.token_file is not None
        self._secret = guarded and (settings.key is not None or settings.prefix is not None)

    @cached_property
    def read(self) -> "Read":
        """Return what is asked; the libraries that ask come with it, and a configuration is checked without them."""
        from reloader.backends.consul.reads import Key, Nodes, Prefix, Service, Services  # noqa: PLC0415

        settings = self._settings
        if settings.service is not None:
            return Service(settings.service, settings.passing, settings.tag, settings.near)
        if settings.key is not None:
            return Key(settings.key)
        if settings.services or settings.nodes:
            return Services() if settings.services else Nodes()
        folder = settings.prefix or ""
        return Prefix(folder if folder.endswith("/") or not folder else f"{folder}/")

    def interpret(self, reading: Reading) -> Outcome:
        """Return the reading; for a key that does not exist, the default or a refusal."""
        if reading.value is not None:
            return replace(reading, secret=self._secret)
        if self._settings.default is not None:
            return replace(reading, value=self._settings.default, detail=f"{reading.detail}, default")
        reason = (
            f"{self.backend.address}: {self.read}: does not exist; create it, set `default`, or let the token read it: {self.read.rule}"
        )
        return Failure(kind=FailureKind.REFUSED, reason=reason, at=reading.at)
