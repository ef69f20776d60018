"""Runs commands in this process, and notes what a refused configuration must not lead to: a thread, a connection, a child.

Reads a JSON list of argument lists, and writes a JSON list of `{status, said, did}`.
"""

import contextlib
import io
import json
import sys
import threading

from reloader.cli import main

FORBIDDEN = (
    "socket.connect",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "os.fork",
    "os.posix_spawn",
)

did = []
begin = threading.Thread.start


def start(thread):
    did.append("thread")
    begin(thread)


threading.Thread.start = start  # Python 3.11 has no audit event for it
sys.addaudithook(lambda event, _arguments: did.append(event) if event in FORBIDDEN else None)


def run(arguments):
    did.clear()
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(arguments)
    return {"status": status, "said": said.getvalue(), "did": list(did)}


if __name__ == "__main__":
    json.dump([run(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
