"""The component, added to what public charts of other projects render."""

from pathlib import Path

import pytest

from tests.deploy.adding import FORMS, check, to, with_sidecar, written
from tests.deploy.holding import spec_of
from tests.deploy.public import CHARTS, Chart
from tests.deploy.rendering import kustomized, one

EVERY = [pytest.param(chart, form, id=f"{name}-{form}") for name, chart in CHARTS.items() for form in chart.forms]
CLOUD = """
sources:
  cloud: {kind: files, path: /etc/cloud}
volume:
  path: /live
  target_path: /etc/config
  files:
    cloud.conf: {content: "{{ cloud['cloud.conf'] }}"}
target: {kind: process, match: {name: openstack-cloud}}
"""


@pytest.mark.parametrize(("chart", "form"), EVERY)
def test_what_a_chart_renders_takes_the_sidecar_and_stays_valid(chart: Chart, form: str, tmp_path: Path):
    workload, others = chart.rendered()
    check(with_sidecar(tmp_path, workload, form, *others), workload, tmp_path)


def test_init_containers_of_a_chart_start_after_the_sidecar(tmp_path: Path):
    workload, others = CHARTS["Cilium"].rendered()
    were = [each["name"] for each in spec_of(workload.manifest)["initContainers"]]
    spec = spec_of(one(with_sidecar(tmp_path, workload, "any user", *others), "DaemonSet"))
    assert [each["name"] for each in spec["initContainers"]] == ["reloader", *were]


def test_what_a_target_read_from_a_secret_it_reads_from_the_sidecar_at_the_same_path(tmp_path: Path):
    """The target's arguments stay as the chart has them; its Secret is mounted into the sidecar instead."""
    workload, others = CHARTS["OpenStack"].rendered()
    secret = {"name": "reloader", "volumeMounts": [{"name": "cloud-config-volume", "mountPath": "/etc/cloud", "readOnly": True}]}
    target = {"name": workload.container, "volumeMounts": [{"name": "live", "mountPath": "/etc/config", "readOnly": True}]}
    configuration = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "reloader"}, "data": {"it.yaml": CLOUD}}
    said = to(workload, {"initContainers": [secret], "containers": [target]})
    written(tmp_path, workload, "native", said, configuration, *others)
    mount = f".spec.template.spec.containers[{workload.container}].volumeMounts[/etc/config].name"
    check(kustomized(tmp_path), workload, tmp_path, replaced=(mount,))


def test_there_are_deployments_of_three_projects_and_each_kind_of_workload():
    kinds = {kind: {chart.name for chart in CHARTS.values() if chart.kind == kind} for kind in ("Deployment", "StatefulSet", "DaemonSet")}
    assert len(kinds["Deployment"]) >= 3
    assert all(kinds.values())
    assert all(set(chart.forms) <= FORMS.keys() for chart in CHARTS.values())
