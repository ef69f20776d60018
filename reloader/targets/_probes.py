"""What can be asked: an address, a command, a port, a file. Each asks once and blocks that long; see `_asking`."""

import json as json_text
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from reloader.plan import Tls
from reloader.targets._asking import Answer, Ask, Said
from reloader.world import World
from reloader.world.children import Children
from reloader.world.clock import Clock
from reloader.world.processes import TICK
from reloader.written import Secret, host_and_port

if TYPE_CHECKING:
    import requests

YES = Answer(said=Said.YES)
_COARSE = 0.02 + TICK
"""Seconds by which the time of a file may be earlier than that of a process that wrote it: its clock is coarse."""


def http(  # noqa: PLR0913 - what a request and its answer may be
    world: World,
    url: str,
    *,
    key: str,
    method: str = "GET",
    headers: Mapping[str, Secret] | None = None,
    tls: Tls | None = None,
    status: int = 200,
    body: str | None = None,
    json: Mapping[str, Any] | None = None,
) -> Ask:
    """Return what sends a request and expects that answer; `key` is where it is configured, since an address may hold a secret."""

    def ask(seconds: float) -> Answer:
        import requests  # noqa: PLC0415 - costs 7 MiB that other targets never need

        from reloader.backends.transport import is_about_tls, what_happened  # noqa: PLC0415
        from reloader.world.session import RedirectRefused  # noqa: PLC0415

        revealed = {name: value.reveal() for name, value in (headers or {}).items()}
        with world.session(tls or Tls(), timeout=seconds) as session:
            try:
                answer: requests.Response | None = session.request(method, url, headers=revealed)
            except RedirectRefused as redirected:
                answer = redirected.response
            except requests.RequestException as error:
                mend = _tls_mend(key, url) if is_about_tls(error) else ""
                return Answer(said=Said.NOTHING, reason=f"{key}: {what_happened(error)}{mend}", asked=_may_have_got_there(error))
        wrong = "no answer" if answer is None else next(_wrong(answer, status, body, json), "")
        return Answer(said=Said.NO, reason=f"{key}: {wrong}") if wrong else YES

    return ask


def command(children: Children, argv: Sequence[str], *, key: str) -> Ask:
    """Return what runs a command, whose status 0 is a yes; its process group is killed when its time is over."""

    def ask(seconds: float) -> Answer:
        try:
            done = children.run(argv, timeout=seconds)
        except OSError as error:
            reason = f"{key}: {argv[0]!r} cannot be started: {error.strerror}; it runs in the sidecar's own container"
            return Answer(said=Said.NOTHING, reason=reason, asked=False)
        if done.status is None:
            return Answer(said=Said.NOTHING, reason=f"{key}: {argv[0]!r} did not end within {seconds:.3g} s and was killed")
        if done.status < 0:
            return Answer(said=Said.NOTHING, reason=f"{key}: {argv[0]!r} was killed by signal {-done.status}")
        return Answer(said=Said.NO, reason=f"{key}: {argv[0]!r} ended with status {done.status}") if done.status else YES

    return ask


def tcp(address: str) -> Ask:
    """Return what asks whether a port takes connections."""
    host, port = host_and_port(address)

    def ask(seconds: float) -> Answer:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except OSError as error:
            return Answer(said=Said.NOTHING, reason=f"{address} takes no connection ({error.strerror or 'no answer in time'})")
        return YES

    return ask


def file(path: str, clock: Clock, *, started: float) -> Ask:
    """Return what asks whether a file is there and no older than a process that started then, so that no earlier one wrote it."""

    def ask(_seconds: float) -> Answer:
        try:
            written = Path(path).stat().st_mtime
        except OSError as error:
            return Answer(said=Said.NOTHING, reason=f"{path}: {error.strerror}")
        if clock.dated(written) < started - _COARSE:
            return Answer(said=Said.NO, reason=f"{path} is older than the process")
        return YES

    return ask


def _tls_mend(key: str, url: str) -> str:
    """Return where that was, without what of an address may be a secret, and what to look at."""
    return f" (https://{urlsplit(url).netloc}); check {key.rpartition('.')[0]}.tls.* and {key}"


def _wrong(answer: "requests.Response", status: int, body: str | None, json: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what is not as expected; the body itself is never quoted, it may hold secrets."""
    if answer.status_code != status:
        yield f"status {answer.status_code}, expected {status}"
    text = answer.content.decode(errors="replace") if body is not None or json is not None else ""
    if body is not None and not re.search(body, text):
        yield "the body does not match"
    if json is not None:
        yield from _wrong_values(text, json)


def _wrong_values(text: str, expected: Mapping[str, Any]) -> Iterator[str]:
    try:
        document = json_text.loads(text)
    except (ValueError, RecursionError):
        yield "the body is not JSON"
        return
    for path, value in expected.items():
        try:
            found = _look(document, path.split("."))
        except (LookupError, ValueError, TypeError):
            yield f"the body has no {path}"
            continue
        if found != value or isinstance(found, bool) is not isinstance(value, bool):
            yield f"{path} is not as expected"


def _look(value: Any, path: Sequence[str]) -> Any:
    for step in path:
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def _may_have_got_there(error: "requests.RequestException") -> bool:
    """Return whether the request may have been received although no answer came: not if there was no connection to send it on."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, SSLError  # noqa: PLC0415 - comes with requests

    if isinstance(error, ValueError):
        return False
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return not isinstance(reason, ConnectTimeoutError | NewConnectionError | SSLError)
