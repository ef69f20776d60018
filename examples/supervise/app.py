"""A small web server that reads its configuration when it starts and when it gets SIGHUP, and leaves with status 3 at /exit."""

import http.server
import os
import pathlib
import signal
import threading

CONFIGURATION = pathlib.Path("/tmp/reloader-supervise/live/app.conf")


class Handler(http.server.BaseHTTPRequestHandler):
    """Says what the configuration has."""

    greeting = ""

    def do_GET(self) -> None:
        """Answer with the greeting."""
        if self.path == "/exit":
            os._exit(3)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{Handler.greeting}\n".encode())

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


def load(*_arguments: object) -> None:
    """Read the configuration."""
    Handler.greeting = CONFIGURATION.read_text().partition("=")[2].strip()


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGHUP, load)
    load()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()
