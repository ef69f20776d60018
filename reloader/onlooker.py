"""`status` from outside: asks the running one by its control socket or its endpoint, once or over and over, and shows what it knows."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, TextIO
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

from reloader import control
from reloader.status.table import coloured, plain, table

INTERVAL = 1.0
"""Seconds between two looks."""
HANGING = " " * 11
"""What a table's line that is longer than the terminal is wide goes on below."""
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""Show the other screen and hide the cursor; and back."""

Document = Mapping[str, Any]


class Unanswered(Exception):
    """Nobody told what is known; the message says who was asked, why, and what to do."""


@dataclass(frozen=True)
class Onlooker:
    """Asks one running reloader by the control socket in `state`, or where nobody answers there, at the address where it listens."""

    state: Path | None
    listen: str

    def ask(self) -> Document:
        """Return the document of `/status`.

        Raises:
            Unanswered: nobody answers, or another program does.

        """
        document, why_not = _by_socket(self.state) if self.state else (None, "")
        if document is None:
            document = _by_http(_address(self.listen), why_not)
        if not {"at", "ready", "pipelines"} <= document.keys():
            raise Unanswered("what answers is no reloader, or one of another version")
        return document


def show(document: Document, stream: TextIO, *, as_json: bool) -> None:
    """Write the document, or a table of it."""
    text = json.dumps(document, indent=1) if as_json else "\n".join(table(document, coloured if _has_colours(stream) else plain))
    _write(stream, f"{text}\n")


def watch(ask: Callable[[], Document], stream: TextIO, *, as_json: bool) -> None:
    """Show what changes until Ctrl-C or SIGTERM: on a terminal as one picture that is drawn anew, else one after the other."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        try:
            if as_json or not _is_screen(stream):
                _append(ask, stream, as_json=as_json)
            else:
                _draw_over(ask, stream)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # else Python complains when it flushes at its end


def _append(ask: Callable[[], Document], stream: TextIO, *, as_json: bool) -> None:
    before: object = None
    while True:
        try:
            document = ask()
            now, text = _lasting(document), json.dumps(document) if as_json else "\n".join([_head(document["at"]), *table(document), ""])
        except Unanswered as reason:
            now, text = str(reason), json.dumps({"unanswered": str(reason)}) if as_json else f"{_head(time.time())}\n{reason}\n"
        if now != before:
            _write(stream, f"{text}\n")
            before = now
        time.sleep(INTERVAL)


def _draw_over(ask: Callable[[], Document], stream: TextIO) -> None:
    lines: list[str] = []
    paint = coloured if _has_colours(stream) else plain
    with _screen(stream):
        while True:
            try:
                document = ask()
                head, lines = _head(document["at"]), table(document, paint)
            except Unanswered as reason:
                head = paint("bad", f"{_head(time.time())}  {reason}")
            _write(stream, _picture([f"{head}  (Ctrl-C ends)", "", *lines], os.get_terminal_size(stream.fileno())))
            time.sleep(INTERVAL)


@contextmanager
def _screen(stream: TextIO) -> Iterator[None]:
    """Take the terminal's other screen, so that the one that was there is there again afterwards."""
    _write(stream, _ENTER)
    try:
        yield
    finally:
        _write(stream, _LEAVE)


def _picture(lines: list[str], size: os.terminal_size) -> str:
    """Return what draws these lines over those of before, without clearing in between: that would flicker."""
    rows = [row for line in lines for row in _wrapped(line, size.columns - 1)]
    if len(rows) > size.lines:
        rows = [
            *rows[: size.lines - 1],
            f"and {len(rows) - size.lines + 1} lines more, for which the window is too low"[: size.columns - 1],
        ]
    return "\x1b[H" + "\r\n".join(f"{row}\x1b[K" for row in rows) + "\x1b[J"


def _wrapped(line: str, width: int) -> Iterator[str]:
    """Yield a line in pieces that fit; colours take no room."""
    row, taken = "", 0
    for part in re.findall(r"\x1b\[\d+m|.", line):
        if taken >= max(width, len(HANGING) + 1) and len(part) == 1:
            yield row
            row, taken = HANGING, len(HANGING)
        row += part
        taken += len(part) == 1
    yield row


def _head(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _lasting(document: Document) -> object:
    """Return what of a document stays the same while nothing happens: of an age only whether there is one."""
    pipelines = [{**each, "sources": [_ageless(source) for source in each["sources"]]} for each in document["pipelines"]]
    return {**document, "at": None, "pipelines": pipelines}


def _ageless(source: Document) -> Document:
    age, ends = source["age_seconds"], source["expires_at"]
    return {**source, "age_seconds": age if age is None else age > 0, "expires_at": ends if ends is None else round(ends)}


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _is_screen(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _has_colours(stream: TextIO) -> bool:
    return _is_screen(stream) and not os.environ.get("NO_COLOR")


def _by_socket(directory: Path) -> tuple[Document | None, str]:
    """Return the document from the control socket; None, and why, where nobody listens or may be asked there."""
    try:
        answer = control.ask(directory, {"do": "status"})
    except control.Unreachable as error:
        return None, str(error)
    if answer is None:
        return None, f"nobody listens on {directory / control.NAME}"
    return answer.get("status"), f"{directory / control.NAME}: {'; '.join(map(str, answer.get('said', ())))}"


def _by_http(address: str | None, why_not: str) -> Document:
    """Return the document from the endpoint; `why_not` says why the control socket gave none, where there may be one."""
    if address is None:
        mend = f"{why_not}; is `reloader run` up?" if why_not else "give it an address, or set state.path"
        raise Unanswered(f"server.listen is off, so nothing can be asked there; {mend}")
    before = f"{why_not}; " if why_not else ""
    try:
        with build_opener(ProxyHandler({})).open(f"http://{address}/status", timeout=5) as answer:
            return dict(json.load(answer))
    except HTTPError as error:
        raise Unanswered(f"{before}{address} answered {error.code}: {error.read(1000).decode(errors='replace').strip()}") from None
    except (URLError, OSError, HTTPException, ValueError, TypeError) as error:
        reason = getattr(error, "reason", error)
        raise Unanswered(f"{before}nothing answers on {address} ({reason}); is `reloader run` up, and server.listen not off?") from None


def _address(listen: str) -> str | None:
    """Return where to ask one that listens there."""
    if listen == "off":
        return None
    host, _, port = listen.rpartition(":")
    return f"{'localhost' if host in ('', '[::]', '0.0.0.0') else host}:{port}"  # noqa: S104 - read, not bound
