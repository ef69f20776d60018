"""The own configuration while it runs: whether its files changed, and what of a change needs a restart."""

from collections.abc import Sequence
from pathlib import Path

from reloader.backends import Backends
from reloader.backends.directory import Scan
from reloader.plan import Directory, Plan
from reloader.snapshot import Mailbox


class OwnConfiguration:
    """Watches the files that the own configuration came from."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._names: dict[Path, set[str]] = {}
        for file in files:
            self._names.setdefault(file.absolute().parent, set()).add(file.name)
        self.mailbox = Mailbox(str(directory) for directory in self._names)
        self._seen: tuple[object, ...] = ()
        self._taken: tuple[object, ...] = ()

    def watch(self, backends: Backends) -> None:
        """Begin to watch."""
        for directory, names in self._names.items():
            backends.acquire(Directory(path=str(directory))).watch(Scan(names=frozenset(names)), self.mailbox, str(directory))

    def changing(self) -> bool:
        """Return whether something changed since this was asked last; that it cannot be read any more is a change too."""
        before, self._seen = self._seen, self._state()
        return before != self._seen

    def changed(self) -> bool:
        """Return whether something changed since this was asked last."""
        before, self._taken = self._taken, self._state()
        return before != self._taken

    def _state(self) -> tuple[object, ...]:
        standings = self.mailbox.take().standings.values()
        return tuple((standing.reading and standing.reading.value, standing.failure and standing.failure.reason) for standing in standings)


def needs_restart(old: Plan, new: Plan) -> list[str]:
    """Return the keys that changed and cannot be taken while running."""
    keys = [key for key in ("server", "log", "state") if getattr(old, key) != getattr(new, key)]
    volumes = {each.name: each.volume.path for each in old.pipelines if each.volume}
    moved = [each.name for each in new.pipelines if each.volume and volumes.get(each.name, each.volume.path) != each.volume.path]
    before, after = programs(old), programs(new)
    others = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return keys + [f"volume.path of {name}" for name in moved] + [f"target.command of {name}" for name in others]


def programs(plan: Plan) -> dict[str, Sequence[str]]:
    """Return the command of each pipeline that runs its target."""
    return {each.name: each.target.settings.command for each in plan.pipelines if each.target.kind == "exec"}
