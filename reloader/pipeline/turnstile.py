"""Pipelines that find the same process take turns, so that none is blamed for the set of another.

A turn is publish, signal, verify, and rollback where it comes to that.
"""

import threading
from collections.abc import Callable, Iterable

from reloader.targets import Instance


class Turnstile:
    """Who is at which process; shared by all pipelines of this program."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipelines: set[str] = set()
        self._owners: dict[Instance, str] = {}
        self._waiting: dict[str, Callable[[], None]] = {}

    @property
    def is_shared(self) -> bool:
        """Return whether there is anybody to wait for."""
        return len(self._pipelines) > 1

    def enter(self, pipeline: str) -> None:
        """Take part from now on."""
        with self._lock:
            self._pipelines.add(pipeline)

    def leave(self, pipeline: str) -> None:
        """Take part no more."""
        with self._lock:
            self._pipelines.discard(pipeline)
            self._waiting.pop(pipeline, None)
        self.give(pipeline)

    def take(self, pipeline: str, instances: Iterable[Instance], wake: Callable[[], None]) -> bool:
        """Begin a turn at all of these processes, or return False: then `wake` is called when it is worth asking again."""
        wanted = [instance for instance in instances if instance.is_process]
        with self._lock:
            if any(self._owners.get(instance, pipeline) != pipeline for instance in wanted):
                self._waiting[pipeline] = wake
                return False
            self._owners |= dict.fromkeys(wanted, pipeline)
            self._waiting.pop(pipeline, None)
            return True

    def give(self, pipeline: str) -> None:
        """End a turn."""
        with self._lock:
            mine = [instance for instance, owner in self._owners.items() if owner == pipeline]
            for instance in mine:
                del self._owners[instance]
            waiting = list(self._waiting.values()) if mine else []
            if mine:
                self._waiting.clear()
        for wake in waiting:
            wake()
