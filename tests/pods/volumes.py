"""The volumes of a Pod as the kubelet makes them, in a folder of this machine."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.kubelet import KubeletVolume

_EVERYONE, _GROUP = 0o777, 0o2775


class Volumes:
    """Below `folder`, which is gone after `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        self._maps: dict[str, KubeletVolume] = {}

    def empty(self, name: str, empty: Mapping[str, Any], group: int | None) -> Path:
        """Make an emptyDir; what belongs to a group passes that on to what is made in it."""
        place = self._made(name)
        if empty.get("medium") == "Memory":
            size = f"size={empty['sizeLimit'].removesuffix('i')}" if "sizeLimit" in empty else "size=50%"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", place], check=True)
        os.chown(place, 0, group or 0)
        place.chmod(_EVERYONE if group is None else _GROUP)
        return place

    def config_map(self, name: str, data: Mapping[str, str]) -> Path:
        """Make the volume of a ConfigMap."""
        self._maps[name] = KubeletVolume(self._made(name))
        self._maps[name].swap(data)
        return self._maps[name].path

    def swap(self, name: str, data: Mapping[str, str]) -> float:
        """Update a ConfigMap, and return when that was shown, see `KubeletVolume.swap`."""
        return self._maps[name].swap(data)

    def close(self) -> None:
        """Unmount and remove all of them."""
        removed(self._folder)

    def _made(self, name: str) -> Path:
        place = self._folder / name
        place.mkdir()
        return place


def removed(folder: Path) -> None:
    """Unmount what is mounted right in a folder, and remove it."""
    for place in filter(os.path.ismount, folder.iterdir()):
        subprocess.run(["umount", place], check=True)
    shutil.rmtree(folder)
