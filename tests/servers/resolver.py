"""A name server that says nothing for a while, as one does that restarts, or that a network policy has not been opened for yet."""

import random
import socket
import threading
import time
from pathlib import Path
from typing import Self

_HEADER = 12
_A = b"\x00\x01"


class Resolver:
    """Answers every name with 127.0.0.1, but nothing at all until `silent` seconds after the first question."""

    def __init__(self, folder: Path, *, silent: float, patience: int = 4) -> None:
        self._silent = silent
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((f"127.{random.randrange(1, 255)}.{random.randrange(255)}.{random.randrange(1, 255)}", 53))
        self._socket.settimeout(0.1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.lookups = 0
        """How many questions for an address came, one for each lookup of a name."""
        self._first: float | None = None
        self._file = folder / "resolv.conf"
        # A lookup fails after `patience` seconds, where one with the defaults takes 10.
        self._file.write_text(f"nameserver {self._socket.getsockname()[0]}\noptions timeout:{patience} attempts:1\n")

    @property
    def through(self) -> tuple[str, ...]:
        """Return the command that executes another one which asks here; it needs root."""
        return "unshare", "--mount", "sh", "-c", f'mount --bind {self._file} /etc/resolv.conf && exec "$@"', "sh"

    @property
    def speaks(self) -> bool:
        """Return whether a question would be answered now."""
        return self._first is not None and time.monotonic() >= self._first + self._silent

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                query, client = self._socket.recvfrom(4096)
            except TimeoutError:
                continue
            self._first = time.monotonic() if self._first is None else self._first
            question = query[_HEADER : query.index(b"\0", _HEADER) + 5]
            self.lookups += question[-4:-2] == _A
            if self.speaks:
                self._socket.sendto(_answer(query, question), client)


def _answer(query: bytes, question: bytes) -> bytes:
    """Return 127.0.0.1 for a question of type A, and that there is nothing of any other type."""
    is_address = question[-4:-2] == _A
    counts = b"\x00\x01" + (b"\x00\x01" if is_address else b"\x00\x00") + b"\x00\x00\x00\x00"
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01" if is_address else b""
    return query[:2] + b"\x81\x80" + counts + question + record
