"""Runs a command in a network of its own, and with a directory of its own in the place of one that an example names.

So an example has every port and path of its README, whatever else runs on this machine.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys

_SET_FLAGS, _UP = 0x8914, 1  # SIOCSIFFLAGS and IFF_UP of linux/sockios.h and linux/if.h


def main() -> None:
    own, place, *command = sys.argv[1:]
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh", b"lo", _UP))
    subprocess.run(["mount", "--bind", own, place], check=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
