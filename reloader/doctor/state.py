"""Whether `state.path` takes what is kept there, and is the reloader's alone."""

from collections.abc import Iterator
from pathlib import Path

from reloader.doctor.checks import Check, each, failed, ok, skipped
from reloader.doctor.finding import Evidence, Finding, Mend
from reloader.doctor.mends import STATE, by_place, compose, ours, words
from reloader.doctor.patient import Patient
from reloader.doctor.place import Place
from reloader.doctor.room import try_to_write
from reloader.doctor.target import processes_of
from reloader.doctor.volumes import mount_of
from reloader.plan import Pipeline
from reloader.state import state_directory
from reloader.targets._find import described
from reloader.volume import errors
from reloader.world.processes import Process

ROOM = 64 * 2**10
_NONE = "there is no state.path, so leases do not outlive a restart, nor what was confirmed without a volume"


def _usable(patient: Patient) -> Iterator[Finding]:
    path = state_directory(patient.plan.state)
    if path is None:
        yield skipped(_NONE)
        return
    there = next(each for each in (path, *path.parents) if each.exists())
    problem = try_to_write(there, ROOM)
    if problem is None:
        yield ok(f"{path} takes files")
        return
    seen = [Evidence(str(there), f"a file cannot be made: {problem.strerror}")]
    mount = mount_of(patient, path)
    seen += [Evidence("/proc/self/mountinfo", mount.line)] if mount else []
    yield failed(errors.explain(problem, there), evidence=seen, mends=own_volume(patient, path))


def own_volume(patient: Patient, path: Path) -> Iterator[Mend]:
    """Yield how a directory is had that only the reloader has, in memory."""
    yield from by_place(
        patient,
        pod=ours(
            patient,
            {"volumeMounts": [{"name": STATE, "mountPath": str(path), "readOnly": False}]},
            volumes=[{"name": STATE, "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}],
        ),
        compose=compose({"tmpfs": [f"{path}:mode=0700"]}),
        host=words(f"Let the reloader's user write {path}, or point state.path elsewhere."),
    )


def _private(patient: Patient) -> Iterator[Finding]:
    path = state_directory(patient.plan.state)
    if path is None or patient.place is Place.HOST:
        yield skipped(_NONE if path is None else "on a host its mode (0700) keeps others out")
        return
    found = [(pipeline, process) for pipeline in patient.plan.pipelines for process in processes_of(patient, pipeline)]
    yield from each((_private_of(patient, path, *one) for one in found), "no target process was found")


def _private_of(patient: Patient, path: Path, pipeline: Pipeline, process: Process) -> Finding:
    mine = mount_of(patient, path)
    theirs = patient.machine.mounts(process.pid)
    if mine is None or not theirs:
        return skipped(f"/proc/{process.pid}/mountinfo may not be read", pipeline.name)
    inside = mine.inside(str(path))
    also = [mount for mount in theirs if mount.device == mine.device and _holds(mount.root, inside) and mount.point != "/"]
    if not also:
        return ok(f"{described(process)} does not have {path}", pipeline.name)
    seen = [Evidence("/proc/self/mountinfo", mine.line), *(Evidence(f"/proc/{process.pid}/mountinfo", mount.line) for mount in also)]
    told = f"{described(process)} has the volume that state.path is on, at {also[0].point}: it holds the token and the leases"
    return failed(told, pipeline.name, evidence=seen, mends=own_volume(patient, path))


def _holds(root: str, inside: str) -> bool:
    return inside == root or inside.startswith(root.rstrip("/") + "/")


CHECKS = (
    Check("state.usable", "state.path takes files", _usable),
    Check("state.private", "the target does not have state.path", _private),
)
