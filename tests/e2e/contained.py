"""Becomes a container of a `SmallPod`: mounts what it mounts, takes its user and capabilities, and executes its program."""

import json
import os
import subprocess
import sys
from pathlib import Path


def main():
    spec = json.loads(sys.argv[1])
    if spec["group"]:
        Path(spec["group"], "cgroup.procs").write_text(str(os.getpid()))
    if spec["own_processes"]:
        mount("-t", "proc", "proc", "/proc")
    for source, point, read_only in spec["mounts"]:
        mount("--bind", source, point)
        if read_only:
            mount("-o", "remount,bind,ro", point)
    for place in spec["writable"]:
        mount("--bind", place, place)
    for place in spec["hidden"]:
        subprocess.run(["umount", "--lazy", place], check=True)
    if spec["read_only_root"]:
        mount("-o", "remount,bind,ro", "/")
    command = [*spec["become"], *spec["command"]]
    os.execvpe(command[0], command, spec["env"])


def mount(*words):
    subprocess.run(["mount", *words], check=True)


if __name__ == "__main__":
    main()
