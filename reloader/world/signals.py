"""Signals to this process, taken by the one thread that waits for them."""

import os
import signal
from collections.abc import Iterable

PASSED_ON = (
    *(signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGALRM, signal.SIGCONT, signal.SIGURG, signal.SIGPWR),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
"""What is meant for a program that we run, beside what asks us to end: no fault of our own, nothing of the terminal's job control."""


class Signals:
    """A pipe that the C handler writes to: the kernel may give a signal (SIGCHLD above all) to a thread that is not the main one."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def descriptor(self) -> int:
        """Return what becomes readable when a signal has come."""
        return self._reader

    def catch(self, numbers: Iterable[int]) -> None:
        """Catch these from now on; for the main thread only."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda _number, _frame: None)

    def take(self) -> tuple[int, ...]:
        """Return the numbers of those that came since."""
        try:
            return tuple(os.read(self._reader, 4096))
        except BlockingIOError:
            return ()

    def close(self) -> None:
        """Catch nothing any more; what comes now is lost."""
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)
