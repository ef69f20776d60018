"""Images built and run by podman, with a store of its own and a base made here, since no image is pulled."""

import json
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.servers import UnavailableError
from tests.servers.debian import cache, cache_locked, mirror, run

_NEEDED = ("podman", "runc", "debootstrap")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Where the limits of processes and files may not be raised, podman's own defaults keep a container from starting; and its other runtime,
# crun, refuses a machine whose controllers are partly in cgroup v1 and partly in v2.
_ENGINE = """
[engine]
runtime = "runc"
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
"""


class Podman:
    """podman with its images and containers below `folder`; `close` takes them away."""

    def __init__(self, folder: Path) -> None:
        if os.getuid() != 0:
            raise UnavailableError("a base image is made by debootstrap, which needs root")
        if lacking := [name for name in _NEEDED if not shutil.which(name)]:
            raise UnavailableError(f"this machine has no {', '.join(lacking)}")
        self._store = folder / "store"
        engine, storage = folder / "containers.conf", folder / "storage.conf"
        engine.write_text(_ENGINE)
        storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{self._store}"\nrunroot = "{folder / "run"}"\n')
        self._env = {**os.environ, "CONTAINERS_CONF": str(engine), "CONTAINERS_STORAGE_CONF": str(storage)}

    def __call__(self, *words: str | Path) -> str:
        """Run `podman WORDS` and return what it printed; AssertionError with what it complained of if it failed."""
        done = subprocess.run(["podman", *map(str, words)], env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"podman {' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def build(self, folder: Path, name: str) -> None:
        """Build the Dockerfile in `folder` on a Debian base with Python, the host's registries and authorities being the container's."""
        self("import", "--change=CMD python3", f"--change=ENV PATH={_PATH}", _base(), "base")
        trusted = f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro"
        self("build", "--pull=never", "--network=host", trusted, "--build-arg=BASE=base", f"--tag={name}", folder)

    def config(self, image: str) -> dict[str, Any]:
        """Return what the image says about how it is run."""
        [image_facts] = json.loads(self("image", "inspect", image))
        return dict(image_facts["Config"])

    def close(self) -> None:
        """Remove every container and image, and let go of the store."""
        self("rm", "--all", "--force", "--time=0")
        self("image", "rm", "--all", "--force")
        subprocess.run(["umount", str(self._store / "overlay")], check=False, capture_output=True)


def _base() -> Path:
    """Return an archive of a small Debian with Python 3.13, made once and kept."""
    archive = cache() / f"trixie-python-{platform.machine()}.tar"
    with cache_locked():
        if not archive.exists():
            _make_base(archive)
    return archive


def _make_base(archive: Path) -> None:
    packages = "python3,python3-venv,ca-certificates"
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="..base-") as work:
        root, staged = Path(work) / "root", Path(work) / "base.tar"
        run("debootstrap", "--variant=minbase", f"--include={packages}", "trixie", str(root), mirror(), timeout=600)
        (root / "usr/bin/python").symlink_to("python3")
        run(
            "tar", "-C", str(root), "--exclude=./dev/*", "--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/*", "-cf", str(staged), "."
        )
        staged.rename(archive)
