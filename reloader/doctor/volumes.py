"""Whether the shared volume is there, takes a set, and is one volume for us and for the target."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from reloader.doctor.checks import Check, each, failed, ok, skipped, warning
from reloader.doctor.finding import Evidence, Finding, Mend
from reloader.doctor.mends import both, by_place, command, compose, ours, pod, volume_name, words
from reloader.doctor.patient import Patient
from reloader.doctor.place import Mount, Place, covering
from reloader.doctor.room import mebibytes, room, try_to_write
from reloader.plan import Pipeline, Volume
from reloader.volume import errors, layout

LEAST_SET = 64 * 2**10
"""How many bytes a set needs at least, where none is published yet."""
KEPT_BESIDE = 3
"""Generations beside those of `volume.keep`: the published one, the confirmed one, and one that is being staged."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def _paths(patient: Patient) -> Iterator[tuple[Pipeline, Volume, Path]]:
    return ((pipeline, volume, Path(volume.path).absolute()) for pipeline, volume in patient.volumes())


def mount_of(patient: Patient, path: Path) -> Mount | None:
    """Return the mount that a path of ours is on, whether the path is there or not."""
    return covering(patient.machine.mounts(), os.path.realpath(path))


def _mounted(patient: Patient) -> Iterator[Finding]:
    if patient.place is Place.HOST:
        yield skipped("this is a host, where a directory needs no mount of its own")
        return
    yield from each((_mounted_one(patient, pipeline, path) for pipeline, _, path in _paths(patient)), "no pipeline has a volume")


def _mounted_one(patient: Patient, pipeline: Pipeline, path: Path) -> Finding:
    mount = mount_of(patient, path)
    seen = [Evidence("/proc/self/mountinfo", mount.line if mount else "cannot be read")]
    if mount is None or mount.point != "/":
        return ok(f"{path} is on a mount of its own", pipeline.name, evidence=seen)
    told = f"{path} is on no volume but on this container's own file system, where no other container sees it"
    return failed(told, pipeline.name, evidence=seen, mends=shared(patient, pipeline, str(path)))


def shared(patient: Patient, pipeline: Pipeline, path: str, size: str = "16Mi") -> Iterator[Mend]:
    """Yield how a volume is shared between the reloader and the target."""
    name, volume = volume_name(patient, path), pipeline.volume
    there = (volume.target_path if volume else None) or path
    yield from by_place(
        patient,
        pod=both(
            patient,
            pipeline,
            {"volumeMounts": [{"name": name, "mountPath": path}]},
            {"volumeMounts": [{"name": name, "mountPath": there, "readOnly": True}]},
            volumes=[{"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}}],
        ),
        compose=compose({"volumes": [f"{name}:{path}"]}, volumes={name: None}),
    )


def _usable(patient: Patient) -> Iterator[Finding]:
    return each((_usable_one(patient, pipeline, volume, path) for pipeline, volume, path in _paths(patient)), "no pipeline has a volume")


def _usable_one(patient: Patient, pipeline: Pipeline, volume: Volume, path: Path) -> Finding:
    there = next(each for each in (path, *path.parents) if each.exists())
    size = largest_set(path) + LEAST_SET
    problem = try_to_write(there, size)
    mount = mount_of(patient, path)
    seen = [
        _owned(there),
        *([Evidence("/proc/self/mountinfo", mount.line)] if mount else []),
        Evidence(f"statvfs({there})", str(room(there))),
    ]
    if problem is not None:
        seen = [Evidence(str(there), f"a file of {mebibytes(size)} cannot be made: {problem.strerror}"), *seen]
        return failed(errors.explain(problem, there), pipeline.name, evidence=seen, mends=_mends_of(patient, pipeline, path, problem, size))
    try:
        layout.refuse_foreign_data(path)
    except (errors.VolumeError, OSError) as foreign:
        return failed(str(foreign), pipeline.name, evidence=seen, mends=[words("See that nothing else writes there.")])
    if (home := _home_of_another(path)) is not None:
        told = f"{home} was made by uid {home.stat().st_uid}, and this is uid {os.geteuid()}"
        return failed(told, pipeline.name, evidence=seen, mends=_as_user(patient, home.stat().st_uid))
    needed = files_of_set(path) + KEPT_BESIDE
    if room(there).files < needed:
        mends = _mends_of(patient, pipeline, path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), size)
        return failed(f"{path} takes no {needed} files more, as a set needs", pipeline.name, evidence=seen, mends=mends)
    whole = size * (volume.keep + KEPT_BESIDE)
    if room(there).size < whole:
        told = f"{path} has {mebibytes(room(there).size)}; {volume.keep} + {KEPT_BESIDE} sets of this size need {mebibytes(whole)}"
        return warning(told, pipeline.name, evidence=seen, mends=_bigger(patient, path, whole))
    return ok(f"{path} takes files, {room(there)}", pipeline.name, evidence=seen)


def largest_set(path: Path) -> int:
    """Return the bytes of the largest generation that is there; 0 where that cannot be seen."""
    try:
        return max((sum(each.stat().st_size for each in _files(path, number)) for number in layout.generations(path)), default=0)
    except OSError:
        return 0


def files_of_set(path: Path) -> int:
    """Return how many files the largest generation has."""
    try:
        return max((sum(1 for _ in _files(path, number)) for number in layout.generations(path)), default=0)
    except OSError:
        return 0


def _files(path: Path, number: int) -> Iterator[Path]:
    return (each for each in (path / layout.generation_name(number)).rglob("*") if each.is_file() and not each.is_symlink())


def _owned(path: Path) -> Evidence:
    found = path.stat()
    return Evidence(
        f"stat({path})", f"uid {found.st_uid}, gid {found.st_gid}, mode {found.st_mode & 0o7777:04o}; this is uid {os.geteuid()}"
    )


def _home_of_another(path: Path) -> Path | None:
    home = path / layout.HOME
    try:
        return home if home.stat().st_uid != os.geteuid() and not os.access(home, os.R_OK | os.W_OK | os.X_OK) else None
    except OSError:
        return None


def _mends_of(patient: Patient, pipeline: Pipeline, path: Path, problem: OSError, size: int) -> Iterator[Mend]:
    name = volume_name(patient, str(path))
    if problem.errno == errno.EROFS:
        yield from by_place(
            patient,
            pod=ours(patient, {"volumeMounts": [{"name": name, "mountPath": str(path), "readOnly": False}]}),
            compose=compose({"volumes": [f"{name}:{path}:rw"]}),
            host=command(f"mount -o remount,rw {mount.point}" if (mount := mount_of(patient, path)) else "mount -o remount,rw /"),
        )
    elif problem.errno in _NO_ROOM:
        keep = pipeline.volume.keep if pipeline.volume else 0
        yield from _bigger(patient, path, 2 * size * (keep + KEPT_BESIDE))
    elif isinstance(problem, PermissionError):
        yield from _as_group(patient, path)
    else:
        yield from shared(patient, pipeline, str(path))


def _bigger(patient: Patient, path: Path, size: int) -> Iterator[Mend]:
    name, whole = volume_name(patient, str(path)), max(16, -(-size // 2**20))
    options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={whole}m,mode=0777"}
    yield from by_place(
        patient,
        pod=ours(patient, {}, volumes=[{"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": f"{whole}Mi"}}]),
        compose=compose({}, volumes={name: {"driver_opts": options}}),
        host=command(f"mount -o remount,size={whole}m,nr_inodes=0 {mount.point}")
        if (mount := mount_of(patient, path)) and mount.is_in_memory
        else words(f"Make room on the file system of {path}."),
    )


def _as_group(patient: Patient, path: Path) -> Iterator[Mend]:
    there = next(each for each in (path, *path.parents) if each.exists())
    group, user = os.getegid(), there.stat().st_uid
    yield from by_place(
        patient,
        pod=pod(patient, {"securityContext": {"fsGroup": group}}) if group else ours(patient, {"securityContext": {"runAsUser": user}}),
        compose=compose({"user": str(user)}),
        host=command(f"chown {os.geteuid()}:{group} {there}"),
    )


def _as_user(patient: Patient, uid: int) -> Iterator[Mend]:
    yield from by_place(
        patient,
        pod=ours(patient, {"securityContext": {"runAsUser": uid}}),
        compose=compose({"user": str(uid)}),
        host=words(f"Run the reloader as uid {uid}."),
    )


CHECKS = (
    Check("volume.mounted", "the volume is one that others can mount too", _mounted),
    Check("volume.usable", "a set can be written to it: rights, room, files", _usable),
)
