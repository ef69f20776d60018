"""Owners and groups of files: names into numbers, and whether this process may give a file to them."""

import grp
import os
import pwd
from pathlib import Path

_CAP_CHOWN = 0  # its bit, linux/capability.h

KEEP = -1
"""Leaves the owner or group as it is."""


class OwnerRefused(ValueError):
    """No such owner here, or it may not be set; the message names the mend."""


def resolve(owner: str | None, group: str | None, volume_group: int = KEEP) -> tuple[int, int]:
    """Return the numbers of an owner and a group, each given by name or number or not at all (then KEEP).

    Raises:
        OwnerRefused: one is unknown, or this process may not give files to it (`volume_group` is what they get by themselves).

    """
    uid, gid = _uid(owner), _gid(group)
    if uid not in (KEEP, os.geteuid()) and not _may_chown():
        raise OwnerRefused(f"owner {owner!r} {_REFUSED.format(uid=os.geteuid(), option='owner')}")
    if gid not in (KEEP, volume_group, os.getegid(), *os.getgroups()) and not _may_chown():
        raise OwnerRefused(f"group {group!r} {_REFUSED.format(uid=os.geteuid(), option='group')}")
    return uid, gid


_REFUSED = (
    "may not be set by uid {uid} without the capability CHOWN (`drop: [ALL]` takes it): "
    "leave `{option}` out and share the files by the volume's group (`fsGroup`), or run as that user"
)


def _uid(owner: str | None) -> int:
    if owner is None or owner.isdecimal():
        return KEEP if owner is None else int(owner)
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise OwnerRefused(f"owner {owner!r} is unknown in this container: write its number") from None


def _gid(group: str | None) -> int:
    if group is None or group.isdecimal():
        return KEEP if group is None else int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise OwnerRefused(f"group {group!r} is unknown in this container: write its number") from None


def _may_chown() -> bool:
    """Return whether CHOWN is effective; UID 0 alone says nothing in a container that dropped it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_CHOWN & 1)
