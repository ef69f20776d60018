"""One request and one answer in HTTP. There is no body to read and no second request on a connection, so little of HTTP is needed."""

import re
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

LARGEST_HEAD = 16 * 1024
"""How many bytes a request line and its headers may have; a browser sends the cookies of every port of localhost."""
LONGEST_LINE = 8 * 1024
"""How many bytes of those the request line may have."""
MOST_HEADERS = 100

_END = re.compile(rb"\r?\n\r?\n")
_METHODS = ("GET", "HEAD")
_ALWAYS = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n"


@dataclass(frozen=True)
class Request:
    """What a client wants: `target` as it was sent, `host` as the client named us, empty where it did not."""

    method: str
    target: str
    host: str = ""


@dataclass(frozen=True)
class Answer:
    """What an endpoint says."""

    status: HTTPStatus
    body: bytes
    type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """What came is no request that is answered; the answer says why."""

    def __init__(self, status: HTTPStatus, why: str, *headers: tuple[str, str]) -> None:
        super().__init__(why)
        self.answer = Answer(status, f"{why}\n".encode(), headers=headers)


def head_of(received: bytearray, before: int) -> bytes | None:
    """Return the request line and the headers once all of them are there; `before` is how many bytes were looked at already.

    Raises:
        Refused: they are too long.

    """
    end = _END.search(received, max(0, before - len(b"\r\n\r")))
    line = received.find(b"\n", 0, LONGEST_LINE)
    if line < 0 and len(received) >= LONGEST_LINE:
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, f"the request line has more than {LONGEST_LINE} bytes")
    if (end.start() if end else len(received)) > LARGEST_HEAD:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers have more than {LARGEST_HEAD} bytes")
    return bytes(received[: end.start()]) if end else None


def parsed(head: bytes) -> Request:
    """Return what the request line and the headers say.

    Raises:
        Refused: they are no HTTP/1, or ask for something else than GET and HEAD.

    """
    line, *headers = head.decode("latin-1").split("\n")
    words = line.split()
    if len(words) != len(("method", "target", "version")):
        raise Refused(HTTPStatus.BAD_REQUEST, "this is no HTTP request")
    method, target, version = words
    if not version.startswith("HTTP/1."):
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
    if method not in _METHODS:
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered", ("Allow", ", ".join(_METHODS)))
    if len(headers) > MOST_HEADERS:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"there are more than {MOST_HEADERS} headers")
    return Request(method, target, _host(headers))


def _host(headers: list[str]) -> str:
    named = [value.strip() for name, _, value in (header.partition(":") for header in headers) if name.lower() == "host"]
    if len(named) > 1:
        raise Refused(HTTPStatus.BAD_REQUEST, "there is more than one Host header")
    return named[0] if named else ""


def encoded(answer: Answer, *, with_body: bool = True) -> bytes:
    """Return an answer as it goes over the wire; without its body for HEAD."""
    status = answer.status
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Date: {formatdate(usegmt=True)}", f"Content-Type: {answer.type}"]
    lines += [f"Content-Length: {len(answer.body)}", *(f"{name}: {value}" for name, value in answer.headers)]
    head = "\r\n".join(lines) + "\r\n" + _ALWAYS + "\r\n"
    return head.encode("ascii") + (answer.body if with_body else b"")
