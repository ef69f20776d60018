"""How long certificates are valid."""

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from reloader.certificates import Validity, certificate_end, certificate_validity, first_to_end, texts_in
from tests.servers.certificates import Authority

LONG_LIVED = """\
-----BEGIN CERTIFICATE-----
MIHKMH6gAwIBAgICEmcwBQYDK2VwMA4xDDAKBgNVBAMMA3dlYjAgFw0wMTA5MDkw
MTQ2NDBaGA8yMDY1MDEyNDA1MjAwMFowDjEMMAoGA1UEAwwDd2ViMCowBQYDK2Vw
AyEA0khDBrZOjM2L8aTqFQQcRRTcf2mKhvifCFzNr48dY28wBQYDK2VwA0EAdazt
DDC+SBP/yPS1GiqGR2tAN6VxdQ+gKXDuhPqBanp3IrL1i7X14JMdjS3Xv7jPkNyj
5cqiDLzKPE0r6JPZBA==
-----END CERTIFICATE-----
"""
"""From 2001-09-09 01:46:40 to 2065-01-24 05:20:00 UTC."""

BROKEN = "-----BEGIN CERTIFICATE-----\n####\n-----END CERTIFICATE-----\n"


@pytest.fixture
def pem(tmp_path: Path) -> bytes:
    return Authority(tmp_path / "authority").issue("web")[0].read_bytes()


def test_the_dates_are_seconds_since_the_epoch() -> None:
    """Not of the local time, and in both forms that certificates have for dates (before 2050, and from then on)."""
    assert certificate_validity(LONG_LIVED) == Validity(1_000_000_000, 3_000_000_000)
    assert certificate_end(LONG_LIVED) == 3_000_000_000


def test_the_first_certificate_counts_whatever_is_around_it(tmp_path: Path, pem: bytes) -> None:
    """A chain, a key in the same file, what OpenSSL prints above, text rather than bytes."""
    certificate, key = Authority(tmp_path / "other").issue("other", days=9)
    end = certificate_end(pem)
    assert end is not None
    for text in (
        pem + certificate.read_bytes(),
        key.read_bytes() + pem,
        b"Issuer: \xff\n" + pem + b"-----BEGIN",
        pem + BROKEN.encode(),
        pem.replace(b"\n", b"\r\n"),
    ):
        assert certificate_end(text) == end
    assert certificate_end(pem.decode()) == end
    assert certificate_end("\udcff" + pem.decode()) == end
    assert certificate_end(certificate.read_bytes() + pem) > end


def test_a_certificate_of_no_version_that_there_is_has_no_end() -> None:
    """Nothing is wrong with it but that: it is told by the parser with an error of its own."""
    data = ssl.PEM_cert_to_DER_cert(LONG_LIVED)
    assert certificate_validity(ssl.DER_cert_to_PEM_cert(data)) is not None
    fourth = data.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x04")
    assert fourth != data
    assert certificate_validity(ssl.DER_cert_to_PEM_cert(fourth)) is None


def test_of_several_files_the_one_that_ends_first_counts(tmp_path: Path, pem: bytes) -> None:
    """Of each the leaf, with its own beginning; what is no certificate, or a broken one, has no end."""
    later = Authority(tmp_path / "other").issue("other", days=9)[0].read_bytes()
    assert first_to_end([b"", later, later + pem, BROKEN.encode()]) == certificate_validity(later)
    assert first_to_end([later, pem, LONG_LIVED]) == certificate_validity(pem)
    assert first_to_end([b"plain", BROKEN.encode()]) is None


def test_every_text_of_a_value_is_looked_at() -> None:
    """What mounted directories, single files and servers say; numbers and the like are none."""
    value = {"site": {"a": "x", "b": b"y"}, "file": "z", "web": [{"port": 1, "meta": {"c": "w"}}], "none": None, "flag": True}
    assert list(texts_in(value)) == ["x", b"y", "z", "w"]


@pytest.mark.parametrize("body", ["", "MIIB", "####", "canary"])
def test_what_is_none_has_no_end(body: str) -> None:
    assert certificate_end("") is None
    assert certificate_end(body) is None
    assert certificate_end(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n") is None


def test_the_library_is_imported_only_for_a_certificate() -> None:
    """It takes 4 MiB, which a pipeline without certificates does not spend."""
    code = "import sys, reloader.cli, reloader.certificates as c; c.first_to_end([b'x']); raise SystemExit('cryptography' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
