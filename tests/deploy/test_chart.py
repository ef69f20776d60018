"""The chart renders the objects of the overlays, and refuses values that it does not know."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.holding import spec_of
from tests.deploy.rendering import DEPLOY, OVERLAYS, Manifest, charted, one, overlay, refused

VALUES: dict[str, dict[str, Any]] = {
    "base": {},
    "restricted": {"restricted": True},
    "separate-uids": {"separateUsers": True},
    "canary": {"canaryOf": "web", "replicas": 1},
    "canary-rollback": {"canaryOf": "web", "replicas": 0},
    "classic": {"reloader": {"native": False}},
    "vault": {"vault": True},
    "production": {"networkPolicy": True, "monitoring": True},
}
"""What says of the chart what each overlay says."""


def content(manifests: list[Manifest]) -> dict[str, Any]:
    """Return the values for what only users say: what is in the ConfigMaps of an overlay."""
    data = {each["metadata"]["name"].removesuffix("-canary"): each["data"] for each in manifests if each["kind"] == "ConfigMap"}
    return {"site": data["web-site"], "configuration": data["web-reloader"]}


def by_name(manifests: list[Manifest]) -> dict[tuple[str, str], Any]:
    """Return manifests in a form in which the order of what has a name is no difference."""
    return {(each["kind"], each["metadata"]["name"]): ordered(each) for each in manifests}


def ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: ordered(each) for key, each in value.items()}
    if isinstance(value, list) and value and all(isinstance(each, Mapping) and ("name" in each or "mountPath" in each) for each in value):
        return sorted((ordered(each) for each in value), key=lambda each: (str(each.get("mountPath", "")), str(each.get("name", ""))))
    return [ordered(each) for each in value] if isinstance(value, list) else value


def in_no_namespace(manifests: list[Manifest]) -> list[Manifest]:
    """Return them without the namespace: a release of Helm is made in one, and does not contain it."""
    kept = [each for each in manifests if each["kind"] != "Namespace"]
    return [{**each, "metadata": {key: value for key, value in each["metadata"].items() if key != "namespace"}} for each in kept]


def test_every_overlay_has_its_values():
    assert set(VALUES) == {"base", *OVERLAYS}


@pytest.mark.parametrize("name", VALUES)
def test_the_chart_renders_the_same_objects(name: str):
    manifests = in_no_namespace(overlay(name))
    assert by_name(charted({**content(manifests), **VALUES[name]})) == by_name(manifests)


def test_what_it_has_by_default_is_the_base():
    assert by_name(charted({})) == by_name(overlay("base"))


def test_it_goes_by_the_name_of_the_release():
    """Several releases in one namespace share nothing."""
    mine, other = by_name(charted({}, name="web")), by_name(charted({}, name="shop"))
    assert mine.keys().isdisjoint(other)
    assert one(charted({}, name="shop"), "Service")["spec"]["selector"] == {"app.kubernetes.io/name": "shop"}


def test_a_long_grace_has_a_startup_probe_that_waits_longer():
    [ours] = spec_of(one(charted({"reloader": {"startupSeconds": 600}}), "Deployment"))["initContainers"]
    assert (ours["startupProbe"]["periodSeconds"], ours["startupProbe"]["failureThreshold"]) == (1, 600)


def test_prometheus_may_ask_for_labels():
    """Its operator takes what has them; without any, there are none."""
    labels = {"release": "prometheus"}
    for kind in ("PodMonitor", "PrometheusRule"):
        assert one(charted({"monitoring": True, "monitoringLabels": labels}), kind)["metadata"]["labels"] == labels
        assert "labels" not in one(charted({"monitoring": True}), kind)["metadata"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"replicsa": 3}, "replicsa"),
        ({"reloader": {"nativ": False}}, "nativ"),
        ({"restricted": True, "separateUsers": True}, "'not' failed"),
        ({"user": 0}, "user"),
        ({"reloader": {"startupSeconds": 30}}, "startupSeconds"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], told: str):
    """Misspelt ones, and those that contradict each other."""
    assert told in refused(values)


def test_native_sidecars_are_refused_where_there_are_none(tmp_path: Path):
    """Helm renders for one version of Kubernetes here, so the bound is moved instead."""
    chart = shutil.copytree(DEPLOY / "chart", tmp_path / "chart")
    deployment = chart / "templates/deployment.yaml"
    assert "<1.29.0-0" in deployment.read_text()
    deployment.write_text(deployment.read_text().replace("<1.29.0-0", "<99.0.0-0"))
    assert "Kubernetes has native sidecars from 1.29 on" in refused({}, chart)
    assert charted({"reloader": {"native": False}}, chart)


def test_what_is_derived_is_up_to_date():
    """`deploy/generate.py` would change nothing."""
    code = "import generate, json; print(json.dumps(generate.files()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=DEPLOY, capture_output=True, text=True, check=True)
    derived: dict[str, str] = json.loads(done.stdout)
    assert [name for name, text in derived.items() if (DEPLOY / name).read_text() != text] == []
