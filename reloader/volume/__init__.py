"""Stages a whole generation, publishes it by one rename, remembers what is published and confirmed.

The `..data` link is the truth of what is published, and it is read anew each time somebody asks. The record beside it only adds what a
link cannot say: when that was, what the content was, who confirmed it. So every step may be the last one before a crash, and the next
start finds either the old set or the new one, and what is still to do.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from reloader.certificates import first_to_end
from reloader.fileset import Rendered
from reloader.plan import Volume as Plan
from reloader.record import Generation, Record
from reloader.volume import fingerprints, layout
from reloader.volume.errors import VolumeError, VolumeLocked, explained
from reloader.volume.home import Home
from reloader.volume.links import Links
from reloader.volume.mounted import Mounted
from reloader.volume.published import Published
from reloader.volume.remembered import Remembered
from reloader.volume.staging import resolve_all, write_set
from reloader.world import World

__all__ = ["Mounted", "Published", "Volume", "VolumeError", "VolumeLocked"]

log = logging.getLogger("reloader")

LEAST_KEPT = 60.0
"""How many seconds a generation stays after another has replaced it: a slow reader may still be in it."""


class Volume(Remembered):
    """The directory shared with the target; one process at a time holds it, one thread uses it."""

    def __init__(self, plan: Plan, world: World) -> None:
        self.path = Path(os.path.realpath(plan.path))
        """Real, so that no link is followed from here on."""
        super().__init__(Record(boot=world.clock.boot()), self.path)
        self._plan = plan
        self._world = world
        self._home = Home(self.path / layout.HOME, world)
        self._key = b""
        self._published: Published | None = None
        self._links = Links(self.path, world.disk)

    def open(self) -> None:
        """Take the volume and mend what a crash left; does nothing while it is held, takes it anew once it was replaced.

        Raises:
            VolumeLocked: another process has it.
            VolumeError: it cannot be used now, and what mends that.

        """
        if self._home.is_held:
            return
        if self._home.is_open:
            log.warning(
                "volume replaced", extra={"fields": {"path": str(self.path), "reason": "its lock is not ours any more; taking it anew"}}
            )
            self.close()
        with explained("open", self.path):
            self._make_directory()
            resolve_all(self._plan.files, self.path.stat().st_gid)
            layout.refuse_foreign_data(self.path)
            try:
                self._home.open()
                self._resume()
            except BaseException:
                self.close()
                raise

    def peek(self) -> Record:
        """Return what is remembered on the volume, without taking it; as of a new one, where nothing is."""
        return self._home.peek() or self.record

    def close(self) -> None:
        """Free the volume; what is published stays."""
        if self._waits and self._home.is_held:
            self._try_remembering(self.record)
        self._home.close()
        self._published = None

    @property
    def published(self) -> Published | None:
        """Return what readers see now. One that is met unexpectedly (a crash, a step that failed, a hand) counts as published now."""
        try:
            number = layout.linked(self.path)
        except OSError:  # not to be seen is not gone
            return self._published
        if number is None or number == self.record.withdrawn:
            self._published = None
        elif self._published is None or self._published.number != number:
            self._published = self._discover(number)
        return self._published

    @property
    def is_lost(self) -> bool:
        """Return whether something else is where a set was published, and the volume is not taken anew."""
        return not self._home.is_held and self.record.published not in (None, self.record.withdrawn)

    @property
    def shown_since(self) -> float | None:
        """Return the latest time, on the boot clock, at which what is published can have been staged; None where nothing is."""
        published = self.published
        try:
            return None if published is None else self._world.clock.dated(self.directory(published.number).stat().st_mtime)
        except OSError:
            return None

    def rollback_target(self) -> int | None:
        """Return the generation to go back to, if it is there, and nothing in it has expired."""
        published = self.published
        number = self.record.rollback_target(published.number if published else None)
        known = self.record.generations.get(number) if number is not None else None
        if number is None or known is None or not self.directory(number).is_dir():
            return None
        return None if known.has_expired(self._world.clock.wall()) else number

    def published_files(self) -> Mapping[str, bytes]:
        """Return the published files by name; needs no lock and changes nothing.

        Raises:
            VolumeError: some may not be read.

        """
        with explained("read", self.path):
            return layout.read_files(self.path)

    def fingerprint(self, rendered: Rendered) -> str:
        """Return what tells this set from every other one, and nobody anything about it.

        Raises:
            VolumeError: the volume, which has the key, cannot be used now.

        """
        self.open()
        return fingerprints.of_files(self._key, rendered, self._plan.dir_mode)

    def directory(self, number: int) -> Path:
        """Return the directory of a generation."""
        return self.path / layout.generation_name(number)

    def target_directory(self, number: int) -> str:
        """Return the directory of a generation as the target sees it."""
        root = Path(self._plan.target_path or self._plan.path).absolute()
        return str(root / layout.generation_name(number))

    def stage(self, number: int, rendered: Rendered, fingerprint: str, expires: float | None = None, *, fallback: bool = False) -> Path:
        """Write a whole set into its final directory, unseen by readers, and remember its fingerprint; return the directory.

        Raises:
            VolumeError: why not; nothing of it is left.

        """
        self.open()
        layout.refuse_names(rendered)
        with explained("stage", self.path):
            layout.refuse_foreign_data(self.path)
            self._refuse_in_the_way(rendered)
            before = self.record.last
            self.record = replace(self.record, last=max(before, number))
            try:
                write_set(self.directory(number), rendered, self._plan.dir_mode, self._world.disk)
                valid = first_to_end(file.data for file in rendered.values())
                self.record = self.record.stage(number, fingerprint, valid, expires=expires, fallback=fallback)
                self._home.save(self.record)
            except BaseException:
                self.discard(number)
                if layout.is_free(self.path, number):  # the next try then fails in the same words, which are logged once
                    self.record = replace(self.record, last=before)
                raise
        return self.directory(number)

    def publish(self, number: int) -> Published:
        """Let readers see a staged set, all of it at once; the record is written by `note_record`, which is to follow.

        Raises:
            VolumeError: a step failed; `published` tells whether readers see the set all the same.

        """
        self.open()
        with explained("publish", self.path):
            layout.refuse_foreign_data(self.path)
            self._show(number)
            self._links.switch(number)
            self._world.disk.sync_directory(self.path)
            self._published = published = self._discover(number)
            self._links.tidy()
        self._waits = True  # for what is written before the target is asked; who resumes sees the link, and what is new there is owed
        return published

    def discard(self, number: int) -> None:
        """Remove a set that is not to be published; one that is published already stays. What cannot be removed now is, with `sweep`."""
        if not self._may_be_shown(number):
            self._forget([number])

    def withdraw(self, *, closed: bool = False) -> None:
        """Let readers see nothing: the link moves to an empty generation, and all others are removed; `closed` is for the record.

        Raises:
            VolumeError: it cannot be done now.

        """
        self.open()  # what another one holds is not to be touched, and its record knows which number is next
        published, before = self.published, self.record
        if closed and published is not None:  # what a person holds goes too; and on a full volume there is room only after a removal
            self._forget([number for number in before.generations if number != published.number])
        number = self.next_number()
        # Written with the stage, so that a crash after the switch knows what it sees.
        self.record = replace(self.record, withdrawn=number, closed=closed, rolled_back=None if closed else before.rolled_back)
        try:
            self.stage(number, {}, "")
        except VolumeError:  # the number may be another set's
            self._take_withdrawal_back(before)
            raise
        try:
            self.publish(number)
        except VolumeError:
            if not self._may_be_shown(number):
                self._take_withdrawal_back(before)
                self._forget([number])
            raise
        self._try_remembering(self.record.without([other for other in self.record.generations if other != number]))
        self._try_tidying()

    def sweep(self, now: float) -> None:
        """Remove what nobody needs any more (see `Record.superfluous`); what cannot be removed now is, the next time."""
        if not self._home.is_held:
            return
        published = self.published
        number = published.number if published else None
        doomed = self.record.superfluous(published=number, keep=self._plan.keep, before=now - LEAST_KEPT)
        self._forget(doomed)

    def _take_withdrawal_back(self, before: Record) -> None:
        self.record = replace(self.record, withdrawn=before.withdrawn, closed=before.closed, rolled_back=before.rolled_back)

    def _may_be_shown(self, number: int) -> bool:
        """Return whether readers see a generation, or that cannot be told now."""
        try:
            return layout.linked(self.path) == number
        except OSError:
            return True

    def _make_directory(self) -> None:
        missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
        for path in reversed(missing):
            self._world.disk.make_directory(path, self._plan.dir_mode)

    def _resume(self) -> None:
        """Take up what an earlier run left: its record, its key, its half-done steps."""
        now, wall = self._world.clock.now(), self._world.clock.wall()
        linked, there = layout.linked(self.path), layout.generations(self.path)
        record = self._home.load()
        self._world.clock.learn(record.clocks(self._world.clock.boot()) if record else ())
        if record is None:  # older ones were published once; when is not known any more
            older = {number: Generation(fingerprint="", at=now, wall=wall) for number in there if linked is not None and number < linked}
            record = Record(boot=self._world.clock.boot(), generations=older, filled={} if linked is None else None)
        known = {
            number: each
            for number, each in record.generations.items()
            if number in there and (each.at is not None or number in (linked, record.writing and record.writing.number))
        }
        record = replace(record, last=max(record.last, *there, 0), generations=known)
        self.record = record.enter_boot(self._world.clock.boot(), linked)
        self._key = self._home.key()
        self._published = self._recall(linked, now)
        self._mend(linked)

    def _recall(self, linked: int | None, now: float) -> Published | None:
        """Return what is published, with the time that is remembered of it; a time that a crash lost is the time of discovery."""
        if linked is None or linked == self.record.withdrawn:
            return None
        known = self.record.generations.get(linked)
        if known is None or known.at is None or linked != self.record.published or known.at > now:
            return self._discover(linked)
        return Published(number=linked, fingerprint=known.fingerprint, at=known.at, wall=known.wall or self._world.clock.wall())

    def _discover(self, number: int) -> Published:
        """Count a generation as published now; the clock is read after the link was."""
        self.record = self.record.publish(number, self._world.clock.now(), self._world.clock.wall())
        known = self.record.generations[number]
        return Published(number=number, fingerprint=known.fingerprint, at=known.at or 0.0, wall=known.wall or 0.0)

    def _mend(self, linked: int | None) -> None:
        """Bring directories and links in line with what is published, and write that down."""
        self._links.clear()
        if linked is not None:
            with suppress(VolumeError):  # something in the way is for the next publish to say
                self._show(linked)
        self._forget([])

    def _refuse_in_the_way(self, names: Iterable[str]) -> None:
        """Raise VolumeError where something that is not ours has a name that the set needs."""
        self._links.refuse_in_the_way(names)

    def _show(self, number: int) -> None:
        """Do what must be there before a generation is published."""
        self._links.show(number)

    def _save(self, record: Record) -> None:
        self._home.save(record)

    def _forget(self, numbers: list[int]) -> None:
        """Remove generations, then write that down: on a full volume there is room only after the removal."""
        self.record = self.record.without(numbers)
        self._try_tidying()
        self._try_remembering(self.record)

    def _try_tidying(self) -> None:
        """Remove generations and links that nothing knows, and what is left of earlier removals; what fails is left for the next time."""
        if not self._home.is_held:
            return
        try:
            with explained("sweep", self.path):
                self._remove_generations()
                self._links.tidy()
        except VolumeError as error:
            log.warning("volume not tidied", extra={"fields": {"path": str(self.path), "reason": str(error)}})

    def _remove_generations(self) -> None:
        disk = self._world.disk
        for number in sorted(layout.generations(self.path) - {layout.linked(self.path), *self.record.generations}):
            disk.rename(self.directory(number), self.path / (layout.generation_name(number) + layout.REMOVED))
        for path in layout.leftovers(self.path):
            disk.remove_tree(path)
