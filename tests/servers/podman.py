"""Images built and run by podman: a store of its own, a base made here, since no image is pulled, and what was built is built once.

The store is kept in the cache of the tests, so that a build repeats only the steps whose input changed.
"""

import fcntl
import hashlib
import inspect
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers import UnavailableError
from tests.servers.debian import cache, cache_locked, mirror, run

ROOT = Path(__file__).parents[2]
_OWNER = "config-reloader.tests"
"""The label of a container, and of a Pod, that has the process that ran it."""
_KUBERNETES = ROOT / "tests/pods/runtime.py"
_NEEDED = ("podman", "runc", "debootstrap")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Where the limits of processes and files may not be raised, podman's own defaults keep a container from starting; and its other runtime,
# crun, refuses a machine whose controllers are partly in cgroup v1 and partly in v2. Short names are images of this machine. The other
# runtime is for Pods; everyone knows it who has this store, or nobody else could remove them.
_ENGINE = """
[engine]
runtime = "runc"
compat_api_enforce_docker_hub = false
infra_image = "{pause}"
[engine.runtimes]
kubernetes = ["{kubernetes}"]
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
"""
_NGINX = """
FROM {base}
RUN groupadd --system --gid 101 nginx && useradd --system --uid 101 --gid 101 --no-create-home nginx \
 && apt-get update && apt-get install --yes --no-install-recommends nginx-light curl && rm -rf /var/lib/apt/lists/*
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
"""
# As Kubernetes' own, by that name and user: it waits, and what is left to it of other containers is gone when it ends.
_PAUSE = """
FROM {base}
USER 65535:65535
ENTRYPOINT ["env", "--argv0=/pause", "--ignore-signal=CHLD", "sleep", "infinity"]
"""
_PAUSE_NAME = "localhost/pause:tests"


class Podman:
    """podman with a store below `folder`, that several test processes share; `close` ends the containers of this one.

    Raises:
        UnavailableError: this machine cannot run it.

    """

    def __init__(self, folder: Path) -> None:
        if os.getuid() != 0:
            raise UnavailableError("a base image is made by debootstrap, which needs root")
        if lacking := [name for name in _NEEDED if not shutil.which(name)]:
            raise UnavailableError(f"this machine has no {', '.join(lacking)}")
        run("unshare", "--mount", "true")  # which root may not do in a container without rights of its own
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        engine, storage = folder / "containers.conf", folder / "storage.conf"
        kubernetes = folder / "kubernetes-runtime"
        _written(kubernetes, _KUBERNETES.read_text(), 0o755)
        _written(engine, _ENGINE.format(pause=_PAUSE_NAME, kubernetes=kubernetes))
        _written(storage, f'[storage]\ndriver = "overlay"\ngraphroot = "{folder / "store"}"\nrunroot = "{folder / "run"}"\n')
        self.env = {**os.environ, "CONTAINERS_CONF": str(engine), "CONTAINERS_STORAGE_CONF": str(storage)}
        self._remove(lambda process: not Path(f"/proc/{process}").exists())  # of tests that were killed

    @property
    def mark(self) -> dict[str, str]:
        """The label of what ends with `close` at the latest, or with the next test process, if this one is killed."""
        return {_OWNER: str(os.getpid())}

    def __call__(self, *words: str | Path) -> str:
        """Run `podman WORDS` and return what it printed; AssertionError with what it complained of if it failed."""
        done = self.tried(*words)
        assert done.returncode == 0, f"podman {' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def tried(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `podman WORDS`, which may fail."""
        return subprocess.run(["podman", *map(str, words)], env=self.env, capture_output=True, text=True, check=False)

    def run(self, *words: str | Path) -> str:
        """Run `podman run WORDS` without a network, as a container that ends with `close` at the latest."""
        return self("run", f"--label={_OWNER}={os.getpid()}", "--network=none", *words)

    def base(self) -> str:
        """Return the name of a small Debian with Python, trusting what this machine trusts.

        Raises:
            UnavailableError: it cannot be had.

        """
        archive = _base()
        name = f"localhost/python-base:{archive.stem}"
        with self._locked():
            return self._based(archive, name)

    def build(self, folder: Path, repository: str, *options: str) -> str:
        """Build the Dockerfile in `folder`, with `BASE` being the base, and return the name of the image, which says what is in it."""
        base = self.base()
        with self._locked():
            image = self(
                "build", "--quiet", "--layers", "--pull=never", "--network=host", f"--build-arg=BASE={base}", *options, folder
            ).splitlines()[-1]
            name = f"localhost/{repository}:{image[:12]}"
            self("tag", image, name)
        return name

    def reloader(self) -> str:
        """Build the image of the repository and return its name."""
        return self.build(ROOT, "reloader")

    def nginx(self) -> str:
        """Return the name of an image with Debian's NGINX, whose user is 101, and with curl, as the official one has them."""
        return self._written_out(_NGINX, "nginx")

    def pause(self) -> None:
        """Have the image of what holds the namespaces of a Pod."""
        self("tag", self._written_out(_PAUSE, "pause"), _PAUSE_NAME)

    def _written_out(self, text: str, repository: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "Dockerfile").write_text(text.format(base=self.base()))
            return self.build(Path(folder), repository)

    def facts(self, image: str) -> dict[str, Any]:
        """Return what is known of an image."""
        [facts] = json.loads(self("image", "inspect", image))
        return dict(facts)

    def close(self) -> None:
        """End the containers and Pods that this process ran, and let go of the store unless another one uses it."""
        self._remove(lambda process: process == str(os.getpid()))
        subprocess.run(["umount", str(self._folder / "store/overlay")], check=False, capture_output=True)

    def _remove(self, wanted: Callable[[str], bool]) -> None:
        """End the containers and Pods of test processes that are `wanted`."""
        for pod in json.loads(self("pod", "ps", "--format=json", f"--filter=label={_OWNER}")):
            if wanted(pod["Labels"][_OWNER]):
                self.tried("pod", "rm", "--force", "--time=0", pod["Id"])
        for container in json.loads(self("ps", "--all", "--format=json", f"--filter=label={_OWNER}")):
            if wanted(container["Labels"][_OWNER]):
                self.tried("rm", "--force", "--time=0", container["Id"])

    def _based(self, archive: Path, name: str) -> str:
        """Import the base where it is not there yet; what nobody used for two days goes, before it could be asked for again."""
        self("image", "prune", "--all", "--force", "--filter=until=48h")
        if self.tried("image", "exists", name).returncode:
            self("import", "--change=CMD python3", f"--change=ENV PATH={_PATH}", "--change=ENV LANG=C.UTF-8", archive, name)
        return name

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _written(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file at once, since a podman of another process may read it just now."""
    staged = path.with_suffix(f".{os.getpid()}")
    staged.write_text(text)
    staged.chmod(mode)
    staged.rename(path)


def _base() -> Path:
    """Return an archive of a small Debian with Python 3.13, made once and kept."""
    archive = cache() / f"trixie-python-{platform.machine()}-{_recipe()}.tar"
    with cache_locked():
        if not archive.exists():
            _make_base(archive)
    return archive


def _recipe() -> str:
    """Return what changes with the way the base is made, or with what this machine trusts."""
    return hashlib.sha256(inspect.getsource(_make_base).encode() + _CERTIFICATES.read_bytes()).hexdigest()[:8]


def _make_base(archive: Path) -> None:
    packages = "python3,python3-venv,ca-certificates"
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="..base-") as work:
        root, staged = Path(work) / "root", Path(work) / "base.tar"
        run("debootstrap", "--variant=minbase", f"--include={packages}", "trixie", str(root), mirror(), timeout=600)
        (root / "usr/bin/python").symlink_to("python3")
        shutil.copy(_CERTIFICATES, root / "etc/ssl/certs/ca-certificates.crt")
        for bytecode in [*root.glob("usr/lib/python3*/**/__pycache__")]:
            shutil.rmtree(bytecode)  # as the official images have none
        left_out = ("./dev/*", "./var/cache/apt/*", "./var/lib/apt/*", "./usr/share/doc/*", "./usr/share/man/*", "./usr/share/locale/*")
        run("tar", "-C", str(root), *(f"--exclude={path}" for path in left_out), "-cf", str(staged), ".")
        staged.rename(archive)
