"""Runs a command in a user namespace of its own, with a bound on inotify instances; everyone keeps their numbers in it.

`few_watches.py INSTANCES COMMAND FIRST...`: the shell runs COMMAND as root of the namespace, then FIRST and what follows is executed.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000


def main():
    mapped, told = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(_CLONE_NEWUSER) == 0, os.strerror(ctypes.get_errno())
        os.write(told[1], b"x")
        os.read(mapped[0], 1)
        Path("/proc/sys/user/max_inotify_instances").write_text(sys.argv[1])
        subprocess.run(["sh", "-ec", sys.argv[2]], check=True, stdout=subprocess.DEVNULL)
        os.execvp(sys.argv[3], sys.argv[3:])
    os.read(told[0], 1)
    for kind in ("uid_map", "gid_map"):
        Path(f"/proc/{child}/{kind}").write_text("0 0 65536")
    os.write(mapped[1], b"x")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
