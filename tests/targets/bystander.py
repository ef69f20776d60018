"""A program that nobody means: it notes every signal that it gets.

Usage: bystander.py ANYTHING PIDFILE NOTES. Each signal that can be caught at all is a line in NOTES.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    _, pidfile, notes = (Path(argument) for argument in sys.argv[1:4])
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed test run leaves nothing behind
    descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(number: int, _frame: object) -> None:
        os.write(descriptor, f"{number}\n".encode())

    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, note)
    pidfile.write_text(str(os.getpid()))
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
