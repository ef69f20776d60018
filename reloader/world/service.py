"""The program that this process runs as its child, where it runs one: its life is longer than that of the pipeline that started it."""

import contextlib
import errno
import os
import signal
import subprocess
import threading
from collections.abc import Sequence

from reloader.world.children import Children, without_credentials

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""The statuses with which shells and container engines say that a program cannot be started."""
_LASTING = {errno.ENOENT: NOT_FOUND, errno.ENOTDIR: NOT_FOUND, errno.EACCES: NOT_EXECUTABLE, errno.ENOEXEC: NOT_EXECUTABLE}


class Service:
    """One program, started once; when it has ended, `status` is what this process leaves with. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._status: int | None = None
        self._starting = self._stopping = False
        self.failure = ""
        """Why it could not be started when that was tried last."""
        self.grace = 0.0
        """How many seconds it has to end when it is asked to."""
        self.noted = False
        """Whether who started it has drawn the consequences of its end."""

    def start(self, argv: Sequence[str], children: Children) -> None:
        """Start it, in a session of its own, unless it was started before or is not to be started any more.

        It is the child of a thread that lives as long: a program that asked to die with its parent (PR_SET_PDEATHSIG) gets the signal when
        the thread that forked it ends, and a pipeline's may end before this process.
        """
        with self._lock:
            if self._settled():
                return
            self._starting = True
        threading.Thread(target=self._run, args=(argv, children), name="service", daemon=True).start()

    def _run(self, argv: Sequence[str], children: Children) -> None:
        with self._lock:
            self._starting = False
            if self._stopping:
                return
            try:
                with children.forking() as ours:
                    environment = without_credentials(os.environ)
                    self._process = subprocess.Popen(argv, env=environment, start_new_session=True)  # noqa: S603 - the operator's own command
                    ours.add(self._process.pid)
            except OSError as error:
                self.failure = f"{argv[0]} cannot be started: {error.strerror}"
                self._status = _LASTING.get(error.errno or 0)
                return
            self.failure = ""
        with contextlib.suppress(ChildProcessError):  # reaped by who asked for its status
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)

    @property
    def is_settled(self) -> bool:
        """Return whether it is being started, runs, has ended, or never will run."""
        with self._lock:
            return self._settled()

    @property
    def pid(self) -> int | None:
        """Return its pid while it runs."""
        return self._process.pid if self.status is None and self._process is not None else None

    @property
    def status(self) -> int | None:
        """Return its exit status once it has ended, 128 and the number for a signal; it is reaped here."""
        with self._lock:
            if self._status is None and self._process is not None and (code := self._process.poll()) is not None:
                self._status = code if code >= 0 else 128 - code
            return self._status

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        with self._lock:
            if self._process is not None:
                self._process.send_signal(number)  # none that has been reaped is signalled

    def stop(self) -> None:
        """Never start it from now on."""
        with self._lock:
            self._stopping = True

    def kill(self) -> None:
        """Kill it, with all that it started in its session's first group."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._process is not None and self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _settled(self) -> bool:
        return self._starting or self._stopping or self._process is not None or self._status is not None
