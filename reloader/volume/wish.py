"""What a person asks for by hand, which generation that means, and the form it has when it is left on the volume."""

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from reloader.record import Generation, Record
from reloader.world import World
from reloader.world.unlinked import read

log = logging.getLogger("reloader")

NAME = "wish.json"
LARGEST = 4096
"""How many bytes of a wish are read."""


class NotPossible(Exception):
    """It cannot be done; the message tells a person why, and what can be."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Put an earlier generation back and hold it, or let go of it."""

    act: Literal["rollback", "resume"]
    generation: int | None = None
    """Which one; None for the newest that was confirmed before what is published."""


def chosen(record: Record, wanted: int | None, published: int | None, wall: float, is_there: Callable[[int], bool]) -> int:
    """Return the generation that is meant; `published` is what readers see now.

    Raises:
        NotPossible: there is none, and which there are.

    """
    sets = {number: known for number, known in record.generations.items() if number != record.withdrawn and is_there(number)}
    usable = {number: known for number, known in sets.items() if not known.has_expired(wall)}
    if wanted is None:
        earlier = [number for number, known in usable.items() if known.confirmed and (published is None or number < published)]
        if not earlier:
            raise NotPossible(f"no earlier generation was ever confirmed; {_told(usable)}")
        return max(earlier)
    if wanted in sets.keys() - usable.keys():
        raise NotPossible(f"something in generation {wanted} has expired; {_told(usable)}")
    if wanted not in usable:
        raise NotPossible(f"there is no generation {wanted}; {_told(usable)}")
    return wanted


def _told(usable: dict[int, Generation]) -> str:
    if not usable:
        return "there is none"
    each = [f"{number}{'' if known.confirmed else ' (never confirmed)'}" for number, known in sorted(usable.items())]
    return f"there {'is' if len(each) == 1 else 'are'} {', '.join(each)}"


def leave(home: Path, wish: Wish, world: World) -> None:
    """Leave a wish for whoever runs on the volume, now or at the next start; it replaces one that was left before.

    Raises:
        OSError: it cannot be left.

    """
    owner = home.stat()
    temporary = home / f"{NAME}.tmp"
    world.disk.remove_file(temporary)
    world.disk.write_file(temporary, json.dumps(asdict(wish)).encode(), 0o600, owner.st_uid, owner.st_gid)
    world.disk.rename(temporary, home / NAME)


class Wishes:
    """The wish that may lie in `..reloader/`: each is taken once, and removed when the record has what came of it."""

    def __init__(self, home: Path, world: World) -> None:
        self._path = home / NAME
        self._world = world
        self._taken: tuple[int, int] | None = None

    def take(self) -> Wish | None:
        """Return a wish that was not taken yet."""
        try:
            status = self._path.stat(follow_symlinks=False)
            if (status.st_ino, status.st_ctime_ns) == self._taken:
                return None
            self._taken = status.st_ino, status.st_ctime_ns
            data = read(self._path, LARGEST)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("wish not read", extra={"fields": {"path": str(self._path), "reason": error.strerror}})
            return None
        return _parsed(data, self._path)

    def remove(self) -> None:
        """Remove what was taken; what cannot be removed is not taken again by this run."""
        with suppress(OSError):
            status = self._path.stat(follow_symlinks=False)
            if (status.st_ino, status.st_ctime_ns) == self._taken:
                self._world.disk.remove_file(self._path)


def _parsed(data: bytes, path: Path) -> Wish | None:
    try:
        plain = json.loads(data)
        act, generation = plain["act"], plain["generation"]
        if act in ("rollback", "resume") and (generation is None or type(generation) is int):
            return Wish(act=act, generation=generation)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    log.warning("wish not understood", extra={"fields": {"path": str(path)}})
    return None
