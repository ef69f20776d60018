"""The own configuration while it runs: whether what it is made of changed, what is on the disk now, and what of that needs a restart."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path

from reloader.backends import Backends
from reloader.backends.directory import Scan
from reloader.backends.reads import Heartbeat
from reloader.backends.scan import Place, locate
from reloader.internal import told
from reloader.plan import Directory, Plan
from reloader.snapshot import Mailbox, Outcome, Reading
from reloader.world.clock import Clock

log = logging.getLogger("reloader")

SETTLE, SETTLE_MAX = 0.1, 2.0
"""How many seconds of quiet the files must have, since an editor writes in pieces; and how long that is waited for."""
LEAST_BETWEEN = 1.0
"""How many seconds pass at least between two looks at the whole, however many changes there are."""
AGAIN = 10.0
"""After how many seconds it is loaded again while it is refused: what was wrong may lie where nobody watches."""
LONGEST_LOAD = 60.0
"""How many seconds it may take to load; a thread that takes longer is stuck."""
ATTEMPTS = 5
"""How often it is loaded while a ConfigMap changes meanwhile, so that what was read is of two generations."""


@dataclass(frozen=True)
class Loaded:
    """What is on the disk: a plan, or what is wrong with it."""

    plan: Plan | None = None
    mistakes: tuple[str, ...] = ()


class OwnConfiguration:
    """Watches what the own configuration is made of, and loads it on a thread of its own: a disk that hangs holds up nobody's end."""

    def __init__(self, paths: Iterable[Path], load: Callable[[], Plan], clock: Clock) -> None:
        self._paths = tuple(path.absolute() for path in paths)
        self._load = load
        self._clock = clock
        self.mailbox = Mailbox(())
        """What wakes who waits for this one; nothing is put into it."""
        self._lock = threading.Lock()
        self._seen: dict[str, object] = {}
        self._first, self._last = inf, -inf
        self._loaded_at = -inf
        self._refused = self._unwatched = False
        self._watches: dict[tuple[str, Scan], Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        self._due = inf
        self._found: Loaded | None = None

    def follow(self, plan: Plan, backends: Backends) -> None:
        """Watch the files that it came from, those that may come beside them, and the templates that the plan names."""
        wanted = {*_places(self._paths), *((path, Scan(inside=True)) for path in _template_directories(plan))}
        for place in wanted - self._watches.keys():
            try:
                self._watches[place] = _watch(backends, *place, self)
            except (RuntimeError, OSError) as error:  # too many threads, or files
                log.warning("own configuration not watched", extra={"fields": {"path": place[0], "reason": str(error)}})
        for place in self._watches.keys() - wanted:
            self._watches.pop(place)()
        with self._lock:
            self._unwatched = bool(wanted - self._watches.keys())

    def put(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take what a directory shows now; that it cannot be read any more is a change too."""
        now = self._clock.now()
        with self._lock:
            for name, outcome in outcomes.items():
                state = outcome.value if isinstance(outcome, Reading) else outcome.reason
                if name not in self._seen or self._seen[name] != state:
                    self._seen[name] = state
                    self._first, self._last = min(self._first, now), now
        self.mailbox.nudge()

    def ask(self) -> None:
        """Have it loaded at once, whether anything seems to have changed or not."""
        with self._lock:
            self._first, self._last = min(self._first, self._clock.now()), -inf
            self._loaded_at = -inf

    @property
    def look_at(self) -> float:
        """Return when `look` is to be called, on the boot clock."""
        with self._lock:
            if self._thread is not None:
                return inf  # it wakes by itself
            settled = min(self._last + SETTLE, self._first + SETTLE_MAX) if self._first < inf else inf
            again = self._loaded_at + AGAIN if self._refused or self._unwatched else inf
            return max(min(settled, again), self._loaded_at + LEAST_BETWEEN)

    def look(self) -> None:
        """Begin to load it, if it is time for that."""
        if self.look_at > self._clock.now():
            return
        with self._lock:
            self._first, self._last = inf, -inf
            self._loaded_at = self._clock.now()
            self._due = self._clock.awake() + LONGEST_LOAD
            self._thread = threading.Thread(target=self._work, name="configuration", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # too many threads
            self._thread, self._refused = None, True
            self._found = Loaded(mistakes=(f"the configuration cannot be looked at: {error}",))

    def take(self) -> Loaded | None:
        """Return what was loaded, once."""
        with self._lock:
            found, self._found = self._found, None
        return found

    def judge(self, *, refused: bool) -> None:
        """Have it loaded again and again while what is on the disk is refused."""
        with self._lock:
            self._refused = refused

    def heartbeats(self) -> tuple[Heartbeat, ...]:
        """Return the thread that loads, while there is one."""
        thread = self._thread
        return () if thread is None else (Heartbeat(thread.name, self._due),)

    def _work(self) -> None:
        found = self._read()
        with self._lock:
            self._found, self._thread = found, None
        self.mailbox.nudge()

    def _read(self) -> Loaded:
        """Load it, again where a directory changed meanwhile as a whole."""
        for _ in range(ATTEMPTS):
            before = self._generations()
            found = self._read_once()
            if self._generations() == before:
                break
        return found

    def _read_once(self) -> Loaded:
        try:
            return Loaded(self._load())
        except ValueError as invalid:
            return Loaded(mistakes=tuple(str(mistake) for mistake in getattr(invalid, "mistakes", (told(invalid),))))
        except ChildProcessError as reason:
            return Loaded(mistakes=(str(reason),))
        except Exception as error:  # noqa: BLE001 - a mistake of ours is told, and the old configuration runs on
            return Loaded(mistakes=(told(error),))

    def _generations(self) -> list[Place | None]:
        return [_generation(directory) for directory, _ in sorted(self._watches, key=str)]


def needs_restart(old: Plan, new: Plan) -> list[str]:
    """Return the keys that changed and cannot be taken while running."""
    keys = [
        f"{section}.{each.name}"
        for section in ("server", "state")
        for each in fields(getattr(old, section))
        if getattr(getattr(old, section), each.name) != getattr(getattr(new, section), each.name)
    ]
    volumes = {each.name: each.volume.path for each in old.pipelines if each.volume}
    moved = [each.name for each in new.pipelines if each.volume and volumes.get(each.name, each.volume.path) != each.volume.path]
    before, after = programs(old), programs(new)
    others = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return keys + [f"volume.path of {name}" for name in moved] + [f"target.command of {name}" for name in others]


def programs(plan: Plan) -> dict[str, Sequence[str]]:
    """Return the command of each pipeline that runs its target."""
    return {each.name: each.target.settings.command for each in plan.pipelines if each.target.kind == "exec"}


def _places(paths: Iterable[Path]) -> set[tuple[str, Scan]]:
    """Return what is to be looked at: of a directory what it has, also what it has not yet; else the files by their names."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        if not path.is_dir():
            names.setdefault(path.parent, set()).add(path.name)
    files = {(str(directory), Scan(names=frozenset(those))) for directory, those in names.items()}
    return files | {(str(path), Scan(ending=".yaml")) for path in paths if path.is_dir()}


def _template_directories(plan: Plan) -> set[str]:
    files = [file for each in plan.pipelines if each.volume for file in each.volume.files.values()]
    return {str(Path(file.template).parent) for file in files if file.template}


def _watch(backends: Backends, directory: str, scan: Scan, own: OwnConfiguration) -> Callable[[], None]:
    plan = Directory(path=directory)
    with ExitStack() as ends:
        backend = backends.acquire(plan)
        ends.callback(backends.release, plan)
        ends.callback(backend.watch(scan, own, f"{directory} {scan.names} {scan.ending}"))
        return ends.pop_all().close


def _generation(directory: str) -> Place | None:
    with suppress(OSError):
        return locate(directory)
    return None
