"""Liveness: whether every thread that should report still does. Only what a restart mends counts, and no server that does not answer."""

from collections.abc import Callable, Iterable

from reloader.backends.reads import Heartbeat
from reloader.world.clock import Clock

PATIENCE = 1.0
"""How many seconds a late thread has to report, once it is seen: in the first moment after SIGCONT, or after a freezer, all are late."""


class Liveness:
    """Judges the heartbeats of this process; time for which the machine was suspended counts for nobody."""

    def __init__(self, clock: Clock, heartbeats: Callable[[], Iterable[Heartbeat]]) -> None:
        self._clock = clock
        self._heartbeats = heartbeats
        self._late: dict[Heartbeat, float] = {}
        """Who is late, and since when that is known; replaced whole, for any thread may ask."""

    def stuck(self) -> tuple[str, ...]:
        """Return the threads that died, or are later than they said, and were so when somebody asked a moment ago."""
        now, known = self._clock.awake(), self._late
        self._late = late = {beat: known.get(beat, now) for beat in self._heartbeats() if beat.due < now}
        return tuple(beat.thread for beat, since in late.items() if now - since >= PATIENCE)
