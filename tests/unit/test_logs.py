"""How a log line looks, in each format, on a terminal and off it."""

import fcntl
import io
import json
import logging
import os
import pty
import re
import shlex
import struct
import termios
import warnings
from collections.abc import Iterator
from typing import Literal

import pytest

from reloader import logs
from reloader.plan import Log

log = logging.getLogger("reloader")
Format = Literal["json", "logfmt", "console"]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Put back what `set_up` changes for the whole process."""
    root, shown = logging.getLogger(), warnings.showwarning
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], warnings.showwarning = handlers, shown
    root.setLevel(level)


class Terminal(io.TextIOWrapper):
    """A real pseudo-terminal that remembers what is written to it."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        super().__init__(os.fdopen(slave, "wb", buffering=0), write_through=True)

    def shown(self) -> str:
        """Return what is on it, with the newlines that the terminal made of ours."""
        self.close()
        shown = b""
        while part := _read(self._master):
            shown += part
        os.close(self._master)
        return shown.decode().replace("\r\n", "\n")


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # Linux says so when the other side is closed
        return b""


def line(chosen: Format | None, message: str = "publish", level: int = logging.INFO, **fields: object) -> str:
    """Return what is written for one record off a terminal."""
    stream = io.StringIO()
    logs.set_up(Log(format=chosen, level="debug"), stream)
    log.log(level, "%s", message, extra={"fields": fields})
    return stream.getvalue()


def on_terminal(environ: dict[str, str], chosen: Format | None = None) -> str:
    terminal = Terminal()
    logs.set_up(Log(format=chosen), terminal, environ)
    log.info("publish", extra={"fields": {"pipeline": "app", "generation": 7, "outcome": "ok", "duration_ms": 12.3}})
    log.warning(
        "verify",
        extra={"fields": {"pipeline": "app", "generation": 7, "outcome": "failed", "duration_ms": 2500.0, "reason": "no new worker"}},
    )
    log.info("running", extra={"fields": {"version": "1"}})
    return terminal.shown()


STAGE = {"pipeline": "app", "generation": 7, "outcome": "failed", "duration_ms": 2.5, "reason": "not ours to say: no"}


def test_off_a_terminal_a_line_is_json() -> None:
    """With all that is known of a stage."""
    told = json.loads(line(None, **STAGE))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("time"))
    assert told == {"level": "info", "message": "publish", **STAGE}


def test_logfmt_quotes_what_needs_it() -> None:
    """And no more: a shell's own rules split it."""
    told = line("logfmt", **STAGE, path="", equal="a=b", quote='a"b')
    parts = dict(part.split("=", 1) for part in shlex.split(told))
    assert parts.pop("time")
    assert parts == {
        "level": "info",
        "message": "publish",
        **{key: str(value) for key, value in STAGE.items()},
        "path": "",
        "equal": "a=b",
        "quote": 'a"b',
    }
    assert " message=publish pipeline=app generation=7 outcome=failed duration_ms=2.5 reason=" in told


def test_a_terminal_gets_lines_for_a_person_in_columns_and_colour() -> None:
    """What went wrong stands out, and the columns stand below each other."""
    coloured = on_terminal({"TERM": "xterm"})
    assert "\x1b[33m!  verify" in coloured
    assert "\x1b[31m" not in coloured
    first, second, third = re.sub(r"\x1b\[\d*m", "", coloured).splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}    publish    app             #7 ok        12 ms", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} !  verify     app             #7 failed    2\.5 s  no new worker", second)
    assert third.endswith("    running  version=1")


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colour_gets_none(environ: dict[str, str]) -> None:
    """As https://no-color.org asks for."""
    shown = on_terminal(environ)
    assert "\x1b" not in shown
    assert "verify     app" in shown


def test_an_empty_no_color_asks_for_nothing() -> None:
    """It counts as not set."""
    assert "\x1b[" in on_terminal({"NO_COLOR": "", "TERM": "xterm"})


def test_another_format_on_a_terminal_is_as_it_is_elsewhere() -> None:
    """Who asks for JSON gets no colour in it."""
    assert [json.loads(each)["message"] for each in on_terminal({"TERM": "xterm"}, "json").splitlines()] == ["publish", "verify", "running"]


def test_console_off_a_terminal_has_no_colour() -> None:
    """It may be a file."""
    assert "\x1b" not in line("console", level=logging.ERROR, **STAGE)


FORGED = [
    'ok\n{"level": "info", "message": "forged"}',
    "ok\r\x1b[2K forged",
    "ok\x85forged",
    "ok\u2028forged",
    "ok\u2029forged",
    "ok\x0bforged\x0c\x1c\x1d\x1e",
    "ok\u202egnp.exe",
    "ok\x9b31mforged",
    "ok\x00\x7f\x08\x08forged",
    "ok\udc80forged",
    'ok" level=error message="forged',
]


@pytest.mark.parametrize("text", FORGED)
@pytest.mark.parametrize("chosen", ["json", "logfmt", "console"])
def test_nothing_that_is_read_elsewhere_forges_a_line(chosen: Format, text: str) -> None:
    """Neither ends one for anybody who splits lines, nor steers a terminal, wherever it stands in a record."""
    for told in (line(chosen, text, level=logging.ERROR, reason="r"), line(chosen, reason=text, path=text, pipeline=text)):
        assert told.endswith("\n")
        assert len(told.splitlines()) == 1
        assert told[:-1].isprintable()
        assert told.encode()


@pytest.mark.parametrize("text", FORGED)
def test_what_is_written_out_can_be_read_back(text: str) -> None:
    """From JSON, and from the quotes of logfmt."""
    assert json.loads(line("json", reason=text))["reason"] == text
    quoted = line("logfmt", reason=text).partition("reason=")[2].rstrip("\n")
    assert json.loads(quoted) == text


def test_what_people_write_stays_as_it_is() -> None:
    """Only what steers is written out."""
    assert "größer als 5 µs" in line("json", reason="größer als 5 µs")
    assert "größer als 5 µs" in line("console", reason="größer als 5 µs")
