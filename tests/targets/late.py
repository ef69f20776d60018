"""Installs its SIGHUP handler late, and notes each signal. Usage: late.py MILLISECONDS NOTES; fewer than 0 is never."""

import ctypes
import signal
import sys
import time
from pathlib import Path

ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed test run leaves nothing behind
milliseconds, notes = int(sys.argv[1]), Path(sys.argv[2])


def note(_number: int, _frame: object) -> None:
    with notes.open("a") as file:
        file.write("hup\n")


if milliseconds >= 0:
    time.sleep(milliseconds / 1000)
    signal.signal(signal.SIGHUP, note)
while True:
    signal.pause()
