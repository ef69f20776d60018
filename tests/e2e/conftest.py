"""What many tests here begin with: a pipeline that lays out one file, sidecars and targets, small volumes, Pods of namespaces."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.app import App, Starts, starting
from tests.e2e.bed import Bed
from tests.e2e.failing import small_volume
from tests.e2e.small_pod import SmallPod, lacking
from tests.faults.pod import Mounts
from tests.targets.started import Starter, starter


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Starts]:
    """Starts sidecars."""
    with starting(tmp_path) as starts:
        yield starts


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts targets."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    """A mount namespace with a tmpfs of 400 KiB where the volume of a house will be."""
    with small_volume(tmp_path) as mounts:
        yield mounts


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
