"""Pods of namespaces, for tests that look at what is around a sidecar."""

from collections.abc import Iterator

import pytest

from tests.e2e.bed import Bed
from tests.e2e.small_pod import SmallPod, lacking


@pytest.fixture(scope="session")
def possible() -> str:
    """Why there can be no Pod of namespaces here; nothing where there can be one."""
    return lacking()


@pytest.fixture
def bed(possible: str) -> Iterator[Bed]:
    """A Pod that ends with the test."""
    if possible:
        pytest.skip(possible)
    pod = SmallPod()
    try:
        yield Bed(pod)
    finally:
        pod.close()
