"""The component, added to a workload as a user does it, and whether what comes of that is valid and whole."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.deploy.examining import examined, wrong_in
from tests.deploy.existing import Existing
from tests.deploy.holding import containers, security, wrong_with
from tests.deploy.rendering import DEPLOY, OF_OTHERS, Manifest, kustomized, minors, one

FORMS = {
    "native": ("sidecar",),
    "any user": ("sidecar", "any-uid"),
    "vault": ("sidecar", "vault"),
    "watched": ("sidecar", "network-policy", "monitoring"),
    "classic": ("sidecar-classic",),
}


def with_sidecar(folder: Path, workload: Existing, form: str, *more: Manifest) -> list[Manifest]:
    """Write a user's folder, and return what it becomes."""
    user = 0 if form == "any user" else workload.user
    said = patch(workload, user, "containers" if form == "classic" else "initContainers")
    configuration = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "reloader"},
        "data": {"it.yaml": pipeline(workload.reads)},
    }
    written(folder, workload, form, said, configuration, *more)
    return kustomized(folder)


def written(folder: Path, workload: Existing, form: str, said: Manifest, *more: Manifest) -> None:
    """Write a user's folder: what there was, three lines in its kustomization, and what the user says."""
    kustomization = {
        **({"namespace": workload.namespace} if workload.namespace else {}),
        "resources": ["existing.yaml"],
        "components": [reached(folder, name) for name in FORMS[form]],
        "patches": [{"path": "target.yaml"}],
    }
    files = {"existing.yaml": [workload.manifest, *more], "kustomization.yaml": [kustomization], "target.yaml": [said]}
    for name, documents in files.items():
        (folder / name).write_text(yaml.safe_dump_all(documents))


def pipeline(reads: str) -> str:
    return f"""
sources:
  settings: {{kind: env, names: [HOSTNAME]}}
volume:
  path: /live
  target_path: {reads}
  files:
    settings.json: {{content: "{{{{ settings | tojson }}}}"}}
target: {{kind: process, match: {{name: started}}}}
"""


def patch(workload: Existing, user: int | None, listed: str) -> Manifest:
    """Return what a user says: who reads where, whose user that is where the Pod does not say it, and the group where there are two."""
    context = {} if user is None else {"securityContext": {"runAsUser": user}}
    ours = [{"name": name, **context} for name in (("reloader",) if listed == "initContainers" else ("reloader-once",))]
    target = {"name": workload.container, "volumeMounts": [{"name": "live", "mountPath": workload.reads, "readOnly": True}]}
    beside = [] if listed == "initContainers" else [{"name": "reloader", **context}]
    theirs = security(workload.manifest, containers(workload.manifest)[workload.container]).get("runAsUser")
    group = {"securityContext": {"fsGroup": theirs}} if user == 0 and theirs else {}
    return to(workload, {**group, "initContainers": ours, "containers": [target, *beside]})


def to(workload: Existing, spec: dict[str, Any]) -> Manifest:
    """Return a patch to what a workload says of its Pods."""
    kind = {key: workload.manifest[key] for key in ("apiVersion", "kind")}
    namespace = {"namespace": workload.namespace} if workload.namespace else {}
    return {**kind, "metadata": {"name": workload.name, **namespace}, "spec": {"template": {"spec": spec}}}


def reached(folder: Path, component: str) -> str:
    return os.path.relpath((DEPLOY / "components" / component).resolve(), folder.resolve())


def check(manifests: list[Manifest], workload: Existing, folder: Path, *, replaced: tuple[str, ...] = ()) -> None:
    """Assert that it is valid and whole, that nothing was lost but what was `replaced`, and that the doctor finds nothing wrong."""
    for manifest in manifests:
        for minor in minors() if manifest["kind"] not in OF_OTHERS else ():
            kubernetes_validate.validate(manifest, minor, strict=True)
    assert wrong_with(manifests) == []
    assert tuple(lost(workload.manifest, one(manifests, workload.manifest["kind"], workload.name))) == replaced
    assert wrong_in(examined(manifests, folder)) == {}


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield what was there before and is not there any more, or is another; entries of lists go by what they are called."""
    if isinstance(before, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{path}.{key}") if isinstance(after, dict) else (f"{path}.{key}",)
    elif isinstance(before, list) and all(isinstance(entry, dict) for entry in before):
        for entry in before:
            same = [each for each in after or () if identity(each) == identity(entry)]
            yield from lost(entry, same[0], f"{path}[{identity(entry)}]") if len(same) == 1 else (f"{path}[{identity(entry)}]",)
    elif before != after:
        yield path


def identity(entry: dict[str, Any]) -> Any:
    return entry.get("mountPath") or entry.get("name") or entry.get("containerPort") or json.dumps(entry, sort_keys=True)
