"""Why a request brought no answer at all: the errors of `reloader.world.session` as failures that a person can act on."""

import ssl

import requests

from reloader.snapshot import FailureKind
from reloader.world.session import RedirectRefused, TooLarge


def explain(error: requests.RequestException, section: str) -> tuple[FailureKind, str]:
    """Return what kind of failure an error is, and what happened with what mends it; `section` is where the server is configured."""
    cause = _innermost(error)
    match error:
        case RedirectRefused():
            return FailureKind.MISCONFIGURED, f"{error}; point {section}.address to the server that answers itself"
        case TooLarge():
            return FailureKind.MISCONFIGURED, f"{error}; read less of it"
        case ValueError():  # requests says of a bad URL, scheme or header that it is one
            return FailureKind.MISCONFIGURED, f"no request can be made; check that {section}.address is a http:// or https:// URL"
        case requests.exceptions.SSLError() if not isinstance(cause, ssl.SSLEOFError | ConnectionError):
            return (
                FailureKind.MISCONFIGURED,
                f"TLS failed: {_tls_reason(cause)}; check {section}.tls.* and {section}.address",
            )
        case requests.Timeout():
            return FailureKind.UNREACHABLE, "no complete answer in time; check the server's load, and the network in between"
    return FailureKind.UNREACHABLE, f"{_reason(cause)}; check that the server runs, and {section}.address"


def _innermost(error: BaseException) -> BaseException:
    inner = error.__cause__ or error.__context__
    return error if inner is None else _innermost(inner)


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
