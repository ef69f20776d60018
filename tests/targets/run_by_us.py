"""A program as a sidecar runs it: it notes what it reads and which signals it gets.

Usage: run_by_us.py FILE NOTES. At its start and on SIGHUP it reads FILE: `exit N` and `kill N` end it, with `slow` it ends only when
NOTES.go is there, with `orphans` it leaves ended processes to PID 1 and notes when they are gone.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

PASSED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGWINCH, signal.SIGRTMIN + 3)


class Program:
    """The process itself."""

    def __init__(self, file: Path, notes: Path) -> None:
        self.file = file
        self.notes = notes
        self.text = ""

    def note(self, *words: object) -> None:
        with self.notes.open("a") as lines:
            lines.write(" ".join(map(str, words)) + "\n")

    def read(self, *words: str) -> None:
        self.text = self.file.read_text()
        self.note(*words, self.text)
        verb, _, number = self.text.partition(" ")
        if verb == "exit":
            os._exit(int(number))
        if verb == "kill":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), int(number))

    def end(self, number: int, _frame: object) -> None:
        self.note("asked", signal.Signals(number).name)
        while self.text == "slow" and not Path(f"{self.notes}.go").exists():
            time.sleep(0.01)
        os._exit(5 if self.text == "slow" else 0)

    def run(self) -> None:
        signal.signal(signal.SIGHUP, lambda *_: self.read("signal", "SIGHUP"))
        for number in PASSED:
            signal.signal(number, lambda number, _frame: self.note("passed", number))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.end)
        self.note("pid", os.getpid())
        self.read("started")
        if self.text == "orphans":
            leave_orphans()
            self.note("no zombies")
        while True:
            signal.pause()


def leave_orphans() -> None:
    """Let processes end whose parent has ended, and wait until they are reaped."""
    child = os.fork()
    if not child:
        for _ in range(50):
            if not os.fork():
                os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
    while zombies() != []:
        time.sleep(0.01)


def zombies() -> list[str]:
    """Return the processes that have ended and that nobody reaped."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found += [path.parent.name] if fields[0] == "Z" else []
    return found


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, of the thread that started it
    Program(*map(Path, sys.argv[1:3])).run()
