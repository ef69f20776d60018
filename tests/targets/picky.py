"""A server with a master and one worker that takes only some configurations, as NGINX does.

Usage: picky.py FILE PIDFILE NOTES. On SIGHUP it reads FILE: with `refuse` in it the old worker stays and no new one comes, with `die` in it
the master ends, also at its start, else a new worker replaces the old one. Every configuration it takes is a line in NOTES.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    file, pidfile, notes = (Path(argument) for argument in sys.argv[1:4])
    worker = 0

    def take(number: int = 0, _frame: object = None) -> None:
        nonlocal worker
        text = file.read_text() if file.exists() else "nothing"
        if "die" in text:
            os._exit(1)
        if "refuse" in text and number:
            return
        old, worker = worker, start_worker()
        with notes.open("a") as lines:
            lines.write(("signalled " if number else "started ") + text.strip() + "\n")
        if old:
            os.kill(old, signal.SIGTERM)

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed test run leaves nothing behind
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, take)
    take()
    temporary = pidfile.with_suffix(".new")
    temporary.write_text(str(os.getpid()))
    temporary.rename(pidfile)
    while True:
        signal.pause()


def start_worker() -> int:
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
