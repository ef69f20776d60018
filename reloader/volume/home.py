"""`..reloader/` on the volume: the lock, the key of the fingerprints and the record."""

import fcntl
import logging
import os
import secrets
import socket
import stat
from contextlib import suppress
from pathlib import Path

from reloader.record import Damaged, Record
from reloader.volume.errors import VolumeError, VolumeLocked
from reloader.volume.fingerprints import KEY_BYTES
from reloader.world import World
from reloader.world.unlinked import NotOurs, read

log = logging.getLogger("reloader")

SET_ASIDE = 3
"""How many damaged records are kept for a person to look at."""

_MADE_BY_ANOTHER = (
    "{path} was made by uid {owner}, and this is uid {uid}: run the init container and the sidecar as the same user (`runAsUser`), "
    "or remove {home}"
)
_RECORD, _KEY, _LOCK, _TEMPORARY = "record.json", "key", "lock", ".tmp"
LARGEST = 16 * 1024 * 1024
"""How many bytes of a file there are read."""


class Home:
    """The private directory of the volume; held from `open` to `close`."""

    def __init__(self, path: Path, world: World) -> None:
        self._path = path
        self._world = world
        self._descriptor: int | None = None
        self._saved = b""

    @property
    def is_open(self) -> bool:
        """Return whether the lock was taken."""
        return self._descriptor is not None

    @property
    def is_held(self) -> bool:
        """Return whether the lock that was taken is still the one that others meet: no longer, once the volume was replaced."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), (self._path / _LOCK).stat(follow_symlinks=False))
        except OSError:
            return False

    def open(self) -> None:
        """Take the lock.

        Raises:
            VolumeLocked: another process has it.
            VolumeError: the directory is another user's.
            OSError: it cannot be made.

        """
        try:
            if not self._is_there():
                self._world.disk.make_directory(self._path, 0o700)
            self._descriptor = self._world.disk.lock(self._path / _LOCK, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except BlockingIOError:
            raise VolumeLocked("open", f"{self._path.parent} is held by another reloader: {self._holder()}") from None
        except PermissionError as error:
            raise self._refused(error) from error
        for name in (_KEY, _RECORD):
            self._world.disk.remove_file(self._path / (name + _TEMPORARY))

    def close(self) -> None:
        """Free the lock."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # a child that is just being started has a copy of the descriptor
            os.close(self._descriptor)
        self._descriptor, self._saved = None, b""

    def key(self) -> bytes:
        """Return the key of the fingerprints, made where there is none that is whole.

        Raises:
            VolumeError: it is another user's.
            OSError: it cannot be made.

        """
        try:
            key = self._read(_KEY)
        except NotOurs:
            key = None
        if key is None or len(key) != KEY_BYTES:
            key = secrets.token_bytes(KEY_BYTES)
            self._replace(_KEY, key)
            self._world.disk.sync_directory(self._path)
        return key

    def load(self) -> Record | None:
        """Return the record; None where there is none, or none that can be used (then it is set aside).

        Raises:
            VolumeError: it is another user's.
            OSError: it cannot be set aside.

        """
        try:
            data = self._read(_RECORD)
            if data is None:
                return None
            record = Record.from_json(data)
        except (Damaged, NotOurs) as damaged:
            self._set_aside(damaged)
            return None
        self._saved = data
        return record

    def peek(self) -> Record | None:
        """Return the record without a lock and without a mark; None where there is none that can be read."""
        try:
            return Record.from_json(read(self._path / _RECORD, LARGEST))
        except (OSError, Damaged):
            return None

    def save(self, record: Record) -> None:
        """Write the record, if it changed. The directory is not synced: a crash of the machine may leave the one before, whole.

        Raises:
            VolumeError: the volume is not held.
            OSError: it was not written; the one before is still whole.

        """
        if not self.is_held:
            raise VolumeError("record", f"{self._path.parent} is not held now")
        data = record.to_json()
        if data != self._saved:
            self._replace(_RECORD, data)
            self._saved = data

    def _replace(self, name: str, data: bytes) -> None:
        temporary = self._path / (name + _TEMPORARY)
        try:
            self._world.disk.write_file(temporary, data, 0o600)
            self._world.disk.rename(temporary, self._path / name)
        except OSError:
            with suppress(OSError):
                self._world.disk.remove_file(temporary)
            raise

    def _read(self, name: str) -> bytes | None:
        try:
            return read(self._path / name, LARGEST)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise self._refused(error) from error

    def _set_aside(self, damaged: Exception) -> None:
        path = self._path / f"{_RECORD}.damaged-{self._world.clock.wall():.0f}"
        log.warning(
            "record set aside", extra={"fields": {"path": str(path), "reason": f"{damaged}; what is published is signalled once more"}}
        )
        self._world.disk.rename(self._path / _RECORD, path)
        for old in sorted(self._path.glob(f"{_RECORD}.damaged-*"))[:-SET_ASIDE]:
            self._world.disk.remove_file(old)

    def _is_there(self) -> bool:
        try:
            return stat.S_ISDIR(self._path.stat(follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def _holder(self) -> str:
        try:
            return read(self._path / _LOCK, LARGEST).decode(errors="replace").strip() or "it has not said which"
        except OSError:
            return "which one cannot be seen from here"

    def _refused(self, error: PermissionError) -> Exception:
        """Return what names the mend: of what an earlier run made as another user, a different one than of the volume itself."""
        for path in (Path(str(error.filename)), self._path):
            with suppress(OSError):
                return VolumeError("open", _MADE_BY_ANOTHER.format(path=path, owner=path.lstat().st_uid, uid=os.geteuid(), home=self._path))
        return error
