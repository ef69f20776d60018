"""What both servers' clients know of HTTP: the errors of `reloader.world.session` as failures that a person can act on, and headers."""

import ssl
from collections.abc import Mapping

import requests
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from reloader.snapshot import FailureKind
from reloader.world.session import RedirectRefused, TooLarge

LONGEST_RETRY_AFTER = 300.0
"""How many seconds a server may ask us to wait: a slip of a proxy must not silence a source for a day."""


def explain(error: requests.RequestException, section: str) -> tuple[FailureKind, str]:
    """Return what kind of failure an error is, and what happened with what mends it; `section` is where the server is configured."""
    told = what_happened(error)
    match error:
        case RedirectRefused():
            return FailureKind.MISCONFIGURED, f"{told}; point {section}.address to the server that answers itself"
        case TooLarge():
            return FailureKind.MISCONFIGURED, f"{told}; read less of it"
        case ValueError():  # requests says of a bad URL, scheme or header that it is one
            return FailureKind.MISCONFIGURED, f"{told}; check that {section}.address is a http:// or https:// URL"
        case _ if is_about_tls(error):
            return FailureKind.MISCONFIGURED, f"{told}; check {section}.tls.* and {section}.address"
        case requests.Timeout():
            return FailureKind.UNREACHABLE, f"{told}; check the server's load, and the network in between"
    return FailureKind.UNREACHABLE, f"{told}; check that the server runs, and {section}.address"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After; its other form, a date, would need the server's clock."""
    text = headers.get("Retry-After", "")
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdecimal() else None


def fits_header(text: str) -> bool:
    """Return whether a token can be sent; requests quotes a header that it cannot send in its error, so such a one must not get there."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def what_happened(error: requests.RequestException) -> str:
    """Return why there was no answer, without a mend; it quotes nothing that was sent or received."""
    match error:
        case RedirectRefused() | TooLarge():
            return str(error)
        case ValueError():
            return "no request can be made"
        case _ if is_about_tls(error):
            return f"TLS failed: {_tls_reason(_innermost(error))}"
        case requests.Timeout():
            return "no complete answer in time"
    return _reason(_innermost(error))


def concerns_all(error: requests.RequestException) -> bool:
    """Return whether no request would reach the server now: nothing listens, its name or its certificate is wrong, or the address is."""
    if isinstance(error, requests.exceptions.SSLError):
        return is_about_tls(error)
    return isinstance(error, ValueError) or any(isinstance(each, ConnectTimeoutError | NewConnectionError) for each in _chain(error))


def is_about_tls(error: requests.RequestException) -> bool:
    """Return whether TLS itself failed, rather than the connection under it."""
    return isinstance(error, requests.exceptions.SSLError) and not isinstance(_innermost(error), ssl.SSLEOFError | ConnectionError)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and what it came of."""
    inner = error.__cause__ or error.__context__
    return [error, *(() if inner is None else _chain(inner))]


def _innermost(error: BaseException) -> BaseException:
    return _chain(error)[-1]


def _tls_reason(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return cause.reason.lower().replace("_", " ")
    return str(cause)  # about a file that was named


def _reason(cause: BaseException) -> str:
    """Return what happened; the text of an error is used only where it is the system's, since others may quote what was received."""
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.strerror} ({cause.filename})" if cause.filename else cause.strerror
    return "the connection was closed" if isinstance(cause, ConnectionError) else f"the answer broke off ({type(cause).__name__})"
