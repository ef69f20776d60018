"""A pipeline without a volume: the target reads mounted files itself, and nothing is written but the record, where there is a place."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reloader.record import Record
from reloader.volume import fingerprints
from reloader.volume.errors import explained
from reloader.volume.home import Home
from reloader.volume.published import Published
from reloader.volume.remembered import Remembered
from reloader.world import World


class Mounted(Remembered):
    """What is mounted counts as published; without a directory for the record, it is known only as long as this process runs."""

    def __init__(self, world: World, directory: Path | None = None) -> None:
        super().__init__(Record(boot=world.clock.boot()), directory)
        self._world = world
        self._directory = directory
        self._home = Home(directory, world) if directory else None
        self._key = secrets.token_bytes(fingerprints.KEY_BYTES)
        self._recalled = False
        self.published: Published | None = None

    def open(self) -> None:
        """Take the record of an earlier run.

        Raises:
            VolumeLocked: another process has it.
            VolumeError: it cannot be used now, and what mends that.

        """
        if self._home is None or self._directory is None or self._home.is_held:
            return
        self._home.close()
        with explained("open", self._directory):
            for path in (self._directory.parent.parent, self._directory.parent):
                if not path.is_dir():
                    self._world.disk.make_directory(path, 0o700)
            self._home.open()
            try:
                self._resume(self._home)
            except BaseException:
                self._home.close()
                raise

    def peek(self) -> Record:
        """Return what is known without a look at the file."""
        return self.record

    def close(self) -> None:
        """Free the record."""
        if self._home is not None:
            self._home.close()

    def known(self) -> tuple[bytes, Record, Published | None]:
        """Return the key of the fingerprints, the record and what is published, for one that comes in its place."""
        return self._key, self.record, self.published

    def inherit(self, before: "Mounted") -> None:
        """Go on from what another one knew of the same pipeline, where no file remembers it; before `open`."""
        if self._home is None:
            self._key, self.record, self.published = before.known()

    def fingerprint(self, values: Mapping[str, Any]) -> str:
        """Return the keyed fingerprint of plain data."""
        return fingerprints.of_value(self._key, values)

    def adopt(self, fingerprint: str, changed: float | None, valid: tuple[float, float] | None = None) -> Published:
        """Count this content as published when it changed (boot clock), or now where the source cannot tell.

        `valid` tells from when until when its certificates are.
        """
        number = self.next_number()
        self._recalled = False
        known = self.record.stage(number, fingerprint, valid).without([number - 1])
        return self._publish(known, number, fingerprint, changed)

    def meet_again(self, changed: float | None) -> None:
        """Take note that what is published is mounted, since `changed`: what was there in between was not seen.

        A target that started meanwhile may have read that, so it is older than this publish. One that confirmed this content has not
        read anything else since: only we make it read.
        """
        recalled, self._recalled = self._recalled, False
        if self.published is None:
            return
        if (changed is None and recalled) or (changed is not None and changed > self.published.at):
            self._publish(self.record, self.published.number, self.published.fingerprint, changed)

    def rollback_target(self) -> None:
        """Return None: what is mounted is not ours to change."""

    is_lost = False
    """What is mounted is looked at anew each time."""

    @property
    def shown_since(self) -> None:
        """Return None: when that was mounted which no record tells of, nobody knows."""

    def published_files(self) -> Mapping[str, bytes]:
        """Return nothing: no file is ours."""
        return {}

    def sweep(self, now: float) -> None:
        """Keep nothing, sweep nothing."""

    def _resume(self, home: Home) -> None:
        record = home.load()
        self._key = home.key()
        if record is None:
            return
        self._world.clock.learn(record.clocks(self._world.clock.boot()))
        self.record = record.enter_boot(self._world.clock.boot(), record.published)
        number = self.record.published
        known = self.record.generations.get(number) if number is not None else None
        if number is None or known is None:
            return
        now, wall = self._world.clock.now(), self._world.clock.wall()
        at = now if known.at is None else min(known.at, now)
        self._recalled = True
        self.published = Published(number=number, fingerprint=known.fingerprint, at=at, wall=known.wall or wall)

    def _publish(self, known: Record, number: int, fingerprint: str, changed: float | None) -> Published:
        now, wall = self._world.clock.now(), self._world.clock.wall()
        at = now if changed is None else min(changed, now)
        self.published = Published(number=number, fingerprint=fingerprint, at=at, wall=wall - (now - at))
        self.note_record(known.publish(number, at, self.published.wall))
        return self.published

    def _save(self, record: Record) -> None:
        if self._home is not None and self._home.is_open:
            self._home.save(record)
