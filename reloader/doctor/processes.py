"""Which processes can be seen: whether the containers share them, and who else is a reloader."""

import os
from collections.abc import Iterator

from reloader.doctor.checks import Check, failed, ok, skipped, warning
from reloader.doctor.finding import Evidence, Finding
from reloader.doctor.mends import TARGET, by_place, compose, pod, words
from reloader.doctor.patient import Patient
from reloader.doctor.place import SANDBOXES, Place
from reloader.targets._find import described

MANY = 8
"""How many processes are named."""


def _namespace(patient: Patient) -> Iterator[Finding]:
    if patient.place is Place.HOST:
        yield ok("this is a host, whose processes are all seen", evidence=[_counted(patient)])
        return
    if patient.plan.pipelines and not any(pipeline.target.kind == "process" for pipeline in patient.plan.pipelines):
        yield skipped("no pipeline signals a process of another container")
        return
    first = (patient.machine.text("/proc/1/cmdline") or "").split("\0")[0]
    if first in SANDBOXES:
        yield ok("the containers share their processes", evidence=[Evidence("/proc/1/cmdline", f"PID 1 is {first}")])
        return
    foreign = [process for process in patient.processes() if not patient.machine.beside(process.pid)]
    if foreign:
        named = Evidence("/proc", f"in other containers: {', '.join(map(described, foreign[:MANY]))}")
        yield ok("processes of other containers are seen", evidence=[named])
        return
    mends = by_place(patient, pod=pod(patient, {"shareProcessNamespace": True}), compose=compose({"pid": f"service:{TARGET}"}))
    told = "no process of another container is seen, so no target can be found or signalled"
    seen = [Evidence("/proc/1/cmdline", f"PID 1 is {first or 'nothing'}, of this container"), _counted(patient)]
    yield failed(told, evidence=seen, mends=mends)


def _reloaders(patient: Patient) -> Iterator[Finding]:
    """A volume has a lock, so two of one volume are for `volume.lock`; here is who else signals the same processes."""
    siblings, others = patient.siblings(), [each for each in patient.reloaders() if not patient.machine.beside(each.pid)]
    seen = [Evidence(f"/proc/{each.pid}/cmdline", described(each)) for each in (*siblings, *others)]
    if others:
        mends = [words("Leave one reloader for each target: remove the other container, or have each signal another process.")]
        yield warning(f"{len(others)} more of another container: two signal what both find", evidence=seen, mends=mends)
    elif siblings:
        yield ok(f"{len(siblings)} of this container {'runs' if len(siblings) == 1 else 'run'}", evidence=seen)
    else:
        yield skipped("none runs here now")


def _identity(patient: Patient) -> Iterator[Finding]:
    different = [each for each in patient.siblings() if each.uid != os.geteuid()]
    if not patient.siblings():
        yield skipped("no reloader runs in this container")
    elif different and patient.place is not Place.HOST:
        seen = [Evidence(f"/proc/{each.pid}/status", described(each)) for each in different]
        told = f"this doctor is uid {os.geteuid()}, so what it may do says nothing of what the reloader may"
        mends = [words(f"Run the doctor as uid {different[0].uid}, as `kubectl exec` and `docker exec` do by themselves.")]
        yield warning(told, evidence=seen, mends=mends)
    else:
        yield ok(f"the doctor is uid {os.geteuid()}, as the reloader is" if not different else "other users run reloaders too")


def _counted(patient: Patient) -> Evidence:
    return Evidence("/proc", f"{len(patient.processes())} processes are seen")


CHECKS = (
    Check("process.namespace", "processes of the target's container can be seen", _namespace),
    Check("process.reloaders", "no other reloader signals the same processes", _reloaders),
    Check("process.identity", "the doctor is the user that the reloader is", _identity),
)
