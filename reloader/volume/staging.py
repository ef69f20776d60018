"""Writes a whole set into a directory of its own."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from reloader.fileset import Rendered, RenderedFile
from reloader.plan import File
from reloader.volume import layout
from reloader.volume.errors import VolumeError
from reloader.volume.owners import KEEP, OwnerRefused, resolve
from reloader.world.disk import Disk

AT_ONCE = 64
"""How many files are made before the first of them is waited for: a disk writes many sooner than one after the other."""


def write_set(root: Path, rendered: Rendered, dir_mode: int, disk: Disk) -> None:
    """Make `root` and everything in it, with its modes and owners, and sync it; the group is that of the volume around it.

    That `root` is there at all is synced together with the link that leads to it: both are names in one directory.

    Raises:
        VolumeError: an owner may not be set.
        OSError: it is not written, or not all of it.

    """
    group = root.parent.stat().st_gid
    folders = [root, *(root / folder for folder in layout.folders(rendered))]
    for folder in folders:
        disk.make_directory(folder, dir_mode, group)
    group = root.stat(follow_symlinks=False).st_gid
    owners = resolve_all(rendered, group)
    files = list(rendered.items())
    for begin in range(0, len(files), AT_ONCE):
        with ExitStack() as opened:
            made = []
            for name, file in files[begin : begin + AT_ONCE]:
                uid, gid = owners[file.owner, file.group]
                descriptor = disk.make_file(root / name, file.data, file.mode, uid, group if gid == KEEP else gid)
                opened.callback(os.close, descriptor)
                made.append((root / name, descriptor))
            for path, descriptor in made:
                disk.sync_file(path, descriptor)
    for folder in reversed(folders):
        disk.sync_directory(folder)


def resolve_all(files: Mapping[str, RenderedFile] | Mapping[str, File], group: int) -> dict[tuple[str | None, str | None], tuple[int, int]]:
    """Return the numbers of each owner and group that the files name.

    Raises:
        VolumeError: one may not be set, and by which file.

    """
    owners: dict[tuple[str | None, str | None], tuple[int, int]] = {}
    for name, file in files.items():
        try:
            if (file.owner, file.group) not in owners:
                owners[file.owner, file.group] = resolve(file.owner, file.group, group)
        except OwnerRefused as refused:
            raise VolumeError("stage", f"{name}: {refused}") from None
    return owners
