"""The image builds from the repository as it is, and runs as it is meant to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import reloader
from tests.servers import UnavailableError
from tests.servers.podman import Podman

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """A podman that has the image `reloader`; without podman the tests are skipped everywhere, since CI need not have one."""
    try:
        podman = Podman(tmp_path_factory.mktemp("podman"))
    except UnavailableError as reason:
        pytest.skip(str(reason))
    try:
        podman.build(ROOT, "reloader")
        yield podman
    finally:
        podman.close()


def test_the_image_runs_reloader_as_a_user_that_is_not_root(podman: Podman):
    """Its entry point is the command itself, by a user that is not root, ended by SIGTERM."""
    config = podman.config("reloader")
    assert config["Entrypoint"] == ["reloader"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] in {"SIGTERM", "15"}


def test_the_image_needs_no_network_capability_or_writable_root(podman: Podman):
    """With all of them taken away it still starts."""
    hardened = ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    assert podman("run", "--rm", *hardened, "reloader", "--version").split()[-1] == reloader.__version__
