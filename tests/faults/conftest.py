"""Pods whose parts can be made to fail."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.pod import Mounts, Pod

MakePod = Callable[..., Pod]


@pytest.fixture
def make_pod(tmp_path: Path) -> Iterator[MakePod]:
    """Makes a Pod that ends with the test."""
    made: list[Pod] = []

    def make(mounts: Mounts | None = None, **configured: str) -> Pod:
        made.append(Pod(tmp_path, mounts, **configured))
        return made[-1]

    yield make
    for pod in made:
        pod.close()


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    """A mount namespace with a tmpfs of 400 KiB where the volume will be."""
    mounts = Mounts(tmp_path)
    (tmp_path / "live").mkdir()
    mounts.run("mount", "-t", "tmpfs", "-o", "size=400k,mode=0755", "volume", tmp_path / "live")
    yield mounts
    mounts.close()
