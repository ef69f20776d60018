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
# A shell is the first process, since the orphans of containers become its children, and dockerd waits for its own alone.
_FIRST = '"$@"; exit'
# It writes to /run, and has no option for its key in /etc/docker, nor for /opt/containerd.
_PRIVATE = """
ip link set lo up
mount -t tmpfs tmpfs /run
for place in etc opt; do
  mkdir -p "/run/over/$place" "/run/scratch/$place"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=/run/over/$place,workdir=/run/scratch/$place" "/$place"
done
"""


def main() -> None:
    folder, group, *command = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    subprocess.run(["sh", "-ec", _PRIVATE], check=True)
    engine = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", _FIRST, "bash", *command])
    try:
        sys.exit(engine.wait())
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        engine.kill()
        engine.wait()
        remove(Path(folder), group)


def remove(folder: Path, group: str, within: float = 60) -> None:
    """Remove the control groups as soon as the last process has left them (give up `within` seconds), and then the files."""
    deadline = time.monotonic() + within
    while (left := groups(group)) and time.monotonic() < deadline:
        for each in left:
            with contextlib.suppress(OSError):  # busy yet, or gone with another one
                each.rmdir()
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def groups(name: str) -> list[Path]:
    """Return the control groups of that name, each after those in it, wherever this machine has its controllers."""
    tops = [*_CONTROL_GROUPS.glob(name), *_CONTROL_GROUPS.glob(f"*/{name}")]
    return [Path(inner) for top in tops for inner, _, _ in os.walk(top, topdown=False)]


if __name__ == "__main__":
    main()
