"""Programs from Debian's packages, unpacked into a cache of this user: nothing is installed, no service starts, root is not needed.

The mirror is the one that this machine's apt uses. `CONFIG_RELOADER_TEST_CACHE` names another place for the cache.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import UnavailableError

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PLACES = ("usr/sbin", "usr/bin", "sbin", "bin")


@dataclass(frozen=True)
class Program:
    """A program and the environment that it needs to find its own libraries."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)


def program(name: str, package: str, *, suite: str = "") -> Program:
    """Return the program `name` of this machine, else of Debian's `package` in `suite` (without one: the release that runs here).

    Raises:
        UnavailableError: it is not here, and the package cannot be had.

    """
    installed = shutil.which(name, path=os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin", os.environ.get("PATH", ""))))
    if installed:
        return Program(Path(installed))
    root = unpacked(package, suite=suite)
    found = next((root / place / name for place in _PLACES if (root / place / name).exists()), None)
    if found is None:
        raise UnavailableError(f"Debian's package {package} holds no program {name}")
    libraries = [str(folder) for folder in root.glob("**/lib/*-linux-gnu*")]
    return Program(found, {"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {})


def unpacked(package: str, *, suite: str = "") -> Path:
    """Return the folder that `package` is unpacked in, with those packages that it needs and this machine lacks.

    Raises:
        UnavailableError: this machine has no apt, or its mirror does not have the package.

    """
    suite = suite or _os_release().get("VERSION_CODENAME", "stable")
    root = cache() / f"{suite}-{package}-{platform.machine()}"
    with cache_locked():
        if not root.exists():
            _fetch(package, suite, root)
    return root


def cache() -> Path:
    """Return the folder for what is fetched once and kept between test runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("CONFIG_RELOADER_TEST_CACHE") or Path(base) / "config-reloader-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fetch(package: str, suite: str, root: Path) -> None:
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="..fetch-") as work:
        apt = _apt_root(Path(work), suite)
        run(*apt, "update")
        # With the machine's own dpkg status: only what it lacks is fetched.
        run(*apt, "install", "--download-only", "--no-install-recommends", "--yes", package)
        staged = Path(work) / "root"
        for archive in sorted(Path(work).glob("archives/*.deb")):
            run("dpkg", "-x", str(archive), str(staged))
        if not staged.exists():
            raise UnavailableError(f"apt says that {package} is installed, but its program is not here")
        staged.rename(root)


def _apt_root(work: Path, suite: str) -> list[str]:
    """Return `apt-get` with lists, archives and sources of its own below `work`, so that the machine's stay as they are."""
    for folder in ("lists/partial", "archives/partial"):
        (work / folder).mkdir(parents=True)
    signed = f" [signed-by={_KEYRING}]" if _KEYRING.exists() else ""
    (work / "sources.list").write_text(f"deb{signed} {mirror()} {suite} main\n")
    options = {
        "Dir::State::lists": work / "lists",
        "Dir::Cache": work,
        "Dir::Cache::archives": work / "archives",
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": "-",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
        "Acquire::Retries": "3",
    }
    return ["apt-get", "--quiet", *(f"-o{name}={value}" for name, value in options.items())]


def mirror() -> str:
    """Return the address of the mirror that this machine's apt uses for Debian itself.

    Raises:
        UnavailableError: its apt knows none.

    """
    etc = Path("/etc/apt")
    for file in (etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list")), *sorted(etc.glob("sources.list.d/*.sources"))):
        text = file.read_text() if file.exists() else ""
        for line in re.findall(r"^(?:deb |URIs:).*$", text, re.MULTILINE):
            addresses: list[str] = [word.rstrip("/") for word in line.split() if "://" in word and word.rstrip("/").endswith("/debian")]
            if addresses:
                return addresses[0]
    raise UnavailableError("this machine's apt knows no Debian mirror (a source whose address ends in /debian)")


def run(*command: str, timeout: float = 300) -> None:
    """Run a command of the system.

    Raises:
        UnavailableError: it is not here, or it failed.

    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        raise UnavailableError(f"this machine has no {command[0]}") from None
    if done.returncode:
        raise UnavailableError(f"{command[0]} {' '.join(word for word in command[1:] if word[:2] != '-o')}: {done.stderr.strip()[-500:]}")


@contextmanager
def cache_locked() -> Iterator[None]:
    """Keep other test processes from filling the cache with the same at the same time."""
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _os_release() -> dict[str, str]:
    text = Path("/etc/os-release").read_text()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in text.splitlines())}
