"""Runs commands in this process, and notes what a refused configuration must not lead to: a thread, a connection, a child.

The child that loads the configuration for `run` is none of these: it does what `check` does here.

Reads a JSON list of argument lists, and writes a JSON list of `{status, said, did}`.
"""

import contextlib
import io
import json
import sys
import threading

from reloader.cli import main
from reloader.settings.apart import CODE

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


def note(event, arguments):
    if event in FORBIDDEN and not (event == "subprocess.Popen" and CODE in arguments[1]):
        did.append(event)


sys.addaudithook(note)


def run(arguments):
    did.clear()
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(arguments)
    return {"status": status, "said": said.getvalue(), "did": list(did)}


if __name__ == "__main__":
    json.dump([run(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
