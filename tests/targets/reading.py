"""An application: reads the two files of its configuration when it starts and at every SIGHUP, and notes what it read.

Usage: reading.py LIVE PIDFILE NOTES [plain]. A note is one JSON line: whether it was signalled, and the text of each file; `plain` is for
files that are written in place.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

FILES = ("one.conf", "two.conf")


def read(live: Path) -> dict[str, str] | None:
    """Read the set as one: below the directory that `..data` leads to at this moment; None where nothing is published."""
    try:
        directory = os.open(live / "..data", os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        return {name: Path(f"/proc/self/fd/{directory}/{name}").read_text() for name in FILES}
    finally:
        os.close(directory)


def read_plain(live: Path) -> dict[str, str] | None:
    """Read one file after the other, as they lie there; None where one is missing."""
    try:
        return {name: (live / name).read_text() for name in FILES}
    except FileNotFoundError:
        return None


def main() -> None:
    live, pidfile, notes = (Path(argument) for argument in sys.argv[1:4])
    look = read_plain if sys.argv[4:] == ["plain"] else read
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed test run leaves nothing behind

    def load(number: int = 0, _frame: object = None) -> None:
        line = json.dumps({"signalled": bool(number), "read": look(live)}) + "\n"
        descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    signal.signal(signal.SIGHUP, load)
    load()
    pidfile.write_text(str(os.getpid()))
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
