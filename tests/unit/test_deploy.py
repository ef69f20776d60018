"""The manifests in `deploy/` hold together, also where a schema check sees nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from reloader import settings

FOLDER = Path(__file__).parents[2] / "deploy"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    manifest for name in KUSTOMIZATION["resources"] for manifest in yaml.safe_load_all((FOLDER / name).read_text())
]
DEPLOYMENT = next(manifest for manifest in MANIFESTS if manifest["kind"] == "Deployment")
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINERS = {container["name"]: container for container in POD["initContainers"] + POD["containers"]}
CONFIG_MAPS = {manifest["metadata"]["name"]: manifest["data"] for manifest in MANIFESTS if manifest["kind"] == "ConfigMap"}


def probes(container: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe") if name in container)


def mounted_from(volume: str) -> str:
    """Return the name of the ConfigMap behind a volume."""
    return next(entry["configMap"]["name"] for entry in POD["volumes"] if entry["name"] == volume)


def test_every_manifest_is_a_resource():
    """No file in the folder is forgotten by the kustomization."""
    assert {path.name for path in FOLDER.glob("*.yaml")} == {"kustomization.yaml", *KUSTOMIZATION["resources"]}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: f"{manifest['kind']}/{manifest['metadata']['name']}")
def test_manifest_fits_the_schema(manifest: dict[str, Any]):
    """Kubernetes knows every field, and every field has its type."""
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_every_mount_has_its_volume():
    """Each container mounts volumes that the Pod has, and the Pod has no other."""
    mounted = {mount["name"] for container in CONTAINERS.values() for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in POD["volumes"]}


def test_every_configmap_volume_has_its_configmap():
    """Each ConfigMap that the Pod mounts is here, and none is mounted by subPath, which the kubelet does not update."""
    assert {volume["configMap"]["name"] for volume in POD["volumes"] if "configMap" in volume} == set(CONFIG_MAPS)
    assert not any("subPath" in mount for container in CONTAINERS.values() for mount in container["volumeMounts"])


def test_every_probe_asks_a_declared_port():
    """A probe's port is a name that its own container declares."""
    for container in CONTAINERS.values():
        declared = {port["name"] for port in container["ports"]}
        assert {probe["httpGet"]["port"] for probe in probes(container)} <= declared


def test_the_service_leads_to_the_pods():
    """The Service's selector fits the Pod's labels, and its port is one that a container declares."""
    service = next(manifest["spec"] for manifest in MANIFESTS if manifest["kind"] == "Service")
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert {port["targetPort"] for port in service["ports"]} <= {port["name"] for port in CONTAINERS["nginx"]["ports"]}


def test_the_sidecar_may_signal_its_target():
    """Both share the process list and one user that is not root; no container overrides it or adds a capability, which would do nothing."""
    assert POD["shareProcessNamespace"] is True
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] > 0
    for container in CONTAINERS.values():
        assert container["securityContext"].keys().isdisjoint({"runAsUser", "runAsGroup"})
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_sidecar_starts_first_and_keeps_running():
    """It is a native sidecar, held by a startup probe until something is published."""
    assert CONTAINERS["reloader"]["restartPolicy"] == "Always"
    assert CONTAINERS["reloader"]["startupProbe"]["httpGet"]["path"] == "/startupz"


def test_secrets_stay_in_memory():
    """The shared volume is memory-backed and bounded, and only the sidecar may write it."""
    live = next(volume for volume in POD["volumes"] if volume["name"] == "live")
    assert live["emptyDir"]["medium"] == "Memory"
    assert "sizeLimit" in live["emptyDir"]
    assert next(mount for mount in CONTAINERS["nginx"]["volumeMounts"] if mount["name"] == "live")["readOnly"] is True


def test_the_pipeline_is_accepted(tmp_path: Path):
    """`reloader` takes the configuration in the ConfigMap, with each path where the Pod mounts it."""
    mounts = {mount["mountPath"]: tmp_path / mount["name"] for mount in CONTAINERS["reloader"]["volumeMounts"]}
    for mount in CONTAINERS["reloader"]["volumeMounts"]:
        folder = mounts[mount["mountPath"]]
        folder.mkdir()
        for name, text in CONFIG_MAPS.get(mounted_from(mount["name"]), {}).items() if mount["name"] != "live" else ():
            for path, here in mounts.items():
                text = text.replace(f"{path}", str(here))  # noqa: PLW2901
            (folder / name).write_text(text)
    [pipeline] = settings.load([tmp_path / "reloader" / "web.yaml"], environ={}).pipelines
    assert pipeline.volume is not None
    assert pipeline.volume.path == str(mounts["/etc/nginx/live"])
