"""The sidecar as it is, with a note of every connection that it tries: one that is refused is seen by nobody else.

Usage: connects.py NOTES run FILE ... as for `reloader`. A note is one line: the monotonic time, the port, and the path that it is for.
"""

import os
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest

from reloader import cli


def main() -> int:
    notes = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            os.write(notes, f"{time.monotonic()} {arguments[1][1]} {_path()}\n".encode())

    sys.addaudithook(note)
    return cli.main(sys.argv[2:])


def _path() -> str:
    """Return the path of the request that this thread is about to send: only the frames above know of it."""
    frame = sys._getframe()
    while frame is not None:
        request = frame.f_locals.get("request")
        if isinstance(request, PreparedRequest):
            return str(urlsplit(request.url).path)
        frame = frame.f_back
    return "?"


if __name__ == "__main__":
    sys.exit(main())
