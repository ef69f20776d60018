"""Every way in which a server fails, and what each client has to make of it: the matrix that both are tried on."""

import contextlib
import gzip
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reloader.snapshot import FailureKind
from tests.servers.certificates import Authority
from tests.servers.misbehaving import (
    Behaviour,
    Exchange,
    Misbehaving,
    cut,
    drip_body,
    drip_chunks,
    drip_headers,
    endless,
    hang,
    html,
    redirect_to,
    truncate,
)

UNREACHABLE, REFUSED, MISCONFIGURED = FailureKind.UNREACHABLE, FailureKind.REFUSED, FailureKind.MISCONFIGURED


@dataclass(frozen=True)
class Meant:
    """How a client has to take it."""

    kind: FailureKind
    words: str
    """In the reason; what mends it."""
    everywhere: bool = False
    """Whether the whole server is taken to fail."""


@dataclass(frozen=True)
class Stage:
    """A server that is about to fail."""

    server: Misbehaving
    elsewhere: str
    """The address of another host, which nothing may reach."""
    authority: Authority
    """Whom its clients trust."""
    folder: Path


Begin = Callable[[Stage], None]


@dataclass(frozen=True)
class Fault:
    """One way to fail."""

    begin: Begin
    vault: Meant
    consul: Meant
    connects: bool = True
    """Whether requests reach the server at all."""
    slow: bool = False
    """Whether only the deadline ends it."""


def _plays(behave: Behaviour) -> Begin:
    def begin(stage: Stage) -> None:
        stage.server.behave = behave

    return begin


def _says(status: int, *errors: str, **headers: str) -> Begin:
    return _plays(lambda exchange: exchange.answer({"errors": list(errors)}, status=status, Content_Type="application/json", **headers))


def _page(status: int) -> Begin:
    return _plays(lambda exchange: exchange.answer("<html>CANARY</html>", status=status, Content_Type="text/html"))


def _sends(data: bytes) -> Begin:
    def behave(exchange: Exchange) -> None:
        exchange.write(data)
        cut(exchange)

    return _plays(behave)


def _refuse(stage: Stage) -> None:
    stage.server.refuse()


def _speak_no_tls(stage: Stage) -> None:
    stage.server.present(None)


def _show(*names: str, days: float = 1) -> Begin:
    def begin(stage: Stage) -> None:
        certificate, key = stage.authority.issue(*names, days=days)
        stage.server.present((str(certificate), str(key)))

    return begin


def _show_a_strangers(stage: Stage) -> None:
    certificate, key = Authority(stage.folder / "stranger").issue("127.0.0.1")
    stage.server.present((str(certificate), str(key)))


def _redirect(status: int) -> Begin:
    def begin(stage: Stage) -> None:
        stage.server.behave = redirect_to(f"{stage.elsewhere}/v1/CANARY", status)

    return begin


def _reset(exchange: Exchange) -> None:
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(exchange.connection.detach())


def _continue(exchange: Exchange) -> None:
    while not exchange.stopping.wait(0.01):
        exchange.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _bomb(exchange: Exchange) -> None:
    with contextlib.suppress(OSError):
        exchange.answer(_BOMB, Content_Encoding="gzip", Content_Type="application/json", X_Consul_Index="7")


_BOMB = gzip.compress(b" " * 2**20) * 65
_GARBLED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\nX-Consul-Index: 7\r\n\r\nCANARY"
_DEEP = b"[" * 100_000

_CONNECT = "check that the server runs, and {section}.address"
_TLS = "; check {section}.tls.* and {section}.address"
_LATE = "no complete answer in time; check the server's load, and the network in between"
_STRANGER = "and what stands in between"


def _both(begin: Begin, kind: FailureKind, words: str, *, everywhere: bool = False, **how: bool) -> Fault:
    return Fault(begin, *(Meant(kind, words.format(section=name), everywhere) for name in ("vault", "consul")), **how)


FAULTS = {
    "refused": _both(_refuse, UNREACHABLE, "Connection refused; " + _CONNECT, everywhere=True, connects=False),
    "no tls": _both(_speak_no_tls, MISCONFIGURED, _TLS, everywhere=True, connects=False),
    "untrusted certificate": _both(_show_a_strangers, MISCONFIGURED, _TLS, everywhere=True, connects=False),
    "another's certificate": _both(_show("other.test"), MISCONFIGURED, _TLS, everywhere=True, connects=False),
    "ended certificate": _both(_show("127.0.0.1", days=-1), MISCONFIGURED, _TLS, everywhere=True, connects=False),
    "hang": _both(_plays(hang), UNREACHABLE, _LATE, slow=True),
    "dripped headers": _both(_plays(drip_headers), UNREACHABLE, _LATE, slow=True),
    "dripped body": _both(_plays(drip_body), UNREACHABLE, _LATE, slow=True),
    "dripped chunks": _both(_plays(drip_chunks), UNREACHABLE, _LATE, slow=True),
    "continue for ever": _both(_plays(_continue), UNREACHABLE, _LATE, slow=True),
    "cut": _both(_plays(cut), UNREACHABLE, _CONNECT),
    "reset": _both(_plays(_reset), UNREACHABLE, _CONNECT),
    "truncated": _both(_plays(truncate), UNREACHABLE, _CONNECT),
    "truncated headers": _both(_sends(b"HTTP/1.1 200 OK\r\nContent-Le"), MISCONFIGURED, _STRANGER),
    "no http": _both(_sends(b"SSH-2.0-OpenSSH_9.2 CANARY\r\n"), UNREACHABLE, _CONNECT),
    "endless header": _both(_sends(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000), UNREACHABLE, _CONNECT),
    "too many headers": _both(_sends(b"HTTP/1.1 200 OK\r\n" + b"X: CANARY\r\n" * 200 + b"\r\n"), UNREACHABLE, _CONNECT),
    "bad chunks": _both(
        _sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Consul-Index: 7\r\n\r\nCANARY\r\n"), UNREACHABLE, _CONNECT
    ),
    "garbled": _both(_sends(_GARBLED), UNREACHABLE, _CONNECT),
    "oversize": _both(_plays(endless), MISCONFIGURED, "MiB; read less of it"),
    "bomb": _both(_plays(_bomb), MISCONFIGURED, "MiB; read less of it"),
    "redirect 301": _both(_redirect(301), MISCONFIGURED, "which is not followed; point {section}.address"),
    "redirect 302": _both(_redirect(302), MISCONFIGURED, "which is not followed; point {section}.address"),
    "redirect 307": _both(_redirect(307), MISCONFIGURED, "which is not followed; point {section}.address"),
    "redirect 308": _both(_redirect(308), MISCONFIGURED, "which is not followed; point {section}.address"),
    "html": _both(_plays(html), MISCONFIGURED, _STRANGER),
    "html 403": _both(_page(403), MISCONFIGURED, _STRANGER),
    "html 404": _both(_page(404), MISCONFIGURED, _STRANGER),
    "html 502": Fault(
        _page(502),
        Meant(UNREACHABLE, "status 502; see the server's log", everywhere=True),
        Meant(UNREACHABLE, "status 502: cannot answer, or has no leader; see its log"),
    ),
    "nothing": _both(_plays(lambda exchange: exchange.answer("")), MISCONFIGURED, _STRANGER),
    "deep": _both(_plays(lambda exchange: exchange.answer(_DEEP, X_Consul_Index="7")), MISCONFIGURED, _STRANGER),
    "not utf-8": _both(_plays(lambda exchange: exchange.answer(b'{"\xff\xfe', X_Consul_Index="7")), MISCONFIGURED, _STRANGER),
    "strange status": _both(_says(299), MISCONFIGURED, _STRANGER),
    "400": Fault(_says(400), Meant(REFUSED, "check the path and what is sent"), Meant(REFUSED, "check consul.datacenter")),
    "401": Fault(_says(401), Meant(REFUSED, "check vault.auth"), Meant(REFUSED, "remove consul.token")),
    "403": Fault(_says(403), Meant(REFUSED, "its policy must hold"), Meant(REFUSED, "its policy must hold")),
    "404": Fault(_says(404), Meant(REFUSED, "no such path; check it"), Meant(MISCONFIGURED, _STRANGER)),
    "412": Fault(_says(412), Meant(UNREACHABLE, "has not caught up"), Meant(MISCONFIGURED, _STRANGER)),
    "429": Fault(_says(429), Meant(UNREACHABLE, "fewer requests; raise `poll`"), Meant(UNREACHABLE, "fewer requests; raise its limits")),
    "429 with Retry-After": Fault(
        _says(429, Retry_After="1"),
        Meant(UNREACHABLE, "fewer requests; raise `poll`", everywhere=True),
        Meant(UNREACHABLE, "fewer requests; raise its limits", everywhere=True),
    ),
    "472": Fault(
        _says(472), Meant(UNREACHABLE, "point vault.address to the active cluster", everywhere=True), Meant(MISCONFIGURED, _STRANGER)
    ),
    "473": Fault(
        _says(473), Meant(UNREACHABLE, "point vault.address to the active node", everywhere=True), Meant(MISCONFIGURED, _STRANGER)
    ),
    "500": Fault(
        _says(500),
        Meant(UNREACHABLE, "status 500; see the server's log"),
        Meant(UNREACHABLE, "status 500: cannot answer, or has no leader; see its log"),
    ),
    "uninitialised": Fault(
        _says(501, "server is not initialized"),
        Meant(REFUSED, "is not initialised; initialise and unseal it", everywhere=True),
        Meant(UNREACHABLE, "status 501"),
    ),
    "502": Fault(_says(502), Meant(UNREACHABLE, "see the server's log", everywhere=True), Meant(UNREACHABLE, "see its log")),
    "503": Fault(
        _says(503), Meant(UNREACHABLE, "see the server's log", everywhere=True), Meant(UNREACHABLE, "see its log", everywhere=True)
    ),
    "sealed": Fault(
        _says(503, "Vault is sealed"),
        Meant(REFUSED, "is sealed; unseal it", everywhere=True),
        Meant(UNREACHABLE, "see its log", everywhere=True),
    ),
    "no leader": Fault(
        _says(500, "No cluster leader"), Meant(UNREACHABLE, "status 500"), Meant(UNREACHABLE, "has no leader; see its log", everywhere=True)
    ),
}
