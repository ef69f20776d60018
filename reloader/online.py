"""What each source says now: read once through the real backends, told without a value; nothing that is issued for it stays."""

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from reloader import sources
from reloader.backends import Backend, Backends, Leasing
from reloader.backends.reads import ReadFailed, ReadingBackend
from reloader.pipeline.guard import Guard, rules_of
from reloader.pipeline.intake import interpreted
from reloader.plan import Pipeline
from reloader.snapshot import Failure, Outcome, Value
from reloader.world import World

ANSWERS_WITHIN = 120.0
"""How many seconds all sources may take together; what has not answered then is not waited for, nor begun."""
NAMES = 20
"""How many names of a mapping are told."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is told of one source."""

    name: str
    told: str
    good: bool = True
    outcome: Outcome | None = field(default=None, repr=False)
    """What came, where it was read; its value is for rendering and not for showing."""


def online(pipeline: Pipeline, world: World, *, issue: bool = True) -> tuple[Seen, ...]:
    """Read every source of a pipeline once, and return what to tell of each; what was issued for that is revoked.

    Without `issue`, what a server issues is not read: it is told whether the token may.
    """
    unrevoked: list[Seen] = []
    with ExitStack() as ends:
        backends = Backends(world)  # without a state: what an earlier run keeps there is in use
        asked = [_Asked(pipeline, name, backends, ends) for name in pipeline.sources]
        for backend in {id(each.backend): each.backend for each in asked}.values():
            ends.callback(_revoke, backend, unrevoked)
        deadline = world.clock.now() + ANSWERS_WITHIN
        for each in asked:
            if world.clock.now() < deadline:
                each.begin(ends, issue=issue)
        seen = [each.seen(deadline - world.clock.now(), world.clock.now()) for each in asked]
    return (*seen, *unrevoked)


class _Asked:
    """One source that is read once; the inbox of its read."""

    def __init__(self, pipeline: Pipeline, name: str, backends: Backends, ends: ExitStack) -> None:
        plan = pipeline.sources[name]
        self._name, self._parse = name, plan.parse
        self._source = sources.make(plan.kind, plan.settings, pipeline.connections)
        self._rules = rules_of(plan.settings, self._source.read)
        self._outcome: Outcome | str | None = None
        self._answered = threading.Event()
        self.backend = backends.acquire(self._source.backend)
        ends.callback(backends.release, self._source.backend)

    def begin(self, ends: ExitStack, *, issue: bool) -> None:
        """Have it read, unless that would leave something behind."""
        told = _rehearsed(self.backend, self._source.read, issue=issue)
        if told is not None:
            self._settle(told)
        else:
            ends.callback(self.backend.watch(self._source.read, self, self._name))

    def put(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take the first outcome."""
        self._settle(outcomes[self._name])

    def seen(self, within: float, now: float) -> Seen:
        """Return what to tell of it, waiting for its outcome for some seconds."""
        self._answered.wait(max(0.0, within))
        if self._outcome is None:
            return Seen(name=self._name, good=False, told=f"no answer within {ANSWERS_WITHIN:.0f} s")
        if isinstance(self._outcome, str):
            return Seen(name=self._name, told=self._outcome)
        meant = interpreted(self._outcome, self._source, self._parse)
        judged = meant if self._rules is None else _judged(Guard(self._rules), meant)
        if isinstance(judged, Failure):
            return Seen(name=self._name, good=False, told=f"{judged.kind}: {judged.reason}", outcome=judged)
        expires = "" if judged.expires is None else f"expires in {judged.expires - now:.0f} s"
        told = "; ".join(filter(None, (shape(judged.value), judged.detail, expires)))
        return Seen(name=self._name, told=told, outcome=judged)

    def _settle(self, outcome: Outcome | str) -> None:
        if self._outcome is None:
            self._outcome = outcome
            self._answered.set()


def shape(value: Value) -> str:
    """Return what a value looks like, with the names in it and nothing else of it."""
    if isinstance(value, Mapping):
        names = [f"{name}: {_type(each)}" for name, each in sorted(value.items(), key=lambda item: str(item[0]))[:NAMES]]
        more = f", and {len(value) - NAMES} more" if len(value) > NAMES else ""
        return f"a mapping of {len(value)} ({', '.join(names)}{more})" if value else "an empty mapping"
    return f"a list of {len(value)}{_fields(value)}" if isinstance(value, list) and value else _type(value)


def _type(value: Value) -> str:
    match value:
        case Mapping() | list():
            return f"{'mapping' if isinstance(value, Mapping) else 'list'} of {len(value)}"
        case bool():
            return "truth value"
        case int() | float():
            return "number"
        case bytes():
            return "bytes"
        case None:
            return "nothing"
    return "text" if isinstance(value, str) else type(value).__name__


def _fields(items: list[Value]) -> str:
    """Return what the items of a list look like, by the first of them."""
    first = items[0]
    if isinstance(first, Mapping):
        return f", each with {', '.join(map(str, first))}"
    return f", the first a {_type(first)}"


def _judged(guard: Guard, outcome: Outcome) -> Outcome:
    guard.remember({}, "")
    return guard.judge(outcome)


def _rehearsed(backend: Backend, read: object, *, issue: bool) -> Outcome | str | None:
    """Return what can be told of a read that is better not done; None for one that may be."""
    if not isinstance(backend, ReadingBackend):
        return None
    try:
        return backend.rehearse(read, issue=issue)
    except ReadFailed as failed:
        return Failure(kind=failed.kind, reason=str(failed), at=0.0)


def _revoke(backend: Backend, unrevoked: list[Seen]) -> None:
    """Revoke what was issued, and tell what could not be."""
    if isinstance(backend, Leasing):
        unrevoked += [Seen(name="revoking", good=False, told=reason) for reason in backend.revoke()]
