"""Writes each file of a set into the file that is there: for files that are mounted one by one, which no rename of ours ever reaches.

Sets are staged and kept as on every volume, and the `..data` link moves once the last file is written: it names what was whole in place.
Before the first write the record says what is begun, so that after a crash or an error it is finished, or taken back.
"""

import errno
import logging
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from reloader.plan import File, Volume as Plan
from reloader.volume import Volume, layout
from reloader.volume.errors import VolumeError, explained
from reloader.volume.owners import KEEP
from reloader.volume.published import Published
from reloader.world import World

log = logging.getLogger("reloader")

COST = (
    "volume.in_place is not atomic: while files are written, a reader may meet old and new ones together, or half of one; "
    "use it only for files that are mounted one by one, and a mount of the whole directory where you can"
)

_NEW = "file.tmp"


class InPlace(Volume):
    """A volume whose files stay the same ones for ever; see `COST`."""

    def __init__(self, plan: Plan, world: World) -> None:
        super().__init__(plan, world)
        self._told = False

    def open(self) -> None:
        """Take the volume, finish what was begun, and write again what a hand changed.

        Raises:
            VolumeLocked: another process has it.
            VolumeError: it cannot be used now, and what mends that.

        """
        if not self._told:
            log.warning("written in place", extra={"fields": {"path": str(self.path), "reason": COST}})
        self._told = True
        super().open()

    @property
    def published(self) -> Published | None:
        """Return what was whole in place last; while something begun is not done, it equals no content, so that it is written again."""
        published = super().published
        return replace(published, fingerprint="") if published is not None and self.record.writing is not None else published

    def target_directory(self, number: int) -> str:
        """Return the volume as the target sees it: no generation has a place of its own there."""
        return super().target_directory(number).rpartition("/")[0]

    def publish(self, number: int) -> Published:
        """Write a staged set in place, one file after the other.

        Raises:
            VolumeError: a step failed; what was published before is written back, as far as the disk lets.

        """
        try:
            published = super().publish(number)
        except VolumeError:
            self._take_back()
            raise
        self._forget([other for other, known in self.record.generations.items() if known.at is None])
        return published

    def _mend(self, linked: int | None) -> None:
        for path in (self.path / layout.DATA_TEMPORARY, self._new):
            self._world.disk.remove_file(path)
        begun = self.record.writing.number if self.record.writing else None
        try:
            if begun in self.record.generations and begun not in (None, linked):
                super().publish(begun)
            elif linked is not None:
                self._restore(linked)
        except VolumeError as error:
            self._say_torn(error)
        self._forget([])

    def _take_back(self) -> None:
        try:
            linked = layout.linked(self.path)
            if self.record.writing is not None and linked is not None:
                self._restore(linked)
        except (OSError, VolumeError) as error:
            self._say_torn(error)

    def _say_torn(self, error: Exception) -> None:
        log.warning("files not whole", extra={"fields": {"path": str(self.path), "reason": f"{error}; tried again"}})

    def _restore(self, linked: int) -> None:
        """Make the files those of the published generation. Who starts meanwhile may have read a mix, so it counts as published now."""
        by_hand = self.record.writing is None
        with explained("publish", self.path):
            self._show(linked)
        if self.record.writing is None:
            return
        self.record = replace(self.record.doubt() if by_hand else self.record, writing=None)
        self._published = self._discover(linked)
        self._try_remembering(self.record)

    def _refuse_in_the_way(self, names: Iterable[str]) -> None:
        for name in names:
            path = _obstacle(self.path, name)
            if path is not None and path not in {self.path / link for link in layout.links(self.path)}:
                raise VolumeError("publish", f"{path} is in the way: neither a file nor a folder; remove it, or give the file another name")

    def _show(self, number: int) -> None:
        """Write what differs, and empty what left; the record says so before."""
        root = self.directory(number)
        wanted = set(layout.file_names(root))
        changed = sorted(name for name in wanted if self._differs(name, root / name))
        gone = sorted(name for name in self._shown() - wanted if self._is_to_go(name))
        if not changed and not gone:
            return
        self._refuse_in_the_way(changed)
        self.remember(self.record.write(number, {*changed, *gone}))
        for name in changed:
            self._write(name, root / name)
        for name in gone:
            self._empty(name)
        for folder in sorted({(self.path / name).parent for name in (*changed, *gone)}):
            self._world.disk.sync_directory(folder)

    def _shown(self) -> set[str]:
        """Return the names of all files that are in place because of us."""
        linked = layout.linked(self.path)
        begun = self.record.writing.names if self.record.writing else ()
        return {*begun, *(layout.file_names(self.directory(linked)) if linked is not None else ())}

    def _differs(self, name: str, staged: Path) -> bool:
        path = self.path / name
        if _obstacle(self.path, name) is not None or not path.exists():
            return True
        there, wanted = path.stat(), staged.stat()
        mode, uid, gid = self._attributes(name, wanted.st_mode, wanted.st_uid, wanted.st_gid)
        if mode not in (KEEP, stat.S_IMODE(there.st_mode)) or uid not in (KEEP, there.st_uid) or gid not in (KEEP, there.st_gid):
            return True
        return there.st_size != wanted.st_size or layout.read_file(path) != layout.read_file(staged)

    def _attributes(self, name: str, mode: int, uid: int, gid: int) -> tuple[int, int, int]:
        """Return what an existing file gets of these: only what is configured, and a mode only where it is not the usual one."""
        file = self._plan.files.get(name, File())
        return (
            stat.S_IMODE(mode) if file.mode != File.mode else KEEP,
            uid if file.owner is not None else KEEP,
            gid if file.group is not None else KEEP,
        )

    def _write(self, name: str, staged: Path) -> None:
        path, disk, data, made = self.path / name, self._world.disk, layout.read_file(staged), staged.stat()
        obstacle = _obstacle(self.path, name)
        if obstacle is not None:  # a link of ours, from when this volume was not written in place
            disk.remove_file(obstacle)
        if path.exists():
            disk.overwrite_file(path, data, *self._attributes(name, made.st_mode, made.st_uid, made.st_gid))
            return
        for folder in _missing_folders(self.path, name):
            disk.make_directory(folder, self._plan.dir_mode, self.path.stat().st_gid)
        disk.remove_file(self._new)
        owner = made.st_uid if self._plan.files.get(name, File()).owner is not None else KEEP
        disk.write_file(self._new, data, stat.S_IMODE(made.st_mode), owner, made.st_gid)
        disk.rename(self._new, path)

    def _is_to_go(self, name: str) -> bool:
        path = self.path / name
        if _obstacle(self.path, name) is not None or not path.exists():
            return False
        return bool(path.stat().st_size) or not self._stays(name)

    def _stays(self, name: str) -> bool:
        """Return whether the file comes back: once it were removed, a mount of it would never see that."""
        return name in self._plan.files or self.record.withdrawn == self.record.last

    def _empty(self, name: str) -> None:
        """Empty a file that left, because a mount of it shows it even once it is removed; then remove it, unless it may come back."""
        path = self.path / name
        self._world.disk.overwrite_file(path, b"")
        if self._stays(name):
            return
        try:
            self._world.disk.remove_file(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            log.warning("file emptied", extra={"fields": {"path": str(path), "reason": "it is mounted by itself and cannot be removed"}})

    @property
    def _new(self) -> Path:
        return self.path / layout.HOME / _NEW


def _components(root: Path, name: str) -> Iterable[Path]:
    """Return the folders of a file, the outer before the inner."""
    return (root / parent for parent in reversed(PurePosixPath(name).parents) if parent.parts)


def _obstacle(root: Path, name: str) -> Path | None:
    """Return what is no folder where a folder of the file must be, or no plain file in its own place; None where nothing is."""
    for folder in _components(root, name):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            return folder
    path = root / name
    return path if path.is_symlink() or (path.exists() and not path.is_file()) else None


def _missing_folders(root: Path, name: str) -> list[Path]:
    return [folder for folder in _components(root, name) if not folder.exists()]
