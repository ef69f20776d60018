"""Child processes: checks and probes, and who reaps what."""

import contextlib
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, cast

OUTPUT_LIMIT = 4096
"""How many bytes of a child's output are kept, from its end: an error text, not a data channel."""
LOOK = 0.05
"""Seconds until it is seen that a child ended whose output somebody else holds open; any other's end is seen at once."""

_CHUNK = 65536

_CREDENTIALS = re.compile(r"VAULT_TOKEN|CONSUL_HTTP_TOKEN|CONSUL_HTTP_AUTH|RELOADER_\w+__\w+")
"""Variables in which we are told who we are somewhere; any key of the configuration may be a `RELOADER_*__*`, also one with a secret."""
_EXPORTER = re.compile(r"OTEL_EXPORTER_OTLP_(\w+_)?HEADERS")
"""What opens the door of a collector of traces; a program that we run for long may have traces of its own."""
_ORDINARY = re.compile(r"PATH|HOME|USER|LOGNAME|SHELL|TERM|TMPDIR|TZ|LANG|LANGUAGE|LC_\w+")
"""What programs need to work at all."""


def without_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what opens doors to us and is of no use to others."""
    return {name: value for name, value in environ.items() if not _CREDENTIALS.fullmatch(name)}


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
        self._withheld: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._ours: set[int] = set()
        self._stopped = False

    def stop(self) -> None:
        """Kill every child that runs, and every one that is started from now on."""
        with self._lock:
            self._stopped = True
            for pid in self._running:
                _kill_group(pid)

    def withhold(self, names: Iterable[str]) -> None:
        """Give no command these variables from now on: they are values for files, and secret as any source's."""
        self._withheld |= {name for name in names if not _ORDINARY.fullmatch(name)}

    def run(self, argv: Sequence[str], *, timeout: float) -> Ended:
        """Run a command to its end, or kill its process group when `timeout` seconds are over; it gets no secret by its environment.

        Raises:
            OSError: it could not be started (no such program, no permission).

        """
        with self.forking() as ours:
            child = subprocess.Popen(  # noqa: S603 - the operator's own command
                argv,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            ours.add(child.pid)
        output = bytearray()
        with child, self._noted(child.pid):
            in_time = _ends(child, output, timeout)
            if not in_time:
                _kill_group(child.pid)
        return Ended(child.returncode if in_time else None, _tail(output))

    @contextlib.contextmanager
    def forking(self) -> Iterator[set[int]]:
        """Keep `reap_orphans` away while a child is started; its pid belongs into what this gives, until it is reaped."""
        with self._lock:
            yield self._ours

    def reap_orphans(self) -> bool:
        """As PID 1, reap what ended and is nobody's; return False if one of ours is in the way, and it is worth asking again soon.

        A child of ours is left to who waits for it, because only the first to reap it learns its status (measured: with a `waitpid(-1)`
        in another thread, 20 of 50 failing children were read as 0).
        """
        if os.getpid() != 1:
            return True
        with self._lock, contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid in self._ours:
                    return False
                os.waitpid(ended.si_pid, os.WNOHANG)
        return True

    def _environment(self) -> dict[str, str]:
        passed_on = without_credentials(os.environ)
        return {name: value for name, value in passed_on.items() if name not in self._withheld and not _EXPORTER.fullmatch(name)}

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
                self._ours.discard(pid)


def _ends(child: subprocess.Popen[bytes], output: bytearray, timeout: float) -> bool:
    """Add the end of what a child writes to `output` until it ends; return whether it did in time.

    The pipe may stay open: what the child left in the background holds it, and is not waited for.
    """
    pipe = cast("IO[bytes]", child.stdout).fileno()
    readable = select.poll()
    readable.register(pipe, select.POLLIN)
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        ended = child.poll() is not None  # before the last look at the pipe, so that nothing it wrote is missed
        if readable.poll(0 if ended else min(left, LOOK) * 1000):
            data = os.read(pipe, _CHUNK)
            if not data:
                return _waited(child, left)
            output += data
            del output[: -OUTPUT_LIMIT - 1]  # one more than is kept, so that it is known that there was more
        elif ended:
            return True
    return child.poll() is not None


def _waited(child: subprocess.Popen[bytes], timeout: float) -> bool:
    try:
        child.wait(timeout)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _tail(output: bytearray) -> str:
    """Return the last whole lines: half of a secret could not be recognised and masked."""
    kept = output if len(output) <= OUTPUT_LIMIT else output[-OUTPUT_LIMIT:].partition(b"\n")[2]
    return kept.decode(errors="replace").strip()
