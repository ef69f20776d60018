"""Refused content is remembered, so that it is not tried again at every look; after a while, and when somebody asks, it is."""

from hashlib import sha256
from math import inf

from reloader.record import Refusal
from reloader.schedule import Backoff
from reloader.volume import Mounted, Volume
from reloader.world import World

SHORTEST, LONGEST = 1.0, 3600.0
"""Between how many seconds refused content waits, whatever `retry_refused` says: each try asks the target for a reload."""
MOST = 1.1
"""How many times its delay it waits at most."""

_ASKED_FOR = 0.0
"""When content is due of which somebody wants to know whether it is refused still."""


class Refusals:
    """The refused sets of one volume, by fingerprint and by the rules that they did not pass; kept in its record."""

    def __init__(self, volume: Volume | Mounted, first: float, rules: object, world: World) -> None:
        self._volume = volume
        # Content that other rules refused may pass these; what they are is told apart by their text, which shows no secret.
        self._rules = sha256(repr(rules).encode()).hexdigest()[:16]
        self._backoff = None if first == inf else Backoff(base=first, cap=max(LONGEST, first))
        self._world = world
        self._due: dict[str, tuple[float | None, float]] = {}
        """What the record says of each, and when that is on the boot clock, which nobody sets."""

    def note(self, fingerprint: str, stage: str) -> float:
        """Remember a refusal; return when the content is tried again, on the boot clock."""
        key, record = self._key(fingerprint), self._volume.record
        failures = record.refused[key].failures + 1 if key in record.refused else 1
        delay = inf if self._backoff is None else self._delay(self._backoff, failures)
        retry = None if delay == inf else self._world.clock.wall() + delay
        self._volume.note_record(record.refuse(key, Refusal(stage=stage, failures=failures, retry=retry)))
        self._due = {other: due for other, due in self._due.items() if other in self._volume.record.refused}
        self._due[key] = retry, self._world.clock.now() + delay
        return self._world.clock.now() + delay

    def waits(self, fingerprint: str) -> float | None:
        """Return when this content is tried again, on the boot clock, if it was refused and it is not time yet."""
        key = self._key(fingerprint)
        known = self._volume.record.refused.get(key)
        if known is None:
            return None
        if key not in self._due or self._due[key][0] != known.retry:
            self._due[key] = known.retry, self._continued(known)
        due = self._due[key][1]
        return None if due <= self._world.clock.now() else due

    def _continued(self, known: Refusal) -> float:
        """Return when content is tried again that an earlier run tried, which only the wall clock tells."""
        now = self._world.clock.now()
        if known.retry is None:
            return inf
        wait = known.retry - self._world.clock.wall()
        if self._backoff is not None and wait > self._longest(self._backoff, known.failures):
            return now  # no delay is that long: the wall clock was set back
        return now + wait

    def is_known(self, fingerprint: str) -> bool:
        """Return whether this content was refused before, and nobody asked for another try."""
        known = self._volume.record.refused.get(self._key(fingerprint))
        return known is not None and known.retry != _ASKED_FOR

    def remember(self, fingerprint: str) -> bool:
        """Return whether this content was refused before, whoever asked for another try."""
        return self._key(fingerprint) in self._volume.record.refused

    def refuser(self, fingerprint: str) -> tuple[str, str]:
        """Return the stage that refused this content, and who that is, in words."""
        stage = self._volume.record.refused[self._key(fingerprint)].stage
        return stage, "the check" if stage == "check" else "the target"

    def accept(self, fingerprint: str) -> None:
        """Forget a refusal: the content is good after all."""
        self._volume.note_record(self._volume.record.accept(self._key(fingerprint)))

    def retry_all(self) -> None:
        """Let everything be tried again now."""
        record = self._volume.record
        for fingerprint, known in record.refused.items():
            record = record.refuse(fingerprint, Refusal(stage=known.stage, failures=known.failures, retry=_ASKED_FOR))
        self._volume.note_record(record)

    def _key(self, fingerprint: str) -> str:
        return f"{fingerprint}/{self._rules}"

    def _delay(self, backoff: Backoff, failures: int) -> float:
        """Return a wait that is a tenth shorter or longer than `first`, doubled with every refusal."""
        return max(SHORTEST, backoff.ceiling(failures) * self._world.random.uniform(0.9, MOST))

    @staticmethod
    def _longest(backoff: Backoff, failures: int) -> float:
        return max(SHORTEST, backoff.ceiling(failures) * MOST)
