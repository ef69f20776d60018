"""Whether private keys belong to their certificates, and those are in date."""

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from reloader.certificates import BEGIN, certificate_validity
from reloader.check.errors import CheckErrored, CheckRefused
from reloader.fileset import Rendered

_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)


def check(staged: Path, rendered: Rendered, now: float) -> None:
    """Refuse a private key that does not belong to its certificate, or whose certificate is not in date `now` (seconds since the epoch).

    A key's certificate is in the file of the same stem (`tls.key`, `tls.crt`), else in the key's own file, else in one of the files that
    are no other key's. Of a chain the first certificate counts. A certificate without a key (an authority's) is fine.
    """
    keys = [name for name, file in rendered.items() if _PRIVATE_KEY.search(file.data)]
    certificates = [name for name, file in rendered.items() if BEGIN in file.data]
    if not keys or not certificates:
        missing = "no private key" if certificates else "no certificate" if keys else "neither a certificate nor a private key"
        raise CheckRefused(f"keypair: {missing} in PEM form in the set")
    for key in keys:
        if _ENCRYPTED.search(rendered[key].data):
            raise CheckRefused(f"keypair: {key} is encrypted, so the target would need its password")
    pairs = {key: _by_name(key, certificates) for key in keys}
    left = [name for name in certificates if name not in pairs.values()]
    for key, certificate in pairs.items():
        for each in _matching(staged, key, [certificate] if certificate else left):
            _in_date(each, rendered[each].data, now)


def _by_name(key: str, certificates: list[str]) -> str | None:
    stem = PurePosixPath(key).with_suffix("")
    named = (each for each in certificates if each != key and PurePosixPath(each).with_suffix("") == stem)
    return next(named, key if key in certificates else None)


def _matching(staged: Path, key: str, candidates: list[str]) -> list[str]:
    """Return which of the candidates the key belongs to; refuse it if there is none."""
    if not candidates:
        raise CheckRefused(f"keypair: no certificate for {key}; give both the same stem, such as tls.crt and tls.key")
    reasons = {certificate: _unfit(staged / certificate, staged / key) for certificate in candidates}
    matching = [certificate for certificate, reason in reasons.items() if reason is None]
    if not matching:
        raise CheckRefused(f"keypair: {key} and {' or '.join(candidates)}: {'; '.join(dict.fromkeys(filter(None, reasons.values())))}")
    return matching


def _in_date(name: str, pem: bytes, now: float) -> None:
    validity = certificate_validity(pem)
    if validity is None:
        raise CheckRefused(f"keypair: {name}: how long the certificate is valid cannot be read")
    if now < validity.begins:
        raise CheckRefused(f"keypair: {name}: the certificate is not valid before {_date(validity.begins)}; is the clock right?")
    if now > validity.ends:
        raise CheckRefused(f"keypair: {name}: the certificate was valid until {_date(validity.ends)}")


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _unfit(certificate: Path, key: Path) -> str | None:
    """Return why the two are no pair; None when they are."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password is given, so that nothing ever asks the terminal for one.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            return "the private key is not the certificate's"
        return f"not what OpenSSL can read ({(error.reason or 'PEM').lower().replace('_', ' ')})"
    except OSError as error:
        raise CheckErrored(f"keypair: {key.name} or {certificate.name} cannot be read: {error.strerror}") from None
    return None
