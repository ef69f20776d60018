"""Pods of the manifests on this machine, of the image that the Dockerfile makes."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.deploy.rendering import Manifest, overlay
from tests.pods.played import Pod
from tests.pods.volumes import removed
from tests.servers import UnavailableError, missing
from tests.servers.debian import cache, cache_locked
from tests.servers.podman import Podman

Play = Callable[[str, list[Manifest]], AbstractContextManager[Pod]]
"""Plays manifests under a name until the end of the block."""


@pytest.fixture(scope="session")
def play(engine: Podman, reloader_image: str, nginx_image: str) -> Play:
    engine.pause()
    images = {"config-reloader": reloader_image, "nginx:1.27": nginx_image}
    folder = cache() / "pods"
    _remove_of_the_dead(folder)

    @contextmanager
    def playing(name: str, manifests: list[Manifest]) -> Iterator[Pod]:
        pod = _pod(engine, name, manifests, images, folder / f"{os.getpid()}-{name}")
        try:
            pod.start()
            yield pod
        finally:
            pod.close()

    return playing


@pytest.fixture(scope="session", params=["base", "restricted", "separate-uids"])
def pod(request: pytest.FixtureRequest, play: Play) -> Iterator[Pod]:
    """A Pod of each overlay; a test leaves it ready, with nothing owed."""
    with play(request.param, overlay(request.param)) as pod:
        yield pod


def _pod(engine: Podman, name: str, manifests: list[Manifest], images: dict[str, str], folder: Path) -> Pod:
    try:
        return Pod(engine, name, manifests, images, folder)
    except UnavailableError as reason:
        missing(reason)


def _remove_of_the_dead(folder: Path) -> None:
    """Remove the volumes of test processes that were killed; their containers are gone since `engine` is there."""
    folder.mkdir(exist_ok=True)
    with cache_locked():
        for each in folder.iterdir():
            if not Path(f"/proc/{each.name.partition('-')[0]}").exists():
                removed(each)
