"""How a log line looks: JSON, logfmt, or console for a person at a terminal."""

import json
import logging
import sys
import warnings
from datetime import UTC, datetime
from typing import Any, TextIO, cast

from reloader.plan import Log


def set_up(plan: Log, stream: TextIO = sys.stderr) -> None:
    """Send all log lines to one stream in the format that the plan names, or that suits the stream."""
    chosen = plan.format or ("console" if stream.isatty() else "json")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_FORMATTERS[chosen]())
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


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps({**head, **_fields(record)}, ensure_ascii=False, default=str)


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage()}
        return " ".join(f"{key}={_quoted(value)}" for key, value in {**head, **_fields(record)}.items())


class _Console(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        mark = {"WARNING": "! ", "ERROR": "!! ", "CRITICAL": "!! "}.get(record.levelname, "  ")
        rest = "  ".join(f"{key}={value}" for key, value in _fields(record).items())
        return f"{clock} {mark}{record.getMessage()}" + (f"  {rest}" if rest else "")


_FORMATTERS = {"json": _Json, "logfmt": _Logfmt, "console": _Console}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(char in text for char in ' "=\n\\') else text
