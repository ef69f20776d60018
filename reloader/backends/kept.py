"""What a backend keeps in `state.path` between two runs: one private file, of one process at a time."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reloader.world import World

log = logging.getLogger("reloader")

VERSION = 1


class Kept:
    """A JSON file that only this user can read. Nothing here raises: what cannot be kept is said once, and had anew by the next run."""

    def __init__(self, directory: Path, name: str, world: World) -> None:
        self._path = directory / f"{name}.json"
        self._world = world
        self._descriptor: int | None = None
        self._saved = b""
        self._closed = False
        self._trouble = ""

    def load(self) -> Mapping[str, Any] | None:
        """Return what an earlier run kept; None where there is nothing, or nothing that can be used (then it is set aside)."""
        if not self._open():
            return None
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say(error)
            return None
        try:
            kept = json.loads(data)
        except ValueError:
            kept = None
        if isinstance(kept, dict) and kept.get("version") == VERSION:
            return kept
        self.set_aside()
        return None

    def save(self, kept: Mapping[str, Any]) -> None:
        """Write what is to be kept, if it changed and the file is ours."""
        data = json.dumps({"version": VERSION, **kept}).encode()
        if data == self._saved or self._closed or not self._open():
            return
        disk, temporary = self._world.disk, self._path.with_suffix(".tmp")
        try:
            disk.remove_file(temporary)
            disk.write_file(temporary, data, 0o600)
            disk.rename(temporary, self._path)
            disk.sync_directory(self._path.parent)
        except OSError as error:
            self._say(error)
            return
        self._saved, self._trouble = data, ""

    def set_aside(self) -> None:
        """Put a file that cannot be used where a person can look at it."""
        aside = self._path.with_suffix(".damaged")
        log.warning("state cannot be used; set aside", extra={"fields": {"path": str(self._path), "aside": str(aside)}})
        try:
            self._world.disk.rename(self._path, aside)
        except OSError as error:
            self._say(error)

    def close(self) -> None:
        """Let another process have the file; nothing is written any more."""
        self._closed = True
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> bool:
        """Return whether the file is ours now; one that another process has is asked for again the next time."""
        if self._descriptor is not None:
            return True
        try:
            if not self._path.parent.is_dir():
                self._world.disk.make_directory(self._path.parent, 0o700)
            note = f"process {os.getpid()}\n".encode()
            self._descriptor = self._world.disk.lock(self._path.with_suffix(".lock"), note)
        except BlockingIOError:
            self._say(None)
        except OSError as error:
            self._say(error)
        return self._descriptor is not None

    def _say(self, error: OSError | None) -> None:
        reason = f"another reloader has it: {self._path}" if error is None else f"{error.filename or self._path}: {error.strerror}"
        if reason != self._trouble:
            self._trouble = reason
            log.warning("leases are not kept for the next run", extra={"fields": {"reason": reason}})
