"""A target that is asked by HTTP: each request for a reload becomes a signal to the one that stamps."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.target import Target
from tests.servers.daemon import Daemon


@contextmanager
def asking(target: Target, start: Callable[[str], AbstractContextManager[Daemon]]) -> Iterator[Daemon]:
    """Run what asks the given URL; what the detour adds, some tenths of a millisecond, is for the contender to bear."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"pid": target.pid}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        with start(f"http://127.0.0.1:{server.server_port}/-/reload") as daemon:
            yield daemon
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    pid: int

    def do_POST(self) -> None:
        os.kill(self.pid, signal.SIGHUP)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""
