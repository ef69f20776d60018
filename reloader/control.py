"""The control socket: who runs as the same user, or as root, asks the running one; one JSON line for one JSON line."""

import errno
import json
import logging
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from reloader import __version__
from reloader.internal import told
from reloader.status import Status, document
from reloader.volume.wish import NotPossible, Wish

log = logging.getLogger("reloader")

NAME = "control.sock"
LARGEST_REQUEST, LARGEST_ANSWER = 4096, 16 * 1024 * 1024
REQUEST_LIMIT = 2.0
"""How many seconds a client has to say what it wants, and to take the answer."""
ANSWER_LIMIT = 15.0
"""How many seconds the pipelines have to do what was asked, until the client is told which of them have not done it yet."""
PAUSE = 0.1
"""How many seconds pass after a connection that could not be taken (no descriptor left) until the next is tried."""
CONNECTIONS = 4
"""How many are served at once; one more is told to come again."""

Answer = Mapping[str, Any]


class Unreachable(Exception):
    """There is a socket, and it cannot be asked; the message says why."""


class Desk:
    """Answers requests: `{"do": "status"}`, `{"do": "rollback" | "resume", "pipeline": NAME | null, "generation": N | null}`."""

    def __init__(self, status: Status, ask: Callable[[str | None, Wish], Mapping[str, "Future[str]"]]) -> None:
        self._status = status
        self._ask = ask

    def answer(self, request: Any) -> Answer:
        """Return `{"done": ..., "said": [...]}`, for status with the document as `status`."""
        act, pipeline, generation = (request.get(key) if isinstance(request, dict) else None for key in ("do", "pipeline", "generation"))
        if act == "status":
            return {"done": True, "said": [], "status": document(self._status, __version__)}
        right = isinstance(pipeline, str | None) and (generation is None or type(generation) is int)
        if act not in ("rollback", "resume") or not right:
            return _no("it is not understood; this may be another version of reloader")
        try:
            asked = self._ask(pipeline, Wish(act=act, generation=generation))
        except NotPossible as reason:
            return _no(str(reason))
        deadline = time.monotonic() + ANSWER_LIMIT
        done, said = zip(*(_outcome(name, future, deadline - time.monotonic()) for name, future in asked.items()), strict=True)
        return {"done": all(done), "said": list(said)}


def _no(reason: str) -> Answer:
    return {"done": False, "said": [reason]}


def _outcome(name: str, future: "Future[str]", within: float) -> tuple[bool, str]:
    try:
        return True, f"{name}: {future.result(max(0.0, within))}"
    except NotPossible as reason:
        return False, f"{name}: {reason}"
    except TimeoutError:
        return False, f"{name}: not done yet, it is done after what the pipeline is at; `reloader status` tells"


class Control:
    """Listens on `control.sock` in a directory until it is closed."""

    def __init__(self, directory: Path, answer: Callable[[Any], Answer]) -> None:
        self._directory = directory
        self._answer = answer
        self._socket: socket.socket | None = None
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        self._closed = threading.Event()

    @property
    def is_open(self) -> bool:
        """Return whether it listens."""
        return self._socket is not None

    def open(self) -> None:
        """Listen, in the place of a socket that a crash left.

        Raises:
            OSError: it cannot be made; EADDRINUSE where another process listens there, EEXIST where something else has its name.
            RuntimeError: too many threads.

        """
        for each in (*reversed(self._directory.parents), self._directory):
            if not each.is_dir():
                each.mkdir(0o700)  # also those above it, whatever the umask: who may write there could put another in its place
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listening.fileno(), 0o600)  # Linux gives the file the mode of its socket, so it is never open to others
            with _short(self._directory) as path:
                _remove_stale(path)
                listening.bind(path)
            listening.listen(CONNECTIONS)
            self._closed.clear()
            threading.Thread(target=self._serve, args=(listening,), name="control", daemon=True).start()
        except BaseException:
            listening.close()
            raise
        self._socket = listening

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        listening, self._socket = self._socket, None
        if listening is not None:
            with suppress(OSError):
                (self._directory / NAME).unlink()
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                if self._closed.wait(PAUSE):
                    return
                continue
            if not self._is_handled(connection):
                with closing(connection), suppress(OSError):
                    connection.setblocking(False)
                    connection.sendall(_line(_no("too many ask at once; ask again")))

    def _is_handled(self, connection: socket.socket) -> bool:
        """Return whether a thread of its own serves this client: there is one for so many, and for nobody where the machine gives none."""
        if not self._slots.acquire(blocking=False):
            return False
        try:
            threading.Thread(target=self._handle, args=(connection,), name="control", daemon=True).start()
        except RuntimeError:
            self._slots.release()
            return False
        return True

    def _handle(self, connection: socket.socket) -> None:
        try:
            with closing(connection), suppress(OSError):
                request, refusal = _request(connection), _refusal(connection)
                answer = _no(refusal) if refusal else self._answer(request)
                connection.settimeout(REQUEST_LIMIT)  # of all that is sent together
                connection.sendall(_line(answer))
        except Exception as error:  # noqa: BLE001 - a mistake of ours
            log.error("request failed: %s", told(error))  # noqa: TRY400 - the text may quote a value
        finally:
            self._slots.release()


def _refusal(connection: socket.socket) -> str:
    """Return why this client may not ask: by the kernel's word, whatever the mode of the file."""
    uid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[1]
    own = os.geteuid()
    return "" if uid in (0, own) else f"uid {uid} may not; run as uid {own}, which reloader runs as, or as root"


def _request(connection: socket.socket) -> Any:
    """Return what the client wants; None for what is too long or no JSON. However slowly it comes, it has `REQUEST_LIMIT` in all."""
    deadline, data = time.monotonic() + REQUEST_LIMIT, b""
    while b"\n" not in data and len(data) < LARGEST_REQUEST and (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        part = connection.recv(LARGEST_REQUEST - len(data))
        if not part:
            break
        data += part
    try:
        return json.loads(data.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return None


def _line(answer: Answer) -> bytes:
    return json.dumps(answer).encode() + b"\n"


@contextmanager
def _short(directory: Path) -> Iterator[str]:
    """Yield a path to the socket that is short however deep the directory is: the kernel takes 107 bytes."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "something that is no socket has its name; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.settimeout(REQUEST_LIMIT)
        try:
            other.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)


def ask(directory: Path, request: Mapping[str, Any]) -> Answer | None:
    """Return what the reloader that listens in this directory answers, or None where none does.

    Raises:
        Unreachable: one listens, and cannot be asked.

    """
    path = directory / NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_LIMIT + 2 * REQUEST_LIMIT)
        try:
            with _short(directory) as short:
                connection.connect(short)
            with suppress(ConnectionError):  # who is turned away is told so before asking
                connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer = json.loads(stream.readline(LARGEST_ANSWER))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return None
        except PermissionError:
            raise Unreachable(f"{path}: uid {os.geteuid()} may not; run as the user that reloader runs as, or as root") from None
        except (OSError, ValueError) as error:
            raise Unreachable(f"{path}: no answer ({error}); is reloader stuck? ask its /healthz") from None
    return dict(answer)
