"""A target that is asked by HTTP, and says itself whether it took what it read."""

from pathlib import Path

import pytest

from tests.examples.laptop import Laptop, debian

pytestmark = pytest.mark.servers


def test_prometheus_follows_a_configmap(tmp_path: Path):
    """Each answer of the README comes, also past a configuration that Prometheus refuses, and nothing is wrong."""
    laptop = Laptop(tmp_path, "prometheus", {"prometheus": debian("prometheus")})
    try:
        laptop.start(ready="curl localhost:9090/-/ready")
        assert "no mistakes" in laptop.output("reloader check prometheus.yaml")
        assert laptop.wrong("prometheus.yaml") == []
        laptop.follow(laptop.steps)
    finally:
        laptop.stop()
