"""The configuration itself: whether it is valid, whether a Service put variables into it, whether what it runs and renders is there."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from reloader.doctor.checks import Check, each, failed, ok, skipped, warning
from reloader.doctor.finding import Evidence, Finding, Mend
from reloader.doctor.mends import Fragment, by_place, command, compose, configuration, pod, words
from reloader.doctor.patient import Patient
from reloader.plan import Pipeline
from reloader.settings import Mistake
from reloader.settings.environment import PREFIX, overrides
from reloader.words import counted

_OF_A_SERVICE = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$")
"""How the names of the variables end that the kubelet sets for a Service."""
_USUAL_PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_MISSPELT = re.compile(r"unknown key '(?P<wrong>[\w.-]+)'; did you mean '(?P<right>[\w.-]+)'\?")
_UNDEFINED = re.compile(r"line (?P<line>\d+): no source is called '(?P<wrong>\w+)'; did you mean '(?P<right>\w+)'\?")


def is_of_templates(mistake: Mistake) -> bool:
    """Return whether a mistake is one in a template."""
    return (
        mistake.key.startswith("volume.files.") and mistake.key.rpartition(".")[2] in ("template", "content") and "line " in mistake.message
    )


def _valid(patient: Patient) -> Iterator[Finding]:
    found = [mistake for mistake in patient.mistakes if not is_of_templates(mistake)]
    if not patient.mistakes:
        yield ok(f"{counted(len(patient.plan.pipelines), 'pipeline')}, no mistakes")
        return
    if not found:
        yield ok("no mistakes but those in templates")
    for mistake in found:
        mends = [*_respelt(mistake), *_of_a_service(patient, [mistake.key])]
        yield failed(mistake.message, mistake.key, evidence=[Evidence(mistake.where, mistake.key)], mends=mends or [_at(mistake)])


def _respelt(mistake: Mistake) -> Iterator[Mend]:
    found = _MISSPELT.search(mistake.message)
    file, line = _line(mistake)
    if found and line:
        yield command(f"sed -i '{line}s/\\b{found['wrong']}\\b/{found['right']}/' {file}", file)


def _at(mistake: Mistake) -> Mend:
    return words(f"{mistake.key or 'There'}: {mistake.message}.", mistake.where or "the command line")


def _line(mistake: Mistake) -> tuple[str, int]:
    """Return the file and the line of a mistake; 0 where it is in none."""
    found = re.fullmatch(r"(.+):(\d+):\d+", mistake.where)
    return (found[1], int(found[2])) if found else ("", 0)


def _templates(patient: Patient) -> Iterator[Finding]:
    found = [mistake for mistake in patient.mistakes if is_of_templates(mistake)]
    for mistake in found:
        mends = [*_renamed(mistake)] or [_at(mistake)]
        yield failed(mistake.message, mistake.key, evidence=[Evidence(mistake.where, mistake.key)], mends=mends)
    if not found and any(volume.files for _, volume in patient.volumes()):
        yield ok("every name in them is a source's")
    elif not found:
        yield skipped("there are none" if not patient.mistakes else "the configuration is invalid")


def _renamed(mistake: Mistake) -> Iterator[Mend]:
    """Yield the command that writes the name that was meant: into the template, or into the configuration for a content."""
    found = _UNDEFINED.search(mistake.message)
    if found is None:
        return
    file, line = _line(mistake)
    template = mistake.message.split(", line ", 1)[0]
    if mistake.key.endswith(".template") and template.startswith("/"):
        file, line = template, int(found["line"])
    if file:
        yield command(f"sed -i '{line}s/\\b{found['wrong']}\\b/{found['right']}/' {file}", file)


def _environment(patient: Patient) -> Iterator[Finding]:
    ours = {name for name in patient.machine.environ if name.startswith(PREFIX)}
    set_by_service = sorted(name for name in ours if _OF_A_SERVICE.search(name) and name != "RELOADER_CONFIG")
    refused = sorted(set_by_service & overrides(patient.machine.environ).keys())
    seen = [Evidence("environment", name) for name in set_by_service]
    if refused:
        told = f"a Service set {', '.join(refused)}, which is taken for a key of the configuration and refused"
        yield failed(told, evidence=seen, mends=_of_a_service(patient, refused))
    elif set_by_service:
        told = f"{len(set_by_service)} variables are a Service's whose name begins like this program's; they are left alone"
        yield warning(told, evidence=seen, mends=_of_a_service(patient, set_by_service))
    else:
        yield ok(f"{len(ours)} variables begin with {PREFIX}, none of them a Service's" if ours else f"no variable begins with {PREFIX}")


def _of_a_service(patient: Patient, names: Sequence[str]) -> tuple[Mend, ...]:
    if not any(name.startswith(PREFIX) and _OF_A_SERVICE.search(name) for name in names):
        return ()
    return by_place(
        patient,
        pod=pod(patient, {"enableServiceLinks": False}),
        compose=compose({"environment": dict.fromkeys(names)}),
        host=command("unset " + " ".join(names)),
    )


def _commands(patient: Patient) -> Iterator[Finding]:
    found = [(pipeline, *one) for pipeline in patient.plan.pipelines for one in _run(pipeline)]
    return each((_there(patient, *one) for one in found), "no command is run")


def _run(pipeline: Pipeline) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each command of a pipeline, and its key."""
    check = pipeline.volume.check if pipeline.volume else None
    if check and check.command:
        yield "volume.check.command", check.command
    if pipeline.target.verify.command:
        yield "target.verify.command", pipeline.target.verify.command
    if pipeline.target.kind in ("command", "exec"):
        yield "target.command", tuple(pipeline.target.settings.command)


def _there(patient: Patient, pipeline: Pipeline, key: str, argv: tuple[str, ...]) -> Finding:
    program, about = argv[0], f"{pipeline.name}: {key}"
    if found := shutil.which(program):
        return ok(f"{program} is {found}" if found != program else f"{program} is there", about)
    searched = str(Path(program).parent) if "/" in program else os.environ.get("PATH", os.defpath)
    seen = [Evidence(searched, f"{Path(program).name} is not there, or may not be executed")]
    mends: list[Mend] = []
    if elsewhere := shutil.which(Path(program).name, path=os.pathsep.join(_USUAL_PLACES)):
        mends.append(configuration(patient, pipeline, _nested(key, [elsewhere, *argv[1:]])))
    mends.append(
        words(f"Put {program} into the reloader's own image, where it is run; or use volume.check.builtin, or target.verify.http.")
    )
    return failed(f"{program} cannot be run in this container", about, evidence=seen, mends=mends)


def _nested(key: str, value: object) -> Fragment:
    nested: object = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested  # type: ignore[return-value]


CHECKS = (
    Check("configuration.valid", "the configuration is valid", _valid, is_here=False),
    Check("configuration.templates", "templates parse and use names that there are", _templates, is_here=False),
    Check("configuration.environment", "no Service's variable is taken for a key", _environment),
    Check("configuration.commands", "the commands that are run are in this container", _commands),
)
