"""Whether the target is there, may be signalled, and survives that; nothing is ever sent to it."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from reloader.doctor.checks import Check, each, failed, ok, skipped
from reloader.doctor.finding import Evidence, Finding, Mend
from reloader.doctor.mends import by_place, command, compose, configuration, ours, words
from reloader.doctor.patient import Patient
from reloader.doctor.processes import MANY
from reloader.plan import Pipeline
from reloader.targets import Held, Trouble
from reloader.targets._find import AMBIGUITY_LASTS, Finder, Match, described, name_of
from reloader.world.processes import Process
from reloader.written import signal_name

KILL = 5
"""The bit of CAP_KILL, linux/capability.h."""
_LOOK = 0.1
_USUAL_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
"""The signals that programs take for a reload."""


@dataclass(frozen=True)
class Sighting:
    """Who was found for a pipeline."""

    processes: tuple[Process, ...] = ()
    held: Held | None = None
    """Why it cannot be said who is meant."""


def sighted(patient: Patient, pipeline: Pipeline) -> Sighting:
    """Return the target of a pipeline, whose kind is `process`; several are waited for as long as the sidecar does."""
    return patient.once(("target", pipeline.name), lambda: _sighted(patient, pipeline.target.settings.match))


def processes_of(patient: Patient, pipeline: Pipeline) -> tuple[Process, ...]:
    """Return the processes that are the target; none where that is unknown, or the target is no process."""
    if pipeline.target.kind != "process":
        return ()
    sighting = sighted(patient, pipeline)
    return () if sighting.held else sighting.processes


def _sighted(patient: Patient, match: Match) -> Sighting:
    finder, deadline = Finder(match, patient.outside()), time.monotonic() + 2 * AMBIGUITY_LASTS
    while True:
        try:
            return Sighting(tuple(finder.find_all()) if match.all else (finder.find(),))
        except Held as held:
            if held.trouble is not Trouble.NOT_READY or time.monotonic() > deadline:
                return Sighting(tuple(finder.find_all()) if held.trouble is Trouble.AMBIGUOUS else (), held)
        time.sleep(_LOOK)


def _signalled(patient: Patient) -> Iterator[Pipeline]:
    return (pipeline for pipeline in patient.plan.pipelines if pipeline.target.kind == "process")


def _found(patient: Patient) -> Iterator[Finding]:
    findings = (_found_one(patient, pipeline) for pipeline in _signalled(patient))
    return each(findings, "no pipeline signals a process")


def _found_one(patient: Patient, pipeline: Pipeline) -> Finding:
    sighting = sighted(patient, pipeline)
    if sighting.held is None:
        return ok(f"found {', '.join(map(described, sighting.processes))}", pipeline.name)
    if sighting.processes:
        seen = [Evidence(f"/proc/{process.pid}", described(process)) for process in sighting.processes]
        return failed(str(sighting.held), pipeline.name, evidence=seen, mends=_told_apart(patient, pipeline, sighting.processes))
    return failed(str(sighting.held), pipeline.name, evidence=[_who_is_there(patient)], mends=_meant(patient, pipeline))


def _who_is_there(patient: Patient) -> Evidence:
    names = sorted({process.comm for process in patient.outside().processes.all()})
    return Evidence("/proc", f"there are {', '.join(names[:MANY])}{' and others' if len(names) > MANY else ''}" if names else "nobody else")


def _meant(patient: Patient, pipeline: Pipeline) -> Iterator[Mend]:
    """Yield the match of the process whose name is nearest to the one that is not there."""
    wanted, names = pipeline.target.settings.match.name, {name_of(process) for process in patient.outside().processes.all()}
    for name in get_close_matches(wanted or "", sorted(names), n=1):
        yield configuration(patient, pipeline, {"target": {"match": {"name": name}}})
    yield words("Start the target, or let target.match speak of a process that is there.")


def _told_apart(patient: Patient, pipeline: Pipeline, found: tuple[Process, ...]) -> Iterator[Mend]:
    """Yield a further condition for each that has a user of its own, then that all are meant."""
    uids = [process.uid for process in found]
    for process in found:
        if uids.count(process.uid) == 1:
            yield configuration(patient, pipeline, {"target": {"match": {"uid": process.uid}}})
    yield configuration(patient, pipeline, {"target": {"match": {"all": True}}})


def _permission(patient: Patient) -> Iterator[Finding]:
    found = ((pipeline, process) for pipeline in _signalled(patient) for process in processes_of(patient, pipeline))
    return each((_may_signal(patient, pipeline, process) for pipeline, process in found), "no target was found")


def _may_signal(patient: Patient, pipeline: Pipeline, process: Process) -> Finding:
    status = patient.machine.status()
    seen = [
        _uids_and_capabilities(status),
        Evidence(f"/proc/{process.pid}/status", f"Uid {_field(patient.machine.status(process.pid), 'Uid')}"),
    ]
    try:
        os.kill(process.pid, 0)  # asks whether it may be signalled, and signals nothing, kill(2)
    except ProcessLookupError:
        return skipped(f"{described(process)} has ended meanwhile", pipeline.name)
    except PermissionError:
        seen.append(Evidence(f"kill({process.pid}, 0)", "Operation not permitted"))
        told = f"uid {os.geteuid()} may not signal {described(process)}{_why_not(patient, status)}"
        return failed(told, pipeline.name, evidence=seen, mends=_rights(patient, process))
    return ok(f"uid {os.geteuid()} may signal {described(process)}", pipeline.name, evidence=seen)


def _why_not(patient: Patient, status: Mapping[str, str]) -> str:
    if _has(status, "CapEff", KILL):
        return ": KILL is in effect, so a security module (AppArmor, SELinux) or another user namespace keeps it from that"
    if _has(status, "CapBnd", KILL) and os.geteuid() and patient.is_there:
        return (
            ": KILL is in this container's bounding set (CapBnd) and not in effect (CapEff). "
            "Capabilities that a container adds come into effect for root alone, so `add: [KILL]` does nothing for another user"
        )
    return ": it is another user, and KILL is not in effect (CapEff)"


def _rights(patient: Patient, process: Process) -> Iterator[Mend]:
    dropped = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    same = {"runAsUser": process.uid, "runAsNonRoot": process.uid != 0, **dropped}
    root = {"runAsUser": 0, "runAsNonRoot": False, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], "add": ["KILL"]}}
    yield from by_place(
        patient,
        pod=ours(patient, {"securityContext": same}),
        compose=compose({"user": str(process.uid)}),
        host=command(f"setpriv --reuid={process.uid} --clear-groups reloader run", "what starts the reloader, with its files behind"),
    )
    yield from by_place(
        patient,
        pod=ours(patient, {"securityContext": root}),
        compose=compose({"user": "0", "cap_drop": ["ALL"], "cap_add": ["KILL"]}),
    )


def _uids_and_capabilities(status: Mapping[str, str]) -> Evidence:
    fields = ("Uid", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    return Evidence("/proc/self/status", ", ".join(f"{name} {_field(status, name)}" for name in fields))


def _field(status: Mapping[str, str], name: str) -> str:
    return " ".join(status.get(name, "?").split())


def _has(status: Mapping[str, str], name: str, bit: int) -> bool:
    return bool(int(status.get(name, "0"), 16) >> bit & 1)


def _signal(patient: Patient) -> Iterator[Finding]:
    found = ((pipeline, process) for pipeline in _signalled(patient) for process in processes_of(patient, pipeline))
    return each((_survives(patient, pipeline, process) for pipeline, process in found), "no target was found")


def _survives(patient: Patient, pipeline: Pipeline, process: Process) -> Finding:
    number = pipeline.target.settings.signal
    name, status = signal_name(number), patient.machine.status(process.pid)
    seen = Evidence(f"/proc/{process.pid}/status", ", ".join(f"{key} {_field(status, key)}" for key in ("SigCgt", "SigIgn", "SigBlk")))
    try:
        masks = patient.outside().processes.masks(process.pid)
    except (ProcessLookupError, PermissionError):
        return skipped(f"{described(process)} has ended meanwhile", pipeline.name)
    if masks.ignores(number):
        told = f"{described(process)} ignores {name}, so it never reloads"
    elif not masks.catches(number):
        fate = "the kernel would drop it" if process.pid == 1 else "it would end by it"
        told = f"{described(process)} has no handler for {name}: {fate}, so it is never sent"
    elif masks.proves_nothing(number):
        return ok(
            f"{described(process)} catches everything, as some runtimes do by themselves; target.min_uptime or .ready waits", pipeline.name
        )
    else:
        return ok(f"{described(process)} takes {name}", pipeline.name, evidence=[seen])
    others = [other for other in _USUAL_SIGNALS if other != number and masks.caught >> (other - 1) & 1]
    mends = [configuration(patient, pipeline, {"target": {"signal": signal_name(other).removeprefix("SIG")}}) for other in others]
    hint = f"Let the program handle {name} and start it without nohup, or choose a target.verify and a target.kind that it has."
    return failed(told, pipeline.name, evidence=[seen], mends=[*mends, words(hint)])


CHECKS = (
    Check("target.found", "the target is there, and it is clear which process it is", _found),
    Check("target.permission", "the reloader may signal it", _permission),
    Check("target.signal", "it handles the signal", _signal),
)
