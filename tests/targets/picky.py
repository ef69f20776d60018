"""A server with a master and one worker that takes only some configurations, as NGINX does.

Usage: picky.py FILE PIDFILE NOTES [WORD ...]. On SIGHUP it reads FILE: with `refuse` in it the old worker stays and no new one comes, with
`die` in it the master ends, also at its start, else a new worker replaces the old one. Every configuration it takes is a line in NOTES.

Of the words, `picky` has it refuse everything while a file of the pidfile's name and the ending `.refuses` is there, `deaf` ignore SIGHUP,
`raw` have no handler for it, `stubborn` note SIGTERM and live on, and `nobody` be that user from when it has started.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    file, pidfile, notes = (Path(argument) for argument in sys.argv[1:4])
    words, worker = sys.argv[4:], 0

    def take(number: int = 0, _frame: object = None) -> None:
        nonlocal worker
        text = file.read_text() if file.exists() else "nothing"
        if "die" in text:
            os._exit(1)
        if number and ("refuse" in text or ("picky" in words and pidfile.with_suffix(".refuses").exists())):
            return
        old, worker = worker, start_worker()
        note("signalled" if number else "started", text.strip())
        if old:
            os.kill(old, signal.SIGTERM)

    def note(*said: str) -> None:
        with notes.open("a") as lines:
            lines.write(" ".join(said) + "\n")

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if "raw" not in words:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if "deaf" in words else take)
    if "stubborn" in words:
        signal.signal(signal.SIGTERM, lambda *_: note("stays", file.read_text() if file.exists() else "nothing"))
    take()
    temporary = pidfile.with_suffix(".new")
    temporary.write_text(str(os.getpid()))
    temporary.rename(pidfile)
    if "nobody" in words:
        os.setuid(65534)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed test run leaves nothing behind
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
