"""The component, added to workloads that do not know of it by what its README says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy import existing
from tests.deploy.adding import FORMS, check, reached, with_sidecar
from tests.deploy.existing import Existing
from tests.deploy.holding import containers, security, spec_of
from tests.deploy.rendering import DEPLOY, charted, kustomized, one, workloads

README = (DEPLOY / "README.md").read_text(encoding="utf-8")
CHECKOUT = re.compile(r"\.\./config-reloader/deploy/components/([\w-]+)")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workload", existing.EVERY, ids=lambda workload: workload.manifest["kind"])
def test_what_was_there_stays_and_the_sidecar_fits_in(workload: Existing, form: str, tmp_path: Path):
    check(with_sidecar(tmp_path, workload, form), workload, tmp_path)


def test_the_chart_that_helm_itself_makes_takes_the_sidecar(tmp_path: Path):
    """What `helm create` writes: a Deployment that says nothing of users, so that the sidecar is root, and may signal whoever it is."""
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


def test_the_example_of_the_readme_is_what_it_says(tmp_path: Path):
    """Its files as they stand, but for where the component comes from."""
    files = blocks("Add the sidecar to what you have")
    assert files.keys() == {"deployment.yaml", "kustomization.yaml", "edge.yaml", "haproxy.cfg.j2", "target.yaml"}
    saved(tmp_path, files)
    [deployment] = yaml.safe_load_all(files["deployment.yaml"])
    workload = Existing(deployment, container="haproxy", reads="/usr/local/etc/haproxy", user=99)
    check(kustomized(tmp_path), workload, tmp_path)


def test_the_commands_of_the_readme_work_in_the_folder_of_its_example(tmp_path: Path):
    """Word for word, from the check to the doctor, who finds nothing wrong; a volume that the target does not mount is found."""
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
