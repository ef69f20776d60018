"""The control socket: who may ask, and what those who may not, or who are slow, cost."""

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reloader import control
from reloader.control import CONNECTIONS, LARGEST_REQUEST, Control, Unreachable, ask
from tests.everyone import folder_for_everyone
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="takes root to become another user")
SERVING = """
import sys
from pathlib import Path
from reloader import control
from reloader.control import Control
control.REQUEST_LIMIT = 60
served = Control(Path(sys.argv[1]), lambda request: {"done": True, "said": [request["do"]]})
served.open()
print(flush=True)
sys.stdin.read()
"""
ASKING = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect(sys.argv[1])
    connection.sendall(b'{"do": "x"}\\n')
    print(connection.makefile().readline())
except PermissionError:
    print("EACCES")
"""


def as_user(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]


def asked_by(uid: int, path: Path) -> str:
    """Return what a client of that user is told."""
    done = subprocess.run([*as_user(uid), sys.executable, "-c", ASKING, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def _patient(monkeypatch) -> None:
    monkeypatch.setattr(control, "REQUEST_LIMIT", 60)  # a client is a process here, on a machine that may be busy


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that every user reaches and may write."""
    with folder_for_everyone() as folder:
        path = folder / "state"
        path.mkdir()
        path.chmod(0o777)
        yield path


@pytest.fixture
def opened(directory: Path) -> Iterator[Control]:
    opened = Control(directory, lambda request: {"done": True, "said": [str(request and request.get("do"))]})
    opened.open()
    yield opened
    opened.close()


def connected(directory: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(str(directory / control.NAME))
    return connection


def answer_to(directory: Path, data: bytes) -> Any:
    with connected(directory) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return json.loads(connection.makefile().readline())


@needs_root
def test_nobody_else_can_connect(opened, directory):
    """The file is of the sidecar's user alone, and nothing but the file system is needed to say so."""
    assert stat.S_IMODE((directory / control.NAME).stat().st_mode) == 0o600
    assert asked_by(65534, directory / control.NAME) == "EACCES"


@needs_root
def test_nobody_else_is_served_whatever_the_mode(opened, directory):
    """The kernel's word on the user counts; who is refused is told who may."""
    (directory / control.NAME).chmod(0o666)
    told = json.loads(asked_by(65534, directory / control.NAME))
    assert told == {"done": False, "said": ["uid 65534 may not; run as uid 0, which reloader runs as, or as root"]}


@needs_root
def test_of_a_sidecar_that_is_not_root_itself_and_root_are_served(directory):
    """`kubectl exec` into the container is its own user, and a debug container may be root."""
    command = [*as_user(65533), sys.executable, "-c", SERVING, str(directory)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    with process:
        process.stdout.readline()
        path = directory / control.NAME
        path.chmod(0o666)
        assert ask(directory, {"do": "x"}) == {"done": True, "said": ["x"]}
        assert json.loads(asked_by(65533, path))["done"]
        assert "uid 65534 may not" in asked_by(65534, path)
        process.stdin.close()


@needs_root
def test_a_connection_that_is_handed_on_is_its_makers(opened, directory):
    """Who connects answers for what is asked over it: the kernel notes the user once."""
    script = (
        "import socket, sys; c = socket.socket(fileno=int(sys.argv[1])); c.setblocking(True)\n"
        "c.sendall(b'{}\\n'); print(c.makefile().readline())"
    )
    with connected(directory) as connection:
        number = connection.fileno()
        command = [*as_user(65534), sys.executable, "-c", script, str(number)]
        done = subprocess.run(command, pass_fds=[number], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"done": True, "said": ["{}"]}


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"{", b"[1, 2]\n", b"\xff\xfe\n", b"[" * LARGEST_REQUEST, b"x" * 10 * LARGEST_REQUEST, b'{"do":\n"x"}'],
    ids=range(8),
)
def test_what_is_no_request_is_answered_and_nothing_more(directory, data):
    """It is told so, and the next one is served."""
    status = type("Desk", (), {})
    served = Control(directory, control.Desk(status, lambda *_: {}).answer)
    served.open()
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # it was still talking
            assert answer_to(directory, data)["done"] is False
        assert ask(directory, {"do": "nothing"}) == {
            "done": False,
            "said": ["it is not understood; this may be another version of reloader"],
        }
    finally:
        served.close()


def test_clients_that_say_nothing_or_little_cost_a_bounded_time(opened, directory, monkeypatch):
    """As many as are served at once hold up the others for the limit at most, also when they send a byte now and then."""
    monkeypatch.setattr(control, "REQUEST_LIMIT", 0.5)
    slow = [connected(directory) for _ in range(CONNECTIONS)]
    ended = threading.Event()

    def drip() -> None:
        while not ended.wait(0.05):
            for each in slow:
                try:
                    each.send(b" ")
                except OSError:
                    return

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        eventually(lambda: ask(directory, {"do": "x"})["said"] == ["too many ask at once; ask again"], what="all places taken")
        eventually(lambda: ask(directory, {"do": "x"}) == {"done": True, "said": ["x"]}, what="a free place")
    finally:
        ended.set()
        dripping.join()
        for each in slow:
            each.close()
    eventually(lambda: [each.name for each in threading.enumerate()].count("control") == 1, what="the threads of the slow to end")


def test_a_client_that_takes_no_answer_is_let_go(directory, monkeypatch):
    """Its place is free again after the limit."""
    monkeypatch.setattr(control, "REQUEST_LIMIT", 0.3)
    served = Control(directory, lambda _: {"done": True, "said": ["x" * 2**20]})
    served.open()
    try:
        deaf = [connected(directory) for _ in range(CONNECTIONS)]
        for each in deaf:
            each.sendall(b"{}\n")
        eventually(lambda: ask(directory, {})["done"], what="a free place")
        for each in deaf:
            each.close()
    finally:
        served.close()


@pytest.fixture
def too_many_threads(monkeypatch) -> Iterator[list[int]]:
    """How many threads of the control socket cannot be started, from now on."""
    left, start = [0], threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name == "control" and left[0]:
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return left


def test_a_socket_that_nobody_would_serve_is_not_open(directory, too_many_threads):
    """And is opened when somebody can."""
    served = Control(directory, lambda _: {"done": True, "said": []})
    too_many_threads[0] = 1
    with pytest.raises(RuntimeError):
        served.open()
    assert not served.is_open
    assert ask(directory, {}) is None
    served.open()
    assert ask(directory, {})["done"]
    served.close()


def test_a_client_for_whom_there_is_no_thread_is_told_and_the_next_one_served(opened, directory, too_many_threads):
    """As often as there are places, so that none is lost by it."""
    too_many_threads[0] = 10 * CONNECTIONS
    for _ in range(10 * CONNECTIONS):
        assert ask(directory, {"do": "x"})["said"] == ["too many ask at once; ask again"]
    assert ask(directory, {"do": "x"}) == {"done": True, "said": ["x"]}


def test_all_pipelines_together_have_the_time_that_a_client_waits(monkeypatch):
    """It would be told otherwise that reloader is stuck."""
    monkeypatch.setattr(control, "ANSWER_LIMIT", 0.2)
    given = []

    class Busy(Future):
        def result(self, timeout: float | None = None) -> str:
            given.append(timeout)
            return super().result(timeout)

    answer = control.Desk(None, lambda *_: {"one": Busy(), "two": Busy()}).answer({"do": "resume", "pipeline": None, "generation": None})
    assert [told.partition(": ")[0] for told in answer["said"]] == ["one", "two"]
    assert all("not done yet" in told for told in answer["said"])
    assert given[1] == 0


def test_no_descriptor_left_is_waited_for(opened, directory, monkeypatch):
    """Without turning in circles; afterwards it is served."""
    tries = []

    class Listening:
        def __init__(self) -> None:
            self.closed = threading.Event()

        def accept(self) -> Any:
            tries.append(1)
            raise OSError(errno.EMFILE, "no descriptor left")

    other = Control(directory, lambda _: {})
    thread = threading.Thread(target=other._serve, args=(Listening(),))
    waits = []
    monkeypatch.setattr(other._closed, "wait", lambda seconds: waits.append(seconds) or len(waits) == 3)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert waits == [control.PAUSE] * 3
    assert len(tries) == 3


@pytest.mark.parametrize("kind", ["a file", "a link to nothing", "a link to a file", "a directory", "a pipe"])
def test_something_else_in_its_place_is_left_alone(directory, tmp_path, kind):
    """It is somebody's, and is named for a person to remove."""
    path, other = directory / control.NAME, tmp_path / "other"
    other.write_text("mine")
    make = {
        "a file": lambda: path.write_text("mine"),
        "a link to nothing": lambda: path.symlink_to("/nowhere"),
        "a link to a file": lambda: path.symlink_to(other),
        "a directory": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
    }
    make[kind]()
    before = path.lstat()
    with pytest.raises(OSError, match="something that is no socket has its name; remove it") as caught:
        Control(directory, lambda _: {}).open()
    assert caught.value.errno == errno.EEXIST
    assert path.lstat() == before
    assert other.read_text() == "mine"


def test_a_link_to_the_socket_of_another_is_left_alone(opened, directory, tmp_path):
    """It is not taken for ours, and nothing is asked of it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / control.NAME).symlink_to(directory / control.NAME)
    with pytest.raises(FileExistsError):
        Control(elsewhere, lambda _: {}).open()
    assert ask(directory, {"do": "x"})["done"]


def test_what_a_crash_left_is_replaced_and_what_lives_is_not(directory):
    """A socket that nobody listens on is a leftover."""
    leftover = socket.socket(socket.AF_UNIX)
    leftover.bind(str(directory / control.NAME))
    leftover.close()
    first, second = (Control(directory, lambda _: {"done": True, "said": []}) for _ in range(2))
    first.open()
    with pytest.raises(OSError, match="in use"):
        second.open()
    assert ask(directory, {})["done"]
    first.close()
    second.open()
    second.close()
    assert ask(directory, {}) is None


@needs_root
def test_a_directory_of_another_user_is_told(directory):
    """The sidecar runs on without the socket, and the client says who may."""
    state = directory.parent / "private"
    state.mkdir(0o700)
    script = f"from pathlib import Path; from reloader.control import Control; Control(Path({str(state)!r}), None).open()"
    ask_script = f"from pathlib import Path; from reloader.control import ask; ask(Path({str(state)!r}), {{}})"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for each, expected in ((script, "PermissionError"), (ask_script, "uid 65534 may not; run as the user that reloader runs as")):
        done = subprocess.run([*as_user(65534), sys.executable, "-c", each], env=env, capture_output=True, text=True, check=False)
        assert expected in done.stderr
    assert list(state.iterdir()) == []


def test_a_broken_answer_is_told_by_its_type_alone(directory, caplog):
    """What went wrong may quote what was asked or known."""

    def broken(_request: object) -> Any:
        raise ValueError("canary-answer-77c1")

    served = Control(directory, broken)
    served.open()
    try:
        with pytest.raises(Unreachable):
            ask(directory, {"do": "x"})
        eventually(lambda: caplog.records, what="the line of the log")
        assert caplog.messages == ["request failed: internal error: ValueError in control.py:" + caplog.messages[0].rpartition(":")[2]]
        assert "canary" not in caplog.text
    finally:
        served.close()
