"""Free ports that stay ours: two test processes never get the same one."""

import contextlib
import random
import socket

# Below the range from which the kernel picks ports for outgoing connections (32768 and up), so that none of those takes one meanwhile.
_FIRST, _LAST = 20000, 32000
_claims: list[socket.socket] = []


def free_port() -> int:
    """Return a TCP and UDP port that nothing uses, claimed until this process ends."""
    while True:
        port = random.randint(_FIRST, _LAST)
        if _unused(port) and _claim(port):
            return port


def _claim(port: int) -> bool:
    # An abstract socket's name can be held by one process, and the kernel lets go of it however that process ends.
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0config-reloader-tests-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def _unused(port: int) -> bool:
    with contextlib.ExitStack() as sockets:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                sockets.enter_context(socket.socket(socket.AF_INET, kind)).bind(("0.0.0.0", port))
            except OSError:
                return False
    return True
