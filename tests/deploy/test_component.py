"""The component, added to workloads that do not know of it by what its README says."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy import existing
from tests.deploy.examining import examined, wrong_in
from tests.deploy.existing import Existing
from tests.deploy.holding import containers, security, spec_of, wrong_with
from tests.deploy.rendering import DEPLOY, OF_OTHERS, Manifest, charted, kustomized, minors, one, workloads

FORMS = {
    "native": ("sidecar",),
    "any user": ("sidecar", "any-uid"),
    "vault": ("sidecar", "vault"),
    "watched": ("sidecar", "network-policy", "monitoring"),
    "classic": ("sidecar-classic",),
}
README = (DEPLOY / "README.md").read_text(encoding="utf-8")
CHECKOUT = re.compile(r"\.\./config-reloader/deploy/components/([\w-]+)")


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


def patch(workload: Existing, user: int | None, listed: str) -> dict[str, Any]:
    """Return what a user says: who reads where, whose user that is where the Pod does not say it, and the group where there are two."""
    context = {} if user is None else {"securityContext": {"runAsUser": user}}
    ours = [{"name": name, **context} for name in (("reloader",) if listed == "initContainers" else ("reloader-once",))]
    target = {"name": workload.container, "volumeMounts": [{"name": "live", "mountPath": workload.reads, "readOnly": True}]}
    beside = [] if listed == "initContainers" else [{"name": "reloader", **context}]
    group = {"securityContext": {"fsGroup": workload.user}} if user == 0 and workload.user else {}
    spec = {**group, "initContainers": ours, "containers": [target, *beside]}
    kind = {key: workload.manifest[key] for key in ("apiVersion", "kind")}
    return {**kind, "metadata": {"name": workload.name}, "spec": {"template": {"spec": spec}}}


def with_sidecar(folder: Path, workload: Existing, form: str, *more: Manifest) -> list[Manifest]:
    """Write a user's folder, and return what it becomes."""
    user = 0 if form == "any user" else workload.user
    listed = "containers" if form == "classic" else "initContainers"
    namespace = workload.manifest["metadata"].get("namespace")
    metadata = {"name": "reloader", **({"namespace": namespace} if namespace else {})}
    configuration = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"it.yaml": pipeline(workload.reads)}}
    kustomization = {
        "resources": ["existing.yaml", "reloader.yaml"],
        "components": [reached(folder, name) for name in FORMS[form]],
        "patches": [{"path": "target.yaml"}],
    }
    files = {
        "existing.yaml": [workload.manifest, *more],
        "reloader.yaml": [configuration],
        "kustomization.yaml": [kustomization],
        "target.yaml": [patch(workload, user, listed) if namespace is None else in_namespace(patch(workload, user, listed), namespace)],
    }
    for name, documents in files.items():
        (folder / name).write_text(yaml.safe_dump_all(documents))
    return kustomized(folder)


def in_namespace(manifest: Manifest, namespace: str) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}


def reached(folder: Path, component: str) -> str:
    return os.path.relpath((DEPLOY / "components" / component).resolve(), folder.resolve())


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield what was there before and is not there any more, or is another; entries of lists go by what they are called."""
    if isinstance(before, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{path}.{key}") if isinstance(after, dict) else (f"{path}.{key}",)
    elif isinstance(before, list) and before and isinstance(before[0], dict):
        for entry in before:
            same = [each for each in after or () if identity(each) == identity(entry)]
            yield from lost(entry, same[0], f"{path}[{identity(entry)}]") if len(same) == 1 else (f"{path}[{identity(entry)}]",)
    elif before != after:
        yield path


def identity(entry: dict[str, Any]) -> Any:
    return entry.get("mountPath") or entry.get("name") or entry.get("containerPort") or json.dumps(entry, sort_keys=True)


def check(manifests: list[Manifest], workload: Existing, folder: Path) -> None:
    """Assert that it is valid and whole, that nothing was lost, and that the doctor finds nothing wrong."""
    for manifest in manifests:
        for minor in minors() if manifest["kind"] not in OF_OTHERS else ():
            kubernetes_validate.validate(manifest, minor, strict=True)
    assert wrong_with(manifests) == []
    assert list(lost(workload.manifest, one(manifests, workload.manifest["kind"], workload.name))) == []
    assert wrong_in(examined(manifests, folder)) == {}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workload", existing.EVERY, ids=lambda workload: workload.manifest["kind"])
def test_what_was_there_stays_and_the_sidecar_fits_in(workload: Existing, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    check(with_sidecar(tmp_path, workload, form), workload, tmp_path)


def test_the_chart_that_helm_itself_makes_takes_the_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What `helm create` writes: a Deployment that says nothing of users, so that the sidecar is root, and may signal whoever it is."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    made = [sys.executable, "-c", f"import helm_python; helm_python.Chart.create('made', {str(tmp_path)!r}).close()"]
    charted({})  # the test is over where there is no Helm
    subprocess.run(made, check=True, timeout=60)
    rendered = [each for each in charted({}, tmp_path / "made") if "helm.sh/hook" not in each["metadata"].get("annotations", {})]
    [deployment] = workloads(rendered)
    others = [each for each in rendered if each is not deployment]
    workload = Existing(deployment, container="made", reads="/etc/nginx/live", user=None)
    manifests = with_sidecar(tmp_path, workload, "any user", *others)
    assert security(deployment, containers(deployment)["made"]) == {}
    check(manifests, workload, tmp_path)


def test_init_containers_that_were_there_start_after_the_sidecar(tmp_path: Path):
    workload = existing.EVERY[1]
    spec = spec_of(one(with_sidecar(tmp_path, workload, "native"), "StatefulSet"))
    assert [each["name"] for each in spec["initContainers"]] == ["reloader", "volume-permissions"]


def test_no_selector_changes(tmp_path: Path):
    """A selector of what runs cannot be changed."""
    workload = existing.EVERY[0]
    added = one(with_sidecar(tmp_path, workload, "native"), "Deployment")
    assert added["spec"]["selector"] == workload.manifest["spec"]["selector"]


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def blocks(title: str) -> dict[str, str]:
    """Return the files that a section of the README shows, by the name in their first line."""
    shown = re.findall(r"^```\w+ fragment\n# (\S+)\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)
    return dict(shown)


def saved(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(CHECKOUT.sub(lambda found: reached(folder, found[1]), text))


def test_the_example_of_the_readme_is_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its files as they stand, but for where the component comes from."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    files = blocks("Add the sidecar to what you have")
    assert files.keys() == {"deployment.yaml", "kustomization.yaml", "edge.yaml", "haproxy.cfg.j2", "target.yaml"}
    saved(tmp_path, files)
    [deployment] = yaml.safe_load_all(files["deployment.yaml"])
    workload = Existing(deployment, container="haproxy", reads="/usr/local/etc/haproxy", user=99)
    check(kustomized(tmp_path), workload, tmp_path)


def test_the_commands_of_the_readme_work_in_the_folder_of_its_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Word for word, from the check to the doctor, who finds nothing wrong; a volume that the target does not mount is found."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    files = blocks("Add the sidecar to what you have")
    saved(tmp_path, files)
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", section("Add the sidecar to what you have"), re.MULTILINE | re.DOTALL)
    kustomized(tmp_path)  # the test is over where there is no kubectl
    done = follow(commands, tmp_path)
    assert "no mistakes" in done.stdout
    assert re.findall(r"^(?:FAILED|warning) .+", done.stdout, re.MULTILINE) == []
    assert done.returncode == 0, done.stdout + done.stderr
    saved(tmp_path, {"target.yaml": files["target.yaml"].replace("/usr/local/etc/haproxy", "/elsewhere")})
    assert "haproxy does not mount it at /usr/local/etc/haproxy" in follow(commands, tmp_path).stdout


def follow(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the lines of a shell block in a folder, with `reloader` and `kubectl` as they are installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = ["bash", "-ec", f'reloader() {{ {sys.executable} -m reloader "$@"; }}\n{commands}']
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(DEPLOY.parent)}
    return subprocess.run(shell, cwd=folder, env=env, capture_output=True, text=True, timeout=100, check=False)


def test_an_image_is_named_as_the_readme_says(tmp_path: Path):
    """In a kustomization of one's own, for every container that has it."""
    shown = blocks("The image")["kustomization.yaml"]
    saved(tmp_path, {"kustomization.yaml": shown.replace("../config-reloader/deploy", os.path.relpath(DEPLOY, tmp_path.resolve()))})
    images = {name: each["image"] for name, each in containers(one(kustomized(tmp_path), "Deployment")).items()}
    assert images["reloader"] == "registry.example.com/config-reloader:0.1.0"


def test_the_readme_has_every_overlay_and_component():
    """And names no other."""
    named = set(re.findall(r"\b((?:overlays|components)/[\w-]+)", README))
    assert named == {str(path.relative_to(DEPLOY)) for kind in ("overlays", "components") for path in (DEPLOY / kind).iterdir()}
