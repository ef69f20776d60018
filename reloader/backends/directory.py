"""A directory on this machine: one watch and one look for all who read from it, so that one swap is one change for each of them.

What happens in the directory only wakes; the look is the truth. Looks come without being woken too, because there are changes that the
kernel tells nobody: in a file that is mounted by itself, in one that a link leads to, in a network file system.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Literal, cast

from reloader.backends.mounts import Mounts
from reloader.backends.reads import Heartbeat, Inbox, ReadFailed, without_values
from reloader.backends.scan import Contents, Look, Place
from reloader.backends.turns import Turns
from reloader.internal import told
from reloader.plan import Directory
from reloader.snapshot import Failure, FailureKind, Outcome, Reading
from reloader.words import counted
from reloader.world import World

log = logging.getLogger(__name__)

RESYNC = 10.0
"""Seconds between two looks while the directory is watched."""
POLL = 1.0
"""Seconds between two looks while it is not, or while something cannot be read."""
LONGEST_LOOK = 60.0
"""How many seconds a look may take; a longer one counts as no answer."""
CLOSING = 2.0
"""How many seconds `close` waits for the thread."""
SECRETS = ("/run/secrets", "/var/run/secrets")
"""Where container engines mount secrets; compose takes them from files of the host, with whatever mode those have."""
ATTEMPTS = 10
"""How many looks are begun while the directory changes under them, before the thread reports again."""


@dataclass(frozen=True)
class Scan:
    """A read: the files of these relative names, or all files below the directory; text, or bytes where it is not UTF-8, by name."""

    names: frozenset[str] | None = None
    ending: str = ""
    """How the names end of those in the directory itself that are read, instead of all below it."""
    inside: bool = False
    """Whether of all below the directory only that is read which no link has elsewhere."""
    alone: bool = False
    """Whether the files of these names are never links, so that nothing that happens to others matters."""

    def is_concerned_by(self, name: str) -> bool:
        """Return whether what happens to an entry of that name can change what is read; of generations, that is their link's part.

        A swap of the kubelet is seven events, of which one is the swap: the looks that the others lead to would delay the one that counts.
        """
        named = any(name in each.split("/") for each in self.names or ())
        return named or not name or not (self.alone or (name.startswith("..") and name != "..data"))


@dataclass(frozen=True)
class _Subscriber:
    inbox: Inbox
    name: str
    read: Scan


@dataclass(frozen=True)
class _Known:
    """What was last said to a read, and where its files were last found."""

    outcome: Outcome
    place: Place | None


class Backend:
    """Looks at one directory on one thread, which starts when somebody waits for something."""

    def __init__(self, plan: Directory, turns: Turns | None, world: World) -> None:  # noqa: ARG002 - what every backend is made with
        from reloader.backends.wake import Watches  # noqa: PLC0415 - watchdog, which a configuration is checked without

        self._directory = plan.path
        self._clock = world.clock
        self._lock = threading.Lock()
        self._subscribers: list[_Subscriber] = []
        self._known: dict[Scan, _Known] = {}
        self._wake = threading.Event()
        self._watches = Watches(self._wake, self._is_concerned_by)
        self._mounts = Mounts()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._began = self._due = inf
        self._trouble: str | None = None
        self.mode: Literal["inotify", "poll"] = "poll"
        """Whether changes are seen as they happen, or once a second."""

    def watch(self, read: Hashable, inbox: Inbox, name: str) -> Callable[[], None]:
        """Keep looking for a `Scan`; see `reloader.backends.Backend`."""
        subscriber = _Subscriber(inbox, name, cast("Scan", read))
        with self._lock:
            known = self._known.get(subscriber.read)
            if known is None:
                self._start()
            self._subscribers.append(subscriber)
            if known is not None:
                self._put(inbox, {name: known.outcome})
        return lambda: self._leave(subscriber)

    def look(self) -> None:
        """Look now."""
        self._wake.set()

    def heartbeats(self) -> tuple[Heartbeat, ...]:
        """Return the thread, if somebody waits for something; it is late only if it died, for whatever hangs may go on some day."""
        thread = self._thread
        return () if thread is None else (Heartbeat(thread.name, inf if thread.is_alive() else -inf),)

    def tell_overdue(self) -> None:
        """Have a look that has not ended for long count as no answer: a file system that hangs is its server's fault."""
        if self._thread is None or self._clock.awake() < self._due:
            return
        reason = f"{self._directory} cannot be read: a look at it has lasted for more than {LONGEST_LOOK:g} s; does its file system hang?"
        self._fail(ReadFailed(FailureKind.UNREACHABLE, reason, current_until=self._began))
        self._wake.set()  # a look that ended just now was overruled by this

    def close(self) -> None:
        """End the thread and the watch; a thread that hangs in a file system is left behind."""
        with self._lock:
            self._closed = True
            self._subscribers.clear()
            thread, self._thread = self._thread, None
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSING)

    def _is_concerned_by(self, name: str) -> bool:
        return any(subscriber.read.is_concerned_by(name) for subscriber in tuple(self._subscribers))

    def _start(self) -> None:
        self._wake.set()
        if self._thread is None and not self._closed:
            self._begin()
            thread = threading.Thread(target=self._work, name=f"directory {self._directory}", daemon=True)
            thread.start()
            self._thread = thread

    def _leave(self, subscriber: _Subscriber) -> None:
        with self._lock:
            self._subscribers = [each for each in self._subscribers if each is not subscriber]
            if subscriber.read not in self._reads():
                self._known.pop(subscriber.read, None)

    def _reads(self) -> set[Scan]:
        return {subscriber.read for subscriber in self._subscribers}

    def _work(self) -> None:
        try:
            while not self._closed:
                self._begin()
                pause = self._turn()
                self._due = inf
                if not self._closed:  # `close` may have woken us during the turn, which took note of it
                    self._wake.wait(pause)
        finally:
            self._watches.close()

    def _begin(self) -> None:
        self._began, self._due = self._clock.now(), self._clock.awake() + LONGEST_LOOK

    def _turn(self) -> float:
        """Look, and see to the watch; return how many seconds the next turn may be away."""
        try:
            self._mounts = Mounts.read(before=self._mounts)
            for _ in range(ATTEMPTS):
                if not self._aim(self._look()):
                    break
                self._wake.set()  # what happened before the watch began was not seen, and may have been another directory
        except Exception as error:
            # A mistake of ours must not end the thread; its text may quote what was read, so only its type is told.
            log.exception("looking at %s failed in a way it should not", self._directory, exc_info=without_values(error))
            self._fail(ReadFailed(FailureKind.MISCONFIGURED, told(error)))
        return RESYNC if self.mode == "inotify" and not self._failing() else POLL

    def _look(self) -> Look | None:
        """Look until what was seen belongs together, and deliver it; return the look, or None where there is nothing to look at."""
        for _ in range(ATTEMPTS):
            self._wake.clear()  # before the look, so that what happens during it leads to another
            with self._lock:
                reads = self._reads()
            try:
                look = Look(self._directory)
            except ReadFailed as failed:
                self._fail(failed)
                return None
            found = {read: _contents(look, read) for read in reads}
            if look.holds():
                self._deliver(found)
                return look
        self._wake.set()
        return look

    def _aim(self, look: Look | None) -> bool:
        """Watch what was looked at; return whether a watch began just now."""
        begun, trouble = False, None
        try:
            begun = self._watches.aim({} if look is None else look.watchable)
        except OSError as error:
            trouble = str(error)
        if look is not None and (alone := self._mounted_alone(look.place.root)):
            trouble = f"{', '.join(alone)} mounted by itself, so that its changes are told to nobody"
        if trouble not in (None, self._trouble):
            log.warning("%s cannot be watched (%s); looking every %g s instead", self._directory, trouble, POLL)
        self._trouble = trouble
        self.mode = "poll" if look is None or trouble else "inotify"
        return begun

    def _mounted_alone(self, root: str) -> list[str]:
        """Return the files that were read and are mount points."""
        mounted = self._mounts.below(root)
        with self._lock:
            readings = [known.outcome for known in self._known.values() if isinstance(known.outcome, Reading)]
        return sorted(mounted.intersection(name for reading in readings for name in reading.value))

    def _failing(self) -> bool:
        with self._lock:
            return any(isinstance(known.outcome, Failure) for known in self._known.values())

    def _fail(self, failed: ReadFailed) -> None:
        with self._lock:
            reads = self._reads()
        self._deliver(dict.fromkeys(reads, failed))

    def _deliver(self, found: Mapping[Scan, Contents | ReadFailed]) -> None:
        """Put what is new into each inbox, all of one look at once."""
        news: dict[Scan, Outcome] = {}
        with self._lock:
            for read in found.keys() & self._reads():
                before, now = self._known.get(read), self._interpret(found[read], self._known.get(read))
                if before is None or _differs(before.outcome, now.outcome):
                    news[read] = now.outcome
                    self._known[read] = now
                else:
                    self._known[read] = replace(before, place=now.place)
            for inbox, outcomes in self._by_inbox(news):
                self._put(inbox, outcomes)

    def _interpret(self, found: Contents | ReadFailed, before: _Known | None) -> _Known:
        now, place = self._clock.now(), before.place if before else None
        if isinstance(found, ReadFailed):
            return _Known(Failure(kind=found.kind, reason=str(found), at=now, current_until=found.current_until), place)
        reading = Reading(
            value=found.files,
            at=now,
            whole=found.place.exchanged(place),
            changed=self._clock.dated(found.changed),
            secret=self._is_secret(found),
            detail=_detail(found),
        )
        return _Known(reading, found.place)

    def _is_secret(self, found: Contents) -> bool:
        """Return whether what was read looks like a Secret, by its mode or where it is."""
        in_memory = {found.place.identity[0], *found.devices} & self._mounts.memory
        return found.private or bool(in_memory) or any(Path(found.place.root).is_relative_to(place) for place in SECRETS)

    def _by_inbox(self, news: Mapping[Scan, Outcome]) -> list[tuple[Inbox, dict[str, Outcome]]]:
        batches: dict[int, tuple[Inbox, dict[str, Outcome]]] = {}
        for subscriber in self._subscribers:
            if subscriber.read in news:
                _, outcomes = batches.setdefault(id(subscriber.inbox), (subscriber.inbox, {}))
                outcomes[subscriber.name] = news[subscriber.read]
        return list(batches.values())

    def _put(self, inbox: Inbox, outcomes: Mapping[str, Outcome]) -> None:
        """Hand outcomes over; an inbox that chokes on them is told so, and neither this thread nor other inboxes suffer."""
        try:
            inbox.put(outcomes)
        except Exception as error:
            log.exception("what %s holds was not taken", self._directory, exc_info=without_values(error))
            failure = Failure(kind=FailureKind.MISCONFIGURED, reason=told(error), at=self._clock.now())
            with contextlib.suppress(Exception):
                inbox.put(dict.fromkeys(outcomes, failure))


def _detail(found: Contents) -> str:
    count = counted(len(found.files), "file")
    return f"{count} of {found.place.generation}" if found.place.generation else count


def _contents(look: Look, read: Scan) -> Contents | ReadFailed:
    try:
        if read.ending:
            return look.ending(read.ending)
        return look.everything(inside=read.inside) if read.names is None else look.only(sorted(read.names))
    except ReadFailed as failed:
        return failed


def _differs(before: Outcome | None, now: Outcome) -> bool:
    if isinstance(before, Reading) and isinstance(now, Reading):
        return bool(before.value != now.value)
    if isinstance(before, Failure) and isinstance(now, Failure):
        return (before.kind, before.reason) != (now.kind, now.reason)
    return True
