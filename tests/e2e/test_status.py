"""`reloader status` as a person uses it: in a real terminal, in a pipe, over the control socket and over HTTP."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from reloader.control import Control
from reloader.onlooker import Onlooker, Unanswered
from reloader.plan import Server as Plan
from reloader.server import Endpoints, Server
from reloader.status import Metrics, Status
from tests.e2e.sidecar import PROGRAM, reloader
from tests.servers.ports import free_port
from tests.unit.reports import CLOSED, GOOD, OWED, status_of
from tests.waiting import eventually

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "status.schema.json").read_text())
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@pytest.fixture
def status() -> Status:
    return status_of(GOOD)


@pytest.fixture
def address(status: Status) -> Iterator[str]:
    server = Server(Plan(listen="127.0.0.1:0"), Endpoints(status, Metrics(status, "1"), "loopback"))
    server.start()
    yield f"127.0.0.1:{server.port}"
    server.close()


class Terminal:
    """A command in a terminal of its own; what it writes is kept as it came."""

    def __init__(self, *arguments: str | Path, columns: int = 100, lines: int = 40, **env: str) -> None:
        self._main, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        self.before = termios.tcgetattr(terminal)
        self._terminal = terminal
        environ = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm-256color", **env}
        command = ["setsid", "--ctty", *map(str, PROGRAM), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environ)
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._main, 65536)
            except OSError:
                return
            if not data:
                return
            self._written += data

    @property
    def text(self) -> str:
        """All that was written so far."""
        return bytes(self._written).decode()

    def type(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def attributes(self) -> list[object]:
        return termios.tcgetattr(self._terminal)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._terminal)
        self._reader.join()
        os.close(self._main)


@pytest.fixture
def terminal(closing: Callable[[Terminal], Terminal]) -> Callable[..., Terminal]:
    return lambda *arguments, **more: closing(Terminal("status", *arguments, **more))


def ended(terminal: Terminal) -> tuple[int, str]:
    """Return the exit status of a command and what it wrote, once it has ended and all of that was read."""
    status = terminal.process.wait(30)
    seen = -1
    while seen != len(terminal.text):
        seen = len(terminal.text)
        terminal._reader.join(0.2)
    return status, terminal.text


def test_a_terminal_gets_colours_unless_it_wants_none(terminal, address):
    assert "\x1b[32mready\x1b[0m" in ended(terminal("--address", address))[1]
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        status, text = ended(terminal("--address", address, **env))
        assert (status, "\x1b" in text, "web  ready (fail-open)" in text) == (0, False, True)


def test_a_pipe_gets_none(address):
    done = reloader("status", "--address", address)

    assert (done.returncode, "\x1b" in done.stdout, done.stderr) == (0, False, "")
    assert "  event    3 min ago  publish  7  ok  12 ms" in done.stdout


def test_what_is_not_ready_is_told_and_the_status_says_so(address, status):
    status.put(CLOSED)
    done = reloader("status", "--address", address)

    assert done.returncode == 1
    assert "db  closed (fail-closed)" in done.stdout


def test_the_whole_document_follows_the_schema(address, status):
    status.put(OWED)
    done = reloader("status", "--json", "--address", address)

    jsonschema.validate(json.loads(done.stdout), SCHEMA)


def test_watched_in_a_terminal_it_is_drawn_over_and_over_until_ctrl_c(terminal, address, status):
    """The other screen is taken for it, so what was in the terminal is there again afterwards."""
    watching = terminal("--watch", "--address", address)
    eventually(lambda: watching.text.count("\x1b[H") >= 2, what="two pictures")
    status.put(replace(CLOSED, name="web"))
    eventually(lambda: "\x1b[31mclosed\x1b[0m" in watching.text, what="the change")
    watching.type("\x03")
    code, text = ended(watching)

    assert code == 0
    assert text.startswith(ENTER)
    assert text.rstrip("^C\r\n").endswith(LEAVE)
    assert "\x1b[2J" not in text, "clearing the screen flickers"
    assert "Traceback" not in text
    assert watching.attributes() == watching.before


def test_sigterm_ends_the_watching_as_well(terminal, address):
    watching = terminal("--watch", "--address", address)
    eventually(lambda: "\x1b[H" in watching.text, what="a picture")
    (child,) = subprocess.run(["pgrep", "-s", str(watching.process.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(child), signal.SIGTERM)
    code, text = ended(watching)

    assert code == 0
    assert text.endswith(LEAVE)


def test_a_window_that_is_too_small_shows_as_much_as_fits(terminal, address, status):
    status.put(OWED)
    watching = terminal("--watch", "--address", address, columns=40, lines=12, NO_COLOR="1")
    eventually(lambda: watching.text.count("\x1b[H") >= 2, what="two pictures")
    picture = watching.text.split("\x1b[H")[1].split("\x1b[J")[0]
    rows = [re.sub(r"\x1b\[\d*[A-Z]", "", row) for row in picture.split("\r\n")]

    assert len(rows) == 12
    assert max(map(len, rows)) <= 40
    assert re.fullmatch(r"and \d+ lines more, for which the wi", rows[-1][:35])
    assert any(row.startswith(" " * 11) for row in rows), "what is too long goes on below"


def test_watching_waits_for_one_that_does_not_answer_yet(terminal, status):
    port = free_port()
    watching = terminal("--watch", "--address", f"127.0.0.1:{port}")
    eventually(lambda: "nothing answers on" in watching.text, what="the complaint")
    server = Server(Plan(listen=f"127.0.0.1:{port}"), Endpoints(status, Metrics(status, "1"), "loopback"))
    server.start()
    try:
        eventually(lambda: "generation 7" in watching.text, what="the table")
    finally:
        server.close()
    watching.type("\x03")
    assert ended(watching)[0] == 0


@pytest.fixture
def piped(request: pytest.FixtureRequest) -> Callable[..., subprocess.Popen[str]]:
    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [*map(str, PROGRAM), "status", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        request.addfinalizer(lambda: (process.kill(), process.wait(), process.stdout.close(), process.stderr.close()))
        return process

    return start


def test_watched_in_a_pipe_as_json_it_is_a_line_for_each_change(piped, address, status):
    watching = piped("--watch", "--json", "--address", address)
    first = json.loads(watching.stdout.readline())
    status.put(replace(GOOD, ready=False))
    second = json.loads(watching.stdout.readline())
    watching.send_signal(signal.SIGINT)

    assert [each["pipelines"][0]["ready"] for each in (first, second)] == [True, False]
    jsonschema.validate(second, SCHEMA)
    assert (watching.wait(30), watching.stdout.read(), watching.stderr.read()) == (0, "", "")


def test_watched_in_a_pipe_it_is_a_table_for_each_change(piped, address, status):
    watching = piped("--watch", "--address", address)
    lines = iter(watching.stdout.readline, "")
    assert any(line == "web  ready (fail-open)\n" for line in lines)
    status.put(CLOSED)
    assert any(line == "db  closed (fail-closed)\n" for line in lines)
    watching.send_signal(signal.SIGTERM)
    assert watching.wait(30) == 0
    assert watching.stderr.read() == ""


def test_a_reader_that_had_enough_ends_the_watching(piped, address, status):
    watching = piped("--watch", "--address", address)
    watching.stdout.readline()
    watching.stdout.close()

    def change_and_look() -> bool:
        status.put(replace(GOOD, degraded=not status.reports["web"].degraded))
        return watching.poll() is not None

    eventually(change_and_look, every=0.3, what="the end")
    assert (watching.returncode, watching.stderr.read()) == (0, "")


@pytest.mark.parametrize("listen", ["off", "on"])
def test_the_control_socket_and_http_tell_the_same(tmp_path, closing, listen):
    """Without endpoints the socket answers; without the socket, the endpoint."""
    (tmp_path / "site").mkdir()
    state = f"state: {{path: {tmp_path / 'state'}}}\n" if listen == "off" else ""
    file, port = tmp_path / "app.yaml", free_port()
    server = f"server: {{listen: {json.dumps('off' if listen == 'off' else f'127.0.0.1:{port}')}}}\n"
    file.write_text(f"sources: {{site: {{kind: files, path: {tmp_path / 'site'}}}}}\ntarget: {{kind: none}}\n{state}{server}")
    process = subprocess.Popen([*map(str, PROGRAM), "run", file], stderr=subprocess.DEVNULL)
    try:
        done = eventually(lambda: (done := reloader("status", file)).returncode == 0 and done, what="readiness")
        assert "app  ready (fail-open)" in done.stdout
        assert "generation 1 confirmed" in done.stdout
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("body", [b"[]", b"no", b'{"status": "ok"}', b'"text"'])
def test_a_stranger_on_the_port_is_no_reloader(body):
    import http.server

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        done = reloader("status", "--address", f"127.0.0.1:{server.server_port}")
        thread.join()

    assert done.returncode == 1
    assert done.stderr.startswith("reloader: ")
    assert "Traceback" not in done.stderr


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[Path]:
    """A directory in which the control socket answers with a refusal."""
    served = Control(tmp_path / "state", lambda _: {"done": False, "said": ["you may not; run as another user"]})
    served.open()
    yield tmp_path / "state"
    served.close()


def test_why_the_socket_gave_nothing_is_told_where_nothing_else_does(refusing):
    """Also where there is no endpoint to be asked then; what mends it is not to set what is set."""
    for listen in ("off", f"127.0.0.1:{free_port()}"):
        with pytest.raises(Unanswered, match=r"control\.sock: you may not; run as another user") as reason:
            Onlooker(refusing, listen).ask()
        assert "set state.path" not in str(reason.value)
    with pytest.raises(Unanswered, match=r"nobody listens on .*/control\.sock; is `reloader run` up"):
        Onlooker(refusing / "elsewhere", "off").ask()


def test_without_a_configuration_the_usual_address_is_asked():
    """As `kubectl exec ... reloader status` beside a `run --watch DIR`: that there is none is no mistake."""
    done = reloader("status", env={})

    assert "mistake" not in done.stderr
    assert done.returncode in (0, 1), "somebody may listen there on this machine"


def test_with_a_wrong_configuration_the_usual_address_is_asked_and_that_is_told():
    done = reloader("status", env={"RELOADER_CONFIG": "/nowhere/at/all.yaml"})

    assert "so the one is asked that listens where it does by default" in done.stderr
    assert done.returncode in (0, 1), "somebody may listen there on this machine"
