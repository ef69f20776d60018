"""Who else has the volume: whether the target sees it whole, whether another reloader holds it, and where secrets come to lie."""

import os
from collections.abc import Iterator
from pathlib import Path

from reloader.doctor.checks import Check, each, failed, ok, skipped, warning
from reloader.doctor.finding import Evidence, Finding, Mend
from reloader.doctor.mends import TARGET, by_place, command, compose, configuration, ours, targets, volume_name, words
from reloader.doctor.patient import Patient
from reloader.doctor.place import Mount, covering
from reloader.doctor.target import processes_of
from reloader.doctor.volumes import mount_of
from reloader.plan import Pipeline, Volume
from reloader.state import record_home, state_directory
from reloader.targets._find import described
from reloader.volume import layout, owners
from reloader.world.processes import Process

_SECRET_KINDS = ("vault",)
_DELETED = "//deleted"
"""What the kernel adds to the root of a mount whose file was replaced."""


def _target(patient: Patient) -> Iterator[Finding]:
    found = [(pipeline, volume, process) for pipeline, volume in patient.volumes() for process in processes_of(patient, pipeline)]
    return each((_seen_by(patient, *one) for one in found), "no target process was found that reads a volume")


def _seen_by(patient: Patient, pipeline: Pipeline, volume: Volume, process: Process) -> Finding:
    ours_, path = mount_of(patient, Path(volume.path).absolute()), volume.target_path or str(Path(volume.path).absolute())
    theirs = patient.machine.mounts(process.pid)
    if ours_ is None or not theirs:
        return skipped(
            f"/proc/{process.pid}/mountinfo may not be read, so what {described(process)} has mounted is not known", pipeline.name
        )
    inside = ours_.inside(os.path.realpath(volume.path))
    there = covering(theirs, path)
    seen = [Evidence("/proc/self/mountinfo", ours_.line)]
    parts = [mount for mount in theirs if mount.device == ours_.device and _is_part(_root(mount), inside)]
    if there is not None and (there.device, there.inside(path)) == (ours_.device, inside):
        seen.append(Evidence(f"/proc/{process.pid}/mountinfo", there.line))
        return _same(pipeline, process, seen, [mount for mount in parts if mount.point.startswith(f"{path}/")])
    seen += [Evidence(f"/proc/{process.pid}/mountinfo", mount.line) for mount in parts or ([there] if there else [])]
    mends = _mounted_there(patient, pipeline, volume, path)
    if parts and volume.in_place and {_root(mount) for mount in parts} >= {f"{inside.rstrip('/')}/{name}" for name in volume.files}:
        return ok(f"{described(process)} has each file by itself, and each is written in place", pipeline.name, evidence=seen)
    if parts:
        listed = ", ".join(f"{mount.point} is {_root(mount)} of it" for mount in parts)
        told = f"{described(process)} has only parts of the volume (subPath: {listed}), which no publish reaches"
        return failed(told, pipeline.name, evidence=seen, mends=[*mends, *_in_place(patient, pipeline)])
    return failed(f"{described(process)} does not have the volume at {path}", pipeline.name, evidence=seen, mends=mends)


def _same(pipeline: Pipeline, process: Process, seen: list[Evidence], parts: list[Mount]) -> Finding:
    root = f"/proc/{process.pid}/root"
    try:
        Path(root, ".").stat()
        seen.append(Evidence(root, "may be read"))
    except OSError as error:
        seen.append(Evidence(root, f"{error.strerror}, so this is by the mounts alone"))
    if parts:
        told = f"{described(process)} has the volume, and single files of it again by subPath: {', '.join(mount.point for mount in parts)}"
        evidence = [*seen, *(Evidence(f"/proc/{process.pid}/mountinfo", mount.line) for mount in parts)]
        return warning(told, pipeline.name, evidence=evidence, mends=[words("Remove the mounts with subPath.")])
    return ok(f"{described(process)} has the same volume", pipeline.name, evidence=seen)


def _root(mount: Mount) -> str:
    return mount.root.removesuffix(_DELETED)


def _is_part(root: str, inside: str) -> bool:
    return root != inside and root.startswith(inside.rstrip("/") + "/")


def _mounted_there(patient: Patient, pipeline: Pipeline, volume: Volume, path: str) -> Iterator[Mend]:
    name = volume_name(patient, volume.path)
    yield from by_place(
        patient,
        pod=targets(patient, pipeline, {"volumeMounts": [{"name": name, "mountPath": path, "readOnly": True}]}),
        compose=compose({"volumes": [f"{name}:{path}:ro"]}, TARGET),
        host=configuration(patient, pipeline, {"volume": {"target_path": volume.path}}),
    )


def _in_place(patient: Patient, pipeline: Pipeline) -> Iterator[Mend]:
    yield configuration(patient, pipeline, {"volume": {"in_place": True}})


def _memory(patient: Patient) -> Iterator[Finding]:
    return each((_memory_one(patient, pipeline, volume) for pipeline, volume in patient.volumes()), "no pipeline has a volume")


def _memory_one(patient: Patient, pipeline: Pipeline, volume: Volume) -> Finding:
    path, secret = Path(volume.path).absolute(), [name for name, source in pipeline.sources.items() if source.kind in _SECRET_KINDS]
    mount = mount_of(patient, path)
    if mount is None or mount.is_in_memory or not secret:
        return ok(f"{path} is in memory" if mount and mount.is_in_memory else "no source is a secret", pipeline.name)
    name = volume_name(patient, str(path))
    mends = by_place(
        patient,
        pod=ours(patient, {}, volumes=[{"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]),
        compose=compose({}, volumes={name: {"driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": "mode=0777"}}}),
        host=configuration(patient, pipeline, {"volume": {"path": f"/dev/shm/{pipeline.name}"}}),  # noqa: S108 - shown, not used
    )
    told = f"{path} is on a disk ({mount.kind}), and {', '.join(secret)} of it {'is' if len(secret) == 1 else 'are'} secret"
    return warning(told, pipeline.name, evidence=[Evidence("/proc/self/mountinfo", mount.line)], mends=mends)


def _lock(patient: Patient) -> Iterator[Finding]:
    homes = [(pipeline, home) for pipeline in patient.plan.pipelines if (home := _home(patient, pipeline)) is not None]
    return each((_lock_one(patient, pipeline, home) for pipeline, home in homes), "no pipeline keeps a record")


def _home(patient: Patient, pipeline: Pipeline) -> Path | None:
    if pipeline.volume is not None:
        return Path(pipeline.volume.path).absolute() / layout.HOME
    state = state_directory(patient.plan.state)
    return record_home(state, pipeline.name) if state else None


def _lock_one(patient: Patient, pipeline: Pipeline, home: Path) -> Finding:
    """Look who has the lock without ever taking it: a reloader that starts at that moment would leave."""
    lock = home / "lock"
    try:
        found = lock.stat()
    except OSError:
        return ok("nobody has taken it yet", pipeline.name)
    held = _holders(patient, found)
    note = Evidence(str(lock), _note(lock))
    if not held:
        return ok("nobody holds it now that can be seen", pipeline.name, evidence=[note])
    pid, line = held[0]
    seen = [note, Evidence("/proc/locks", line)]
    if _is_our_own(patient, pid):
        return ok(f"the reloader that runs here (pid {pid}) holds it: it is alive", pipeline.name, evidence=seen)
    told = f"another reloader (pid {pid}) holds {home.parent}, so this one leaves with status 3"
    apart = {"volume": {"path": f"{pipeline.volume.path}-{pipeline.name}"}} if pipeline.volume else {"name": f"{pipeline.name}-2"}
    mends = [configuration(patient, pipeline, apart)]
    if patient.machine.beside(pid):
        mends.insert(0, command(f"kill {pid}", "a shell in this container"))
    return failed(told, pipeline.name, evidence=seen, mends=[*mends, words("Or remove the other one.")])


def _holders(patient: Patient, lock: os.stat_result) -> list[tuple[int, str]]:
    """Return who holds a lock by flock(2), as proc(5) tells of those who can be seen."""
    file = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    lines = [line.split() for line in (patient.machine.text("/proc/locks") or "").splitlines()]
    return [(int(line[4]), " ".join(line)) for line in lines if line[1] == "FLOCK" and line[5] == file]


def _is_our_own(patient: Patient, pid: int) -> bool:
    """Return whether that is a reloader of this container which was given the same files, as far as that can be seen."""
    holder = next((process for process in patient.siblings() if process.pid == pid), None)
    if holder is None:
        return False
    try:
        home = patient.machine.root / f"proc/{pid}/cwd"
        given = {(home / word).resolve() for word in holder.argv if word.endswith((".yaml", ".yml"))}
    except OSError:
        given = set()
    files = {file.resolve() for file in patient.files.values()}
    return not given or not files or bool(given & files)


def _note(lock: Path) -> str:
    try:
        return lock.read_text(encoding="utf-8", errors="replace").strip() or "says nothing"
    except OSError as error:
        return str(error.strerror)


def _owners(patient: Patient) -> Iterator[Finding]:
    found = ((pipeline, volume, name) for pipeline, volume in patient.volumes() for name in volume.files)
    given = [one for one in found if (one[1].files[one[2]].owner, one[1].files[one[2]].group) != (None, None)]
    return each((_owner_one(patient, *one) for one in given), "no file has an owner or a group of its own")


def _owner_one(patient: Patient, pipeline: Pipeline, volume: Volume, name: str) -> Finding:
    file, path = volume.files[name], Path(volume.path).absolute()
    about = f"{pipeline.name}: {name}"
    try:
        owners.resolve(file.owner, file.group, path.stat().st_gid if path.is_dir() else owners.KEEP)
    except owners.OwnerRefused as refused:
        open_ = {key: None for key in ("owner", "group") if getattr(file, key) is not None}
        mends = [configuration(patient, pipeline, {"volume": {"files": {name: open_}}})]
        security = {"runAsUser": 0, "runAsNonRoot": False, "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "KILL"]}}
        mends += by_place(patient, pod=ours(patient, {"securityContext": security}))
        effective = patient.machine.status().get("CapEff", "?")
        return failed(str(refused), about, evidence=[Evidence("/proc/self/status", f"CapEff {effective}")], mends=mends)
    return ok("may be set", about)


CHECKS = (
    Check("volume.target", "the target has the same volume, and not by subPath", _target),
    Check("volume.memory", "a volume with secrets is in memory", _memory),
    Check("volume.lock", "no other reloader holds it", _lock),
    Check("volume.owners", "owners and groups of files may be set", _owners),
)
