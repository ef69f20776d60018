"""How a mend is written: YAML that only has to be merged, with the names that are known, and others where they are not."""

from collections.abc import Mapping
from typing import Any

import yaml

from reloader.doctor.finding import Mend
from reloader.doctor.patient import Patient
from reloader.doctor.place import Place
from reloader.doctor.workload import named
from reloader.plan import Pipeline

Fragment = Mapping[str, Any]

OURS, TARGET, VOLUME, STATE = "reloader", "app", "live", "reloader-state"
"""What the containers and volumes are called where no manifest tells."""
DROPPED: Fragment = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pod(patient: Patient, spec: Fragment) -> Mend:
    """Return a change of the Pod, as a strategic merge patch."""
    workload = patient.workload
    if workload is None:
        where = "the Pod: `spec` of a Pod, `spec.template.spec` of a Deployment; containers and volumes have your own names"
        return Mend("pod", where, _yaml({"spec": spec}))
    patched: Any = spec
    for key in reversed(workload.way):
        patched = {key: patched}
    head = {"apiVersion": workload.document.get("apiVersion"), "kind": workload.kind, "metadata": {"name": workload.name}}
    return Mend("pod", workload.where, _yaml({**head, **patched}))


def ours(patient: Patient, fragment: Fragment, **spec: Any) -> Mend:
    """Return a change of the reloader's container, and of the Pod beside it."""
    return pod(patient, {**spec, **_ours(patient, fragment)})


def targets(patient: Patient, pipeline: Pipeline, fragment: Fragment, **spec: Any) -> Mend:
    """Return a change of the target's container, and of the Pod beside it."""
    return pod(patient, {**spec, "containers": [{"name": target_name(patient, pipeline), **fragment}]})


def both(patient: Patient, pipeline: Pipeline, of_ours: Fragment, of_target: Fragment, **spec: Any) -> Mend:
    """Return a change of both containers, and of the Pod beside them."""
    whole = _ours(patient, of_ours)
    containers = [*whole.get("containers", ()), {"name": target_name(patient, pipeline), **of_target}]
    return pod(patient, {**spec, **whole, "containers": containers})


def compose(service: Fragment, name: str = OURS, **more: Any) -> Mend:
    """Return a change of one service of a compose file."""
    return Mend("compose", "compose.yaml; services and volumes have your own names", _yaml({"services": {name: service}, **more}))


def configuration(patient: Patient, pipeline: Pipeline | str, fragment: Fragment) -> Mend:
    """Return a change of the file of a pipeline."""
    name = pipeline if isinstance(pipeline, str) else pipeline.name
    file = patient.files.get(name)
    return Mend("configuration", str(file) if file else f"the configuration of {name}", _yaml(fragment))


def command(text: str, where: str = "a shell") -> Mend:
    """Return a command."""
    return Mend("command", where, text + "\n")


def words(text: str, where: str = "by hand") -> Mend:
    """Return what no text can be copied for."""
    return Mend("words", where, text + "\n")


def by_place(patient: Patient, *, pod: Mend | None = None, compose: Mend | None = None, host: Mend | None = None) -> tuple[Mend, ...]:
    """Return the mend that fits the place."""
    elsewhere = compose if patient.place is Place.CONTAINER else host
    found = pod if patient.workload is not None or patient.place is Place.POD else elsewhere
    return () if found is None else (found,)


def our_name(patient: Patient) -> str:
    """Return what the reloader's container is called."""
    return str(patient.workload.container.get("name", OURS)) if patient.workload else OURS


def target_name(patient: Patient, pipeline: Pipeline) -> str:
    """Return what the target's container is called."""
    found = patient.workload.target(*target_words(pipeline)) if patient.workload else None
    return str(found.get("name", TARGET)) if found else TARGET


def target_words(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the names that the configuration has for its target."""
    match = getattr(pipeline.target.settings, "match", None)
    return tuple(filter(None, (getattr(match, "name", None),)))


def volume_name(patient: Patient, path: str, usual: str = VOLUME) -> str:
    """Return what the volume is called that the reloader mounts at a path."""
    mounted = named(patient.workload.container, "volumeMounts") if patient.workload else ()
    return next((str(each.get("name")) for each in mounted if str(each.get("mountPath", "")).rstrip("/") == path.rstrip("/")), usual)


def _ours(patient: Patient, fragment: Fragment) -> dict[str, Any]:
    listed = patient.workload.listed if patient.workload else "containers"
    return {listed: [{"name": our_name(patient), **fragment}]}


class _InFull(yaml.SafeDumper):
    """Writes what is there twice in full, and not as an alias of the first."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _yaml(fragment: Any) -> str:
    return yaml.dump(fragment, Dumper=_InFull, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120)
