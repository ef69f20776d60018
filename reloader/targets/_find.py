"""Which process is meant: of all that match, the one at the top of its tree; or each of these."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from reloader.targets import Held, Trouble
from reloader.world import World
from reloader.world.processes import Process
from reloader.written import Regex, plain

COMM_BYTES = 15
"""How much of a name the kernel keeps."""
AMBIGUITY_LASTS = 2.0
"""Seconds for which several may match: an `nginx -t`, an exec'd shell and the old process in an upgrade are gone by then."""
_PIDFILE_SLACK = 1.0
"""Seconds by which the time of a file may be off: its clock is coarse, and a start time is exact to a tick only."""
_SANDBOX = "/pause"
"""PID 1 of a Pod's shared process namespace."""
_SHELLS = ("sh", "ash", "dash", "bash", "zsh", "ksh", "busybox")
_INITS = ("tini", "tini-static", "dumb-init", "docker-init", "podman-init", "catatonit", "s6-svscan", "s6-supervise", "runsvdir", "runsv")
_LAUNCHERS = ("su", "sudo", "doas", "runuser", "gosu", "timeout")
_WRAPPERS = frozenset((*_SHELLS, *_INITS, *_LAUNCHERS))


@plain
class Match:
    """What a process must be; all that is given must hold."""

    name: str | None = None
    """Its whole name, however long."""
    cmdline: Regex | None = None
    """Found somewhere in its arguments, joined by spaces."""
    pidfile: str | None = None
    """A file whose first line is its pid, as this process sees pids."""
    uid: int | None = None
    all: bool = False
    """Whether every process that matches is meant, rather than the only one."""

    def __str__(self) -> str:
        given = {"name": self.name, "cmdline": self.cmdline, "pidfile": self.pidfile, "uid": self.uid}
        return ", ".join(f"{key} {value!r}" for key, value in given.items() if value is not None)


def name_of(process: Process) -> str:
    """Return the whole name: where the kernel may have cut it, what it was cut from, if that can still be seen."""
    if len(_bytes(process.comm)) < COMM_BYTES:
        return process.comm
    # A script's interpreter comes first, and the script itself second.
    for argument in process.argv[:2]:
        name = argument.rpartition("/")[2]
        if _bytes(name).startswith(_bytes(process.comm)):
            return name
    return process.comm


def described(process: Process) -> str:
    """Return what tells a person which process that is; arguments may hold secrets, so none is quoted."""
    return f"{name_of(process)} (pid {process.pid}, uid {process.uid})"


def is_wrapper(process: Process) -> bool:
    """Return whether that is a program that only starts others, whose arguments then name those."""
    program = process.argv[0].rpartition("/")[2].removeprefix("-")
    return bool({program, process.comm} & _WRAPPERS)


def is_executing(process: Process) -> bool:
    """Return whether it is about to be another program, or itself anew: for some milliseconds it has no arguments."""
    return process.argv == ("",)


def masters(table: Mapping[int, Process], matches: frozenset[int], own: int) -> list[Process]:
    """Return the topmost of each tree of matches, without wrappers of other matches, ourselves and what we started."""
    wrappers = {pid for pid in matches if is_wrapper(table[pid])}
    around = {ancestor for pid in matches - wrappers for ancestor in _ancestors(table, pid)}
    meant = {pid for pid in matches - (wrappers & around) if table[pid].argv[0] != _SANDBOX and own not in (pid, *_ancestors(table, pid))}
    return [table[pid] for pid in sorted(meant) if meant.isdisjoint(_ancestors(table, pid))]


class Finder:
    """Looks for what a match means: one process, or every one."""

    def __init__(self, match: Match, world: World) -> None:
        self._match = match
        self._clock = world.clock
        self._processes = world.processes
        self._cmdline = None if match.cmdline is None else re.compile(match.cmdline)
        self._several_since: float | None = None

    def find(self) -> Process:
        """Return the process.

        Raises:
            Held: there is none, or it is not clear which.

        """
        pid = self._pid_in_file()
        table, found = self._masters(pid)
        if len(found) > 1:
            raise self._several(found)
        self._several_since = None
        if not found:
            raise self._nobody(pid)
        if master := _executing_master(table, found[0]):
            raise Held(Trouble.NOT_READY, f"{described(master)}, above {described(found[0])}, is executing a program just now")
        return found[0]

    def find_all(self) -> list[Process]:
        """Return every process that is meant.

        Raises:
            Held: there is none, or that cannot be told.

        """
        pid = self._pid_in_file()
        table, found = self._masters(pid)
        if not found:
            raise self._nobody(pid)
        return [process for process in found if _executing_master(table, process) is None]

    def still(self, process: Process) -> bool:
        """Return whether a process that was found is still what the match says; while it executes a program, that cannot be told."""
        if is_executing(process):
            return True
        try:
            return self._fits(process, self._pid_in_file())
        except Held:
            return False

    def _masters(self, pid: int | None) -> tuple[Mapping[int, Process], list[Process]]:
        """Return all processes there are, and those that are meant."""
        table = {process.pid: process for process in self._processes.all()}
        matches = frozenset(process.pid for process in table.values() if self._fits(process, pid))
        return table, masters(table, matches, self._processes.own)

    def _fits(self, process: Process, pid: int | None) -> bool:
        match = self._match
        return (
            (match.pidfile is None or process.pid == pid)
            and (match.uid is None or process.uid == match.uid)
            and (match.name is None or name_of(process) == match.name)
            and (self._cmdline is None or self._cmdline.search(" ".join(process.argv)) is not None)
            and not self._outlived(process)
        )

    def _outlived(self, process: Process) -> bool:
        """Return whether a pid file that is all we go by is older than the process: then another wrote it, and the pid was reused."""
        match = self._match
        if match.pidfile is None or match.name is not None or match.cmdline is not None:
            return False
        try:
            written = Path(match.pidfile).stat().st_mtime
        except OSError:
            return True
        return process.started > self._clock.dated(written) + _PIDFILE_SLACK

    def _pid_in_file(self) -> int | None:
        if self._match.pidfile is None:
            return None
        try:
            written = _first_line(self._match.pidfile)
        except PermissionError:
            raise Held(Trouble.PERMISSION, f"the pid file {self._match.pidfile} may not be read: let this user read it") from None
        except OSError as error:
            raise Held(Trouble.ABSENT, f"the pid file {self._match.pidfile} cannot be read: {error.strerror}") from None
        if not written.isdigit() or not int(written):
            raise Held(Trouble.ABSENT, f"the pid file {self._match.pidfile} does not begin with a pid")
        return int(written)

    def _several(self, found: list[Process]) -> Held:
        now = self._clock.now()
        if self._several_since is None:
            self._several_since = now
        listed = ", ".join(described(process) for process in found)
        if now < self._several_since + AMBIGUITY_LASTS:
            return Held(Trouble.NOT_READY, f"{len(found)} processes match {self._match}, waiting for all but one to end: {listed}")
        return Held(
            Trouble.AMBIGUOUS, f"{len(found)} processes match {self._match}: {listed}; add another condition to target.match, or all: true"
        )

    def _nobody(self, pid: int | None) -> Held:
        if pid is None:
            mend = "one in another container is seen only if the Pod has shareProcessNamespace: true"
            return Held(Trouble.ABSENT, f"no process matches {self._match}; {mend}")
        named = f"pid {pid}, which {self._match.pidfile} names, is not there, or did not write the file, or does not match"
        return Held(Trouble.ABSENT, f"{named}: {self._match}")


def _ancestors(table: Mapping[int, Process], pid: int) -> Iterator[int]:
    seen = {pid}
    # Entries are read one after the other, so a reused pid can make a ring.
    while (pid := table[pid].parent) in table and pid not in seen:
        seen.add(pid)
        yield pid


def _executing_master(table: Mapping[int, Process], found: Process) -> Process | None:
    """Return the one that is meant, where what was found is only its worker: HAProxy's master executes itself at each reload."""
    above = (table[pid] for pid in _ancestors(table, found.pid))
    return next((process for process in above if is_executing(process) and process.comm == found.comm), None)


def _first_line(path: str) -> str:
    # The file is the target's own and may be anything: opening a pipe must not make us wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 32).partition(b"\n")[0].decode("ascii", "replace").strip()  # PostgreSQL writes more lines
    finally:
        os.close(descriptor)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
