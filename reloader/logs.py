"""How a log line looks: JSON, logfmt, or console for a person at a terminal. A record is one line, whatever is in it."""

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO, cast

from reloader.plan import Log

_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What ends a line for somebody, moves a cursor, turns the direction of writing around, or cannot be encoded."""
_PLAIN = re.compile(r"[^\s\"=\\]+")
"""What needs no quotes in logfmt."""
_MARKS = {"WARNING": "!", "ERROR": "!!", "CRITICAL": "!!"}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_DIM, _OFF = "\x1b[2m", "\x1b[0m"


def set_up(plan: Log, stream: TextIO = sys.stderr, environ: Mapping[str, str] = os.environ) -> None:
    """Send all log lines to one stream in the format that the plan names, or that suits the stream."""
    terminal = stream.isatty()
    chosen = plan.format or ("console" if terminal else "json")
    colours = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"  # https://no-color.org
    handler = logging.StreamHandler(stream)
    handler.setFormatter({"json": _Json(), "logfmt": _Logfmt(), "console": _Console(colours=colours)}[chosen])
    logging.basicConfig(handlers=[handler], level=plan.level.upper(), force=True)
    for chatty in ("urllib3", "watchdog", "requests", "hvac"):
        logging.getLogger(chatty).setLevel(logging.ERROR)  # their lines repeat ours, with addresses and queries in them
    warnings.showwarning = cast("Any", _warn)


def _warn(message: Warning | str, *_where: object, **_more: object) -> None:
    """Make a warning of a library a log line like any other; urllib3 tells so, once, that TLS is not verified."""
    logging.getLogger("reloader").warning("%s", message)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = dict(getattr(record, "fields", {}))
    if record.exc_info and record.exc_info[0] is not None:
        fields["error"] = record.exc_info[0].__name__  # its text may quote what was read
    return fields


def _everything(record: logging.LogRecord) -> dict[str, Any]:
    return {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage(), **_fields(record)}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _json(_everything(record))


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_quoted(value)}" for key, value in _everything(record).items())


class _Console(logging.Formatter):
    """Time, how bad, what, whose, which generation, how it ended and how long it took; then what else is known."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        what, fields = _visible(record.getMessage()), _fields(record)
        whose = [_visible(str(fields.pop("pipeline", ""))), _generation(fields), str(fields.pop("outcome", "")), _took(fields)]
        reason = _visible(str(fields.pop("reason", "")))
        rest = [f"{self._painted(f'{key}=', _DIM)}{_visible(str(value))}" for key, value in fields.items()]
        columns = f"{what:<10} {whose[0]:<12} {whose[1]:>5} {whose[2]:<6} {whose[3]:>8}" if any(whose) else what
        told = self._painted(f"{_MARKS.get(record.levelname, ''):<2} {columns}", _COLOURS.get(record.levelname, ""))
        return "  ".join([f"{self._painted(clock, _DIM)} {told}".rstrip(), *([reason] if reason else []), *rest])

    def _painted(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_OFF}" if self._colours and colour else text


def _generation(fields: dict[str, Any]) -> str:
    number = fields.pop("generation", None)
    return f"#{number}" if number else ""


def _took(fields: dict[str, Any]) -> str:
    milliseconds = fields.pop("duration_ms", None)
    if milliseconds is None:
        return ""
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"  # noqa: PLR2004 - a second


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(value: object) -> str:
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False, default=str))


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) and not _STEERING.search(text) else _json(text)


def _visible(text: str) -> str:
    """Return the text with what would end the line or steer the terminal written out."""
    return _STEERING.sub(lambda found: {"\n": "\\n", "\t": "\\t"}.get(found[0], f"\\x{ord(found[0]):02x}"), text)
