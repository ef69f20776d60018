"""What is remembered of what is published from one run to the next, and whether the file that holds it is as new."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from reloader.record import Record
from reloader.volume.errors import VolumeError, explained

log = logging.getLogger("reloader")


class Remembered:
    """A record, and its file; who has a file says how it is saved."""

    def __init__(self, record: Record, path: Path | None) -> None:
        self._told_as = path or Path()
        self.record = record
        """What is remembered; `remember` changes it."""
        self.unsaved: str | None = None
        """Why the record in the file is older than `record`, where it cannot be written; a restart now could ask for a reload twice."""
        self._waits = False

    @property
    def last_confirmed(self) -> int | None:
        """Return the number of the last generation that a target confirmed."""
        return self.record.confirmed.number if self.record.confirmed else None

    def confirmed_by(self, number: int, instance: Mapping[str, Any]) -> bool:
        """Return whether this instance confirmed this generation."""
        confirmed = self.record.confirmed
        return confirmed is not None and confirmed.number == number and instance in confirmed.instances

    def next_number(self) -> int:
        """Return the number that the next generation gets: higher than any before it."""
        return self.record.last + 1

    def confirm(self, number: int, instances: Collection[Mapping[str, Any]]) -> None:
        """Remember who runs on a generation (the fields of `targets.Instance`); what cannot be written now is, the next time."""
        self._try_remembering(self.record.confirm(number, instances))

    def note_record(self, record: Record) -> None:
        """Take a record, and write what waits; what cannot be written now is, the next time."""
        if record != self.record or self.unsaved is not None or self._waits:
            self._try_remembering(record)

    def remember(self, record: Record) -> None:
        """Take `record`, and write it if it differs from what is written.

        Raises:
            VolumeError: it cannot be written now; it is taken all the same, and written the next time.

        """
        self.record, self._waits = record, False
        try:
            with explained("record", self._told_as):
                self._save(record)
        except VolumeError as error:
            self.unsaved = str(error)
            raise
        self.unsaved = None

    def _try_remembering(self, record: Record) -> None:
        """Remember, and leave it for the next time where that fails: a step that was done must not count as failed for it."""
        before = self.unsaved
        try:
            self.remember(record)
        except VolumeError as error:
            if self.unsaved != before:
                log.warning("record not written", extra={"fields": {"path": str(self._told_as), "reason": str(error)}})

    def _save(self, record: Record) -> None:
        """Write a record, if it differs from what is written."""
        raise NotImplementedError
