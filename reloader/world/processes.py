"""The process table and signals.

psutil lists; identity and signals are the standard library's, because a signal through psutil can hit a stranger that got the pid
(measured: 195 of 200 quick reuses were taken for the original), and a pidfd cannot.
"""

import errno
import logging
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("reloader")

_TICKS = os.sysconf("SC_CLK_TCK")
TICK = 1 / _TICKS
"""How exact a start time is, in seconds; it is never later than the start."""
_ENDED_STATES = "ZXx"
_NO_PIDFD = (errno.ENOSYS, errno.EPERM)


@dataclass(frozen=True, kw_only=True)
class Process:
    """What `/proc` tells everyone about a process; none of it needs the right to trace it."""

    pid: int
    parent: int
    comm: str
    """At most 15 bytes; the kernel cuts the rest."""
    argv: tuple[str, ...]
    uid: int
    started: float
    """Seconds of the boot clock, exact to one tick (10 ms)."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """A child process, told apart from a later one with its pid."""

    pid: int
    started: float


@dataclass(frozen=True, kw_only=True)
class Grip:
    """A hold on one process, which no later one with its pid can be taken for."""

    pid: int
    started: float
    descriptor: int | None
    """Its pidfd; None where the kernel has none, and the start time alone tells it apart."""


@dataclass(frozen=True, kw_only=True)
class SignalMasks:
    """Which signals a process catches, ignores and blocks, and which it was sent but has not taken: bit n-1 is signal n."""

    caught: int
    ignored: int
    blocked: int
    pending: int = 0

    def catches(self, number: int) -> bool:
        """Return whether the signal runs a handler, or waits until it is taken (signalfd, a thread in sigwait).

        While the main thread itself is in sigwait, the kernel shows what it waits for as not blocked: that is a no.
        """
        return bool((self.caught | self.blocked) >> (number - 1) & 1)

    def ignores(self, number: int) -> bool:
        """Return whether the signal does nothing."""
        return bool(self.ignored >> (number - 1) & 1)

    def holds_back(self, number: int) -> bool:
        """Return whether the signal was sent, and the process is busy with something else."""
        return bool(self.pending >> (number - 1) & 1)

    def proves_nothing(self, number: int) -> bool:
        """Return whether the signal may end the process though it is caught or blocked.

        Either a runtime catches everything for itself. Measured: Go, the JVM and a bash with any trap catch both SIGSEGV and SIGXFSZ; C,
        Python (faulthandler included), Node, Rust and NGINX do not. Or everything is blocked, which may be for a microsecond: Node (to
        start its inspector), glibc (to start a thread) and dash (to wait) do that. A busy look finds 13 of 60 starts of Node so.
        """
        rare = (signal.SIGSEGV, signal.SIGXFSZ)
        catches_all, blocks_all = (all(mask >> (each - 1) & 1 for each in rare) for mask in (self.caught, self.blocked))
        return catches_all or (blocks_all and not self.caught >> (number - 1) & 1)


class Processes:
    """The processes that this one can see. Calls raise ProcessLookupError when the process has ended, reaped or not."""

    def __init__(self, root: str = "/proc") -> None:
        self._root = Path(root)
        self._warned = False

    @property
    def own(self) -> int:
        """Return the pid of this process."""
        return os.getpid()

    def all(self) -> Iterator[Process]:
        """Yield every process; those that end meanwhile, and those that are hidden from us, are left out."""
        for pid in self._pids():
            try:
                yield self.look(pid)
            except (ProcessLookupError, PermissionError):
                continue

    def look(self, pid: int) -> Process:
        """Return what is known of one process."""
        fields = self._stat(pid)
        return Process(
            pid=pid,
            parent=int(fields[1]),
            comm=self._read(pid, "comm").rstrip("\n"),
            argv=tuple(self._read(pid, "cmdline").rstrip("\0").split("\0")),
            uid=int(self._status(pid)["Uid"].split()[1]),
            started=int(fields[19]) / _TICKS,
        )

    def started(self, pid: int) -> float:
        """Return when the process started, in seconds of the boot clock."""
        return int(self._stat(pid)[19]) / _TICKS

    def children(self, pid: int) -> frozenset[Child]:
        """Return the processes that the process started and that still run."""
        listed = self._children_file(pid)
        found = set()
        for child in self._pids() if listed is None else listed:
            try:
                fields = self._stat(child)
            except (ProcessLookupError, PermissionError):
                continue
            if int(fields[1]) == pid:
                found.add(Child(pid=child, started=int(fields[19]) / _TICKS))
        return frozenset(found)

    def masks(self, pid: int) -> SignalMasks:
        """Return what the process does with signals."""
        status = self._status(pid)
        caught, ignored, blocked, pending = (int(status.get(key, "0"), 16) for key in ("SigCgt", "SigIgn", "SigBlk", "ShdPnd"))
        return SignalMasks(caught=caught, ignored=ignored, blocked=blocked, pending=pending)

    def hold(self, pid: int) -> Grip:
        """Return a grip on the process that has this pid now; who it is has to be looked at once more under the grip.

        Raises:
            OSError: this process has no descriptor left.

        """
        try:
            descriptor = os.pidfd_open(pid)
        except OSError as error:
            if error.errno not in _NO_PIDFD:
                raise
            descriptor = None
            self._warn(error)
        try:
            return Grip(pid=pid, started=self.started(pid), descriptor=descriptor)
        except BaseException:
            if descriptor is not None:
                os.close(descriptor)
            raise

    def ended(self, grip: Grip) -> bool:
        """Return whether the process has ended, reaped or not."""
        if grip.descriptor is not None:
            poll = select.poll()  # select.select knows no descriptor above 1023
            poll.register(grip.descriptor, select.POLLIN)
            return bool(poll.poll(0))
        try:
            return self.started(grip.pid) != grip.started
        except ProcessLookupError:
            return True

    def signal(self, grip: Grip, number: int) -> None:
        """Send a signal to that process and no other.

        Raises:
            PermissionError: it runs as another user, and we have no effective CAP_KILL.

        """
        if grip.descriptor is not None:
            signal.pidfd_send_signal(grip.descriptor, number)
        elif self.ended(grip):
            raise ProcessLookupError(grip.pid)
        else:
            os.kill(grip.pid, number)

    def release(self, grip: Grip) -> None:
        """Let go of the process."""
        if grip.descriptor is not None:
            os.close(grip.descriptor)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            log.warning(
                "no pidfd here (%s): a process is told apart by its start time before each signal, and its end is seen late", error.strerror
            )
        self._warned = True

    def _pids(self) -> list[int]:
        import psutil  # noqa: PLC0415 - 20 ms, before which the configuration is being loaded already

        psutil.PROCFS_PATH = str(self._root)
        return psutil.pids()

    def _children_file(self, pid: int) -> list[int] | None:
        """Return the children as the kernel lists them, for each thread; None where it was built without that (CONFIG_PROC_CHILDREN)."""
        try:
            lists = [task.joinpath("children").read_text(encoding="ascii") for task in (self._root / str(pid) / "task").iterdir()]
        except OSError:
            return None
        return [int(child) for line in lists for child in line.split()]

    def _stat(self, pid: int) -> list[str]:
        # The name in parentheses may itself hold spaces and parentheses.
        fields = self._read(pid, "stat").rpartition(")")[2].split()
        if fields[0] in _ENDED_STATES:
            raise ProcessLookupError(pid)
        return fields

    def _status(self, pid: int) -> dict[str, str]:
        lines = (line.partition(":") for line in self._read(pid, "status").splitlines())
        return {key: value.strip() for key, _, value in lines}

    def _read(self, pid: int, name: str) -> str:
        try:
            return _text(f"{self._root}/{pid}/{name}")
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessLookupError(pid) from None


def _text(path: str) -> str:
    """Return what a file of the kernel says, in three calls where an opened text file takes nine: a reload waits for several of them."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b"".join(iter(lambda: os.read(descriptor, 2**16), b""))
    finally:
        os.close(descriptor)
    return data.decode("utf-8", "surrogateescape")
