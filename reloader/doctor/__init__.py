"""Tries each thing where the reloader runs, and names what mends it. It changes nothing: no signal, no lock, no write to a server.

A check is a function of the `Patient` that yields a `Finding` for each thing that it looked at; it has an id that stays, and a place in
`CHECKS`. One that breaks is a finding itself, and holds up no other.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from reloader import settings
from reloader.doctor import configuration, container, manifest, processes, reading, servers, sharing, state, target, volumes
from reloader.doctor.checks import Check, failed, skipped
from reloader.doctor.finding import Finding, State
from reloader.doctor.patient import Patient
from reloader.doctor.place import Machine, Place
from reloader.doctor.report import document, lines, worst
from reloader.doctor.workload import Unfit, Workload, read
from reloader.plan import Plan

__all__ = ["CHECKS", "Finding", "Machine", "Patient", "Place", "State", "document", "examine", "lines", "patient_of", "worst"]

_GROUPS = (configuration, manifest, container, processes, target, volumes, sharing, state, servers, reading)
CHECKS: tuple[Check, ...] = tuple(check for group in _GROUPS for check in group.CHECKS)
"""All that is looked at."""
_NEEDS_NO_PLAN = ("configuration", "container", "process", "manifest")

Configured = Callable[[Sequence[Path]], tuple[Plan, tuple[Path, ...]]]
"""Returns the plan of these files, as `settings.find` does."""


def examine(patient: Patient) -> Iterator[Finding]:
    """Yield what every check found."""
    for check in CHECKS:
        yield from (replace(found, check=check.id) for found in _looked(check, patient))


def _looked(check: Check, patient: Patient) -> Sequence[Finding]:
    if check.is_here and not patient.is_there:
        return [skipped("a manifest was given, so the reloader runs elsewhere; run the doctor there too")]
    if not patient.plan.pipelines and patient.mistakes and check.id.partition(".")[0] not in _NEEDS_NO_PLAN:
        return [skipped("the configuration is invalid, so nothing is known of this")]
    try:
        return tuple(check.look(patient))
    except Exception as error:  # noqa: BLE001 - its text may quote what was read
        where = _innermost(error)
        return [failed(f"this check failed itself ({type(error).__name__}, {where}); please report that with what is above")]


def _innermost(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name} line {trace.tb_lineno}" if trace else "somewhere"


def patient_of(files: Sequence[Path], manifests: Sequence[Path], configured: Configured) -> Patient:
    """Return what is to be examined: of files that are wrong, their mistakes, and the plan of the others."""
    workload: Workload | None = None
    unfit = ""
    try:
        workload = read(manifests, sys.stdin) if manifests else None
    except Unfit as reason:
        unfit = str(reason)
    plan, taken, mistakes = _plan(files, configured)
    return Patient(plan=plan, mistakes=mistakes, files=_files(plan, taken), workload=workload, unfit=unfit)


def _plan(files: Sequence[Path], configured: Configured) -> tuple[Plan, tuple[Path, ...], tuple[settings.Mistake, ...]]:
    try:
        return *configured(files), ()
    except settings.ConfigurationInvalid as invalid:
        mistakes = invalid.mistakes
    plans = []
    for file in _each(files):
        try:
            plans.append(configured([file]))
        except settings.ConfigurationInvalid:
            continue
    whole = (
        replace(plans[0][0], pipelines=tuple(pipeline for plan, _ in plans for pipeline in plan.pipelines)) if plans else Plan(pipelines=())
    )
    return whole, tuple(file for _, taken in plans for file in taken), mistakes


def _each(files: Sequence[Path]) -> tuple[Path, ...]:
    try:
        found = settings.files_of(files)
    except settings.ConfigurationInvalid:
        return ()
    return found if len(found) > 1 else ()


def _files(plan: Plan, taken: Sequence[Path]) -> dict[str, Path]:
    """Return the file of each pipeline; they come in the same order."""
    return dict(zip((pipeline.name for pipeline in plan.pipelines), taken, strict=False))
