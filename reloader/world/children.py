"""Short-lived child processes: checks and probes."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

OUTPUT_LIMIT = 4096
"""How many bytes of a child's output are kept, from its end: an error text, not a data channel."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    status: int | None
    """Its exit status, negative for a signal, None when it was killed because its time was over."""
    output: str = field(repr=False)
    """The end of what it wrote, both streams; it may quote what it was given, so it goes nowhere but where the operator asked for it."""


class Children:
    """Starts children, each in a process group of its own; `stop` ends them from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._stopped = False

    def stop(self) -> None:
        """Kill every child that runs, and every one that is started from now on."""
        with self._lock:
            self._stopped = True
            for pid in self._running:
                _kill_group(pid)

    def run(self, argv: Sequence[str], *, timeout: float) -> Ended:
        """Run a command to its end, or kill its process group when `timeout` seconds are over.

        Raises:
            OSError: it could not be started (no such program, no permission).

        """
        child = subprocess.Popen(  # noqa: S603 - the operator's own command
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        with child, self._noted(child.pid):
            try:
                output, _ = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                _kill_group(child.pid)
                output, _ = child.communicate()
                return Ended(None, _tail(output))
        return Ended(child.returncode, _tail(output))

    @contextlib.contextmanager
    def _noted(self, pid: int) -> Iterator[None]:
        with self._lock:
            self._running.add(pid)
            if self._stopped:
                _kill_group(pid)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(pid)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _tail(output: bytes) -> str:
    """Return the last whole lines: half of a secret could not be recognised and masked."""
    kept = output if len(output) <= OUTPUT_LIMIT else output[-OUTPUT_LIMIT:].partition(b"\n")[2]
    return kept.decode(errors="replace").strip()
