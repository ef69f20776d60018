"""Runs dockerd in namespaces of its own, and takes away what they do not: the program that the tests start in its place.

Mounts, networks with their rules, and processes are gone with the namespaces, however they end. Control groups and files are not; they go
here, also when the test that started this is killed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
# What runs in there is never the first process, which dockerd would have to be a parent for orphans as; one that was told to end starts again,
# as after a reboot.
_FOREVER = 'while "$@"; do :; done'
_PRIVATE = """
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir /run/etc /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work /etc
"""


def main() -> None:
    folder, group, *command = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    subprocess.run(["sh", "-ec", _PRIVATE], check=True)
    engine = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "bash", "-c", _FOREVER, "dockerd", *command]
    )
    try:
        sys.exit(engine.wait())
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        engine.kill()
        engine.wait()
        remove(Path(folder), group)


def remove(folder: Path, group: str, within: float = 60) -> None:
    """Remove the control groups as soon as the last process has left them, and then the files."""
    deadline = time.monotonic() + within
    while (left := _groups(group)) and time.monotonic() < deadline:
        for each in left:
            with contextlib.suppress(OSError):  # busy yet, or gone with another one
                each.rmdir()
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _groups(name: str) -> list[Path]:
    """Return the groups of that name, each after those in it, wherever this machine has its controllers."""
    tops = [*_CONTROL_GROUPS.glob(name), *_CONTROL_GROUPS.glob(f"*/{name}")]
    return [Path(inner) for top in tops for inner, _, _ in os.walk(top, topdown=False)]


if __name__ == "__main__":
    main()
