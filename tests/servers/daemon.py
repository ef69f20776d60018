"""One server process: started, known to be ready, and always ended."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.waiting import eventually


class Daemon:
    """A foreground process whose output goes to `log`.

    It gets `death_signal` when pytest dies, so that a killed run leaves nothing behind (a server with workers needs one that it hands on).
    The kernel ties that to the thread that called `start`: start it on a thread that lives as long as it should.
    """

    def __init__(self, log: Path, *, death_signal: str = "KILL") -> None:
        self.log = log
        self._death_signal = death_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status of a process that ended by itself or by a signal of the test; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(
        self, command: Sequence[str | Path], *, ready: Callable[[], object], env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Start `command` and return when `ready` gives a true answer; AssertionError with the end of the log if it does not."""
        assert not self.running, f"{command[0]} runs already"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", self._death_signal, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        try:
            eventually(lambda: not self.running or ready(), within=30, what=f"{command[0]} ready")
            assert self.running, f"{command[0]} ended with status {self._process.returncode}"
        except AssertionError as problem:
            self.stop(kill=True)
            problem.add_note(self.tail())
            raise

    def stop(self, *, kill: bool = False) -> None:
        """End the process and what it started, by SIGTERM (SIGKILL with `kill`, or when it takes 10 s); nothing if it has ended."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # workers outlive a killed master
        self._process = None

    def tail(self, lines: int = 25) -> str:
        """Return the last lines that the process wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
