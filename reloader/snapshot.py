"""What flows: the latest reading or failure of each source.

Times are seconds of the boot clock (`World.clock.now`) unless they say otherwise. No `repr` here shows a value.
"""

import os
import select
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from typing import Any

LONGEST_WAIT = 86400.0
"""How many seconds one wait lasts at most: the kernel counts them in milliseconds, 24 days of them."""

Value = Any
"""Plain data: text, bytes, numbers, lists, and mappings by name."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a source said, and how long that holds."""

    value: Value = field(repr=False)
    at: float
    """When it was read."""
    current_until: float = inf
    """Until when it is known to be current: infinite while a watch is live, else until the next read is due."""
    whole: bool = False
    """Complete by itself, so that nothing is gained by waiting for more (a kubelet swap, a Vault version)."""
    changed: float | None = None
    """When the value became what it is, where the source can tell (the change time of `..data`)."""
    expires: float | None = None
    """When the value stops being valid (its lease runs out, its certificate ends), where it does."""
    secret: bool = False
    """Whether what is shown to a person must have the value masked (a diff)."""
    detail: str = ""
    """What a person may see of it: an index, a version, a count; never a value."""


class FailureKind(StrEnum):
    """Why there is no answer."""

    UNREACHABLE = "unreachable"
    """The backend gave no answer of its own: refused, timed out, no leader, 5xx."""
    REFUSED = "refused"
    """The backend answered no: permission, sealed, no such path."""
    MISCONFIGURED = "misconfigured"
    """It can only succeed once somebody changes a configuration: a wrong CA, not a Vault, not JSON."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a source said nothing: where, what, and what to do, and never a value."""

    kind: FailureKind
    reason: str
    at: float
    """When it failed."""
    current_until: float | None = None
    """Until when the last reading is known to have been current, where that is earlier than `at` (a read that timed out)."""


Outcome = Reading | Failure


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One source: the last it said, and the failure since then, if any."""

    reading: Reading | None = None
    failure: Failure | None = None

    def after(self, outcome: Outcome) -> "Standing":
        """Return the standing once `outcome` came in."""
        if isinstance(outcome, Reading):
            return Standing(reading=outcome)
        if self.reading is None:
            return Standing(failure=outcome)
        last_known = outcome.at if outcome.current_until is None else outcome.current_until
        return Standing(reading=replace(self.reading, current_until=min(self.reading.current_until, last_known)), failure=outcome)

    def age(self, now: float) -> float:
        """Return the seconds since the value was last known to be current; infinite when there was never one."""
        return inf if self.reading is None else max(0.0, now - self.reading.current_until)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The standing of every source, and when values last changed."""

    standings: Mapping[str, Standing]
    first_change: float | None = None
    """When the oldest change came in that was not yet taken."""
    last_change: float | None = None
    whole: bool = True
    """Whether every change since then was complete by itself."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the sources that never said anything."""
        return tuple(name for name, standing in self.standings.items() if standing.reading is None)

    @property
    def values(self) -> dict[str, Value]:
        """Return the value of each source that has one."""
        return {name: standing.reading.value for name, standing in self.standings.items() if standing.reading is not None}


class Mailbox:
    """Hands the latest outcome of each source to the pipeline: backends put, the pipeline takes; nothing queues up.

    Waiting is a poll on an eventfd, so that the pipeline can wait for a process to end (a pidfd) in the same call.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._snapshot = Snapshot(standings={name: Standing() for name in names})
        self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def put(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take what came in together as one change, and wake the pipeline; names it does not know are dropped."""
        with self._lock:
            self._snapshot = _with(self._snapshot, outcomes)
        self.nudge()

    def take(self) -> Snapshot:
        """Return the snapshot; its changes count as taken only by `taken`."""
        with self._lock:
            return self._snapshot

    def taken(self, snapshot: Snapshot) -> None:
        """Forget the changes that `snapshot` held, unless more came in since."""
        with self._lock:
            if self._snapshot.last_change == snapshot.last_change:
                self._snapshot = replace(self._snapshot, first_change=None, last_change=None, whole=True)

    def nudge(self) -> None:
        """Wake the pipeline; nothing, once it is closed."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._wake, 1)

    def wait(self, timeout: float, descriptors: Iterable[int] = ()) -> None:
        """Return when something came in, when one of the descriptors is readable, or after `timeout` seconds, `LONGEST_WAIT` at most."""
        poll = select.poll()
        for descriptor in (self._wake, *descriptors):
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _event in poll.poll(min(max(0.0, timeout), LONGEST_WAIT) * 1000)}
        if self._wake in ready:
            os.eventfd_read(self._wake)

    def close(self) -> None:
        """Free the descriptor."""
        with self._lock:  # until then another thread may be about to write to it
            self._closed = True
            os.close(self._wake)


def _with(snapshot: Snapshot, outcomes: Mapping[str, Outcome]) -> Snapshot:
    standings = dict(snapshot.standings)
    changed: list[Reading] = []
    for name, outcome in outcomes.items():
        before = standings.get(name)
        if before is None:
            continue
        standings[name] = before.after(outcome)
        if isinstance(outcome, Reading) and (before.reading is None or before.reading.value != outcome.value):
            changed.append(outcome)
    if not changed:
        return replace(snapshot, standings=standings)
    latest = max(reading.at for reading in changed)
    first = latest if snapshot.first_change is None else snapshot.first_change
    return Snapshot(
        standings=standings,
        first_change=first,
        last_change=latest,
        whole=snapshot.whole and all(reading.whole for reading in changed),
    )
