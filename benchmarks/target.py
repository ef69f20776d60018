"""The program that is signalled: compiled from `target.c`, so that what it adds to a latency is microseconds."""

import os
import secrets
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STAMP = struct.Struct("=q")
_SOURCE = Path(__file__).with_name("target.c")
_READY_WITHIN = 10.0

# Does what target.c does, where there is no compiler.
_PYTHON = """\
import ctypes, os, signal, struct, time
def stamp(number, _frame=None):
    os.write(1, struct.pack("=q", time.monotonic_ns() if number else 0))
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
signal.signal(signal.SIGHUP, stamp)
stamp(0)
while True:
    signal.pause()
"""


class Target:
    """A running process, with a name of its own, that tells when each SIGHUP arrived."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self.name = name
        self.pid = process.pid
        assert process.stdout is not None
        self._out = process.stdout.fileno()

    def signals(self, within: float) -> list[float]:
        """Return when signals arrived (seconds of the monotonic clock) that were not returned yet; waits for one if there is none.

        Args:
            within: how many seconds to wait at most.

        Raises:
            RuntimeError: the process has ended.

        """
        if not select.select([self._out], [], [], max(0.0, within))[0]:
            return []
        # A pipe takes and gives each stamp whole: it is far shorter than PIPE_BUF, and 4096 is a multiple of it.
        data = os.read(self._out, 4096)
        if not data:
            raise RuntimeError(f"the target {self.name} ended: what was measured signalled it before it was ready, or ended it")
        return [nanoseconds / 1e9 for (nanoseconds,) in _STAMP.iter_unpack(data)]

    def drain(self, until: float) -> list[float]:
        """Return all signals that arrive until then (seconds of the monotonic clock)."""
        found = []
        while (left := until - time.monotonic()) > 0:
            found += self.signals(left)
        return found


class Maker:
    """Starts targets; compiles the program once."""

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        self._directory = directory
        self._built = directory / "target"
        self.language = "C" if compiler else "Python"
        """What it is written in; an interpreter adds a tenth of a millisecond to each latency, and may take two signals for one."""
        if compiler:
            subprocess.run([compiler, "-O2", "-Wall", "-o", self._built, _SOURCE], check=True)
        else:
            self._built.symlink_to(sys.executable)

    @contextmanager
    def started(self) -> Iterator[Target]:
        """Start one that is ready for signals, and end it."""
        name = f"bt-{secrets.token_hex(4)}"  # no other process has it; the kernel keeps 15 bytes of a name
        program = self._directory / name
        program.symlink_to(self._built)
        arguments = [] if self.language == "C" else ["-c", _PYTHON]
        with subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            try:
                target = Target(process, name)
                if not target.signals(_READY_WITHIN):
                    raise RuntimeError(f"the target did not start within {_READY_WITHIN:g} s")
                yield target
            finally:
                process.kill()
                program.unlink()
