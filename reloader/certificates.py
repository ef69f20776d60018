"""How long certificates are valid."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


class Validity(NamedTuple):
    """When a certificate begins and ends to be valid, in seconds since the epoch."""

    begins: float
    ends: float


def certificate_validity(pem: str | bytes) -> Validity | None:
    """Return that of the first certificate, which in a chain is the leaf; None where none can be read."""
    text = pem.encode(errors="replace") if isinstance(pem, str) else pem
    begin = text.find(BEGIN)
    end = text.find(END, begin)
    if begin < 0 or end < 0:
        return None
    from cryptography import x509  # noqa: PLC0415 - 30 ms and 4 MiB (measured, 50.0.2), only for those who have certificates

    try:
        certificate = x509.load_pem_x509_certificate(text[begin : end + len(END)])
        return Validity(certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())
    except (ValueError, x509.InvalidVersion):
        return None


def certificate_end(pem: str | bytes) -> float | None:
    """Return when the first certificate ends to be valid, in seconds since the epoch; None where none can be read."""
    validity = certificate_validity(pem)
    return None if validity is None else validity.ends


def first_to_end(files: Iterable[str | bytes]) -> Validity | None:
    """Return that of these files' certificates which ends first; None where there is none."""
    return min((each for each in map(certificate_validity, files) if each is not None), key=lambda each: each.ends, default=None)


def texts_in(value: Any) -> Iterator[str | bytes]:
    """Yield every text in plain data, however deep."""
    if isinstance(value, str | bytes):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts_in(each)
    elif isinstance(value, Iterable):
        for each in value:
            yield from texts_in(each)
