"""A pipeline without a volume: the target reads mounted files itself, and nothing is written."""

import secrets
from collections.abc import Collection, Mapping
from typing import Any

from reloader.record import Record
from reloader.volume import fingerprints
from reloader.volume.published import Published
from reloader.world import World


class Mounted:
    """What is mounted counts as published; what is confirmed is remembered only as long as this process runs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._key = secrets.token_bytes(fingerprints.KEY_BYTES)
        self.published: Published | None = None
        self.record = Record(boot=world.clock.boot())
        self.unsaved: str | None = None
        """Nothing is saved, so nothing can fail to be."""

    def open(self) -> None:
        """Need nothing."""

    def close(self) -> None:
        """Hold nothing."""

    def fingerprint(self, values: Mapping[str, Any]) -> str:
        """Return the keyed fingerprint of plain data."""
        return fingerprints.of_value(self._key, values)

    def next_number(self) -> int:
        """Return the number that the next content gets."""
        return self.record.last + 1

    def adopt(self, fingerprint: str, changed: float | None) -> Published:
        """Count this content as published when it changed (boot clock), or now where the source cannot tell."""
        now, wall, number = self._world.clock.now(), self._world.clock.wall(), self.next_number()
        at = now if changed is None else min(changed, now)
        self.published = Published(number=number, fingerprint=fingerprint, at=at, wall=wall - (now - at))
        self.record = self.record.publish(number, at, self.published.wall).without([number - 1])
        return self.published

    def confirm(self, number: int, instances: Collection[Mapping[str, Any]]) -> None:
        """Remember who runs on which content."""
        self.record = self.record.confirm(number, instances)

    def doubt(self) -> None:
        """Remember that the target was given something else than what it confirmed last."""
        self.record = self.record.doubt()

    def rollback_target(self) -> None:
        """Return None: what is mounted is not ours to change."""

    def note_record(self, record: Record) -> None:
        """Take a record."""
        self.record = record

    def confirmed_by(self, number: int, instance: Mapping[str, Any]) -> bool:
        """Return whether this instance confirmed this content."""
        confirmed = self.record.confirmed
        return confirmed is not None and confirmed.number == number and instance in confirmed.instances

    def remember_ages(self, ages: Mapping[str, float]) -> None:
        """Forget them: there is no place to remember them in."""

    @property
    def ages(self) -> Mapping[str, float]:
        """Return nothing: no age outlives this process."""
        return {}

    @property
    def last_confirmed(self) -> int | None:
        """Return the number that was confirmed last."""
        return self.record.confirmed.number if self.record.confirmed else None

    def published_files(self) -> Mapping[str, bytes]:
        """Return nothing: no file is ours."""
        return {}

    def sweep(self, now: float) -> None:
        """Keep nothing, sweep nothing."""
