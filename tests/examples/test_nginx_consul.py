"""Routes and upstreams from Consul."""

from pathlib import Path

import pytest

from tests.examples.laptop import Laptop, debian

pytestmark = pytest.mark.servers


def test_nginx_follows_consul(tmp_path: Path):
    """Each answer of the README comes, also past an emptied list and a route that NGINX refuses, and nothing is wrong."""
    laptop = Laptop(tmp_path, "nginx-consul", {"nginx": debian("nginx", "nginx-light"), "consul": debian("consul", suite="bullseye")})
    try:
        laptop.start(ready="curl localhost:8080/hello")
        assert "no mistakes" in laptop.output("reloader check web.yaml")
        assert laptop.wrong("web.yaml") == []
        laptop.follow(laptop.steps)
    finally:
        laptop.stop()
