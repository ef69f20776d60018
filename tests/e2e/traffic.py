"""What stands around a proxy under test: applications behind it, requests to it, and a reader that notes every mix of generations."""

import http.client
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509


class Application:
    """A small application behind the proxy."""

    def __init__(self) -> None:
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hello)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_arguments: object) -> None:
        pass


class Torn(threading.Thread):
    """Reads the set over and over, through the link; `serials` returns the serial numbers that the files below a directory speak of."""

    def __init__(self, live: Path, serials: Callable[[Path], set[str]]) -> None:
        super().__init__(daemon=True)
        self._live = live
        self._serials = serials
        self._stopped = threading.Event()
        self.seen: set[str] = set()
        self.mixed: list[str] = []

    def run(self) -> None:
        while not self._stopped.wait(0.002):
            self.look()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def look(self) -> None:
        # One resolved link is one set: every file is opened below the same directory.
        directory = os.open(self._live / "..data", os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = self._serials(Path(f"/proc/self/fd/{directory}"))
        except FileNotFoundError:
            self.mixed.append("a file of the published set was missing")
            return
        finally:
            os.close(directory)
        self.seen |= found
        if len(found) != 1:
            self.mixed.append(f"the files of one set speak of {sorted(found)}")


def serial_of(pem: str) -> str:
    """Return the serial number of a certificate, as `plain_serial` gives it."""
    return f"{x509.load_pem_x509_certificate(pem.encode()).serial_number:X}"


def plain_serial(said: str) -> str:
    """Return a serial number as Vault writes it, in the form of `serial_of`."""
    return said.replace(":", "").replace("-", "").upper().lstrip("0")


def ask(port: int, context: ssl.SSLContext) -> http.client.HTTPMessage:
    """Return the headers of one answer, on a connection of its own; their case does not count."""
    connection = http.client.HTTPSConnection("localhost", port, timeout=10, context=context)
    connection.request("GET", "/", headers={"Connection": "close"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.headers


@contextmanager
def load(port: int, ca_file: Path) -> Iterator[dict[str, Any]]:
    """Load the proxy from another process; the summary is filled in at the end."""
    summary: dict[str, Any] = {}
    command = [sys.executable, str(Path(__file__).with_name("load.py")), str(port), str(ca_file), "/"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        try:
            yield summary
        finally:
            out, _ = process.communicate(timeout=30)
            summary.update(json.loads(out))
