"""Writes a whole set into a directory of its own."""

from collections.abc import Mapping
from pathlib import Path

from reloader.fileset import Rendered, RenderedFile
from reloader.plan import File
from reloader.volume import layout
from reloader.volume.errors import VolumeError
from reloader.volume.owners import KEEP, OwnerRefused, resolve
from reloader.world.disk import Disk


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
    for name, file in rendered.items():
        uid, gid = owners[file.owner, file.group]
        disk.write_file(root / name, file.data, file.mode, uid, group if gid == KEEP else gid)
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
