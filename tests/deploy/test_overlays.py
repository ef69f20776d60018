"""Every kustomization of `deploy/`: valid, whole, and what its name says."""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.examining import examined, wrong_in
from tests.deploy.holding import containers, readers, security, spec_of, wrong_with
from tests.deploy.rendering import DEPLOY, OF_OTHERS, OVERLAYS, kustomized, minors, one, overlay, workloads

EVERY = ("base", *OVERLAYS)


@pytest.mark.parametrize("minor", minors())
@pytest.mark.parametrize("name", EVERY)
def test_every_manifest_fits_the_schema(name: str, minor: str):
    """Kubernetes of each of the three newest minors knows every field, and every field has its type."""
    for manifest in overlay(name):
        if manifest["kind"] not in OF_OTHERS:
            kubernetes_validate.validate(manifest, minor, strict=True)


@pytest.mark.parametrize("name", EVERY)
def test_it_holds_together(name: str):
    assert wrong_with(overlay(name)) == []


@pytest.mark.parametrize("name", EVERY)
def test_the_doctor_finds_nothing_wrong(name: str, tmp_path: Path):
    """Of the manifests and the configuration in them, its memory limit among it; no server is asked."""
    found = examined(overlay(name), tmp_path)
    assert wrong_in(found) == {}
    assert found.of("manifest.users")[0]["state"] == "ok"


def test_deploy_itself_is_the_base():
    assert kustomized(DEPLOY) == overlay("base")


@pytest.mark.parametrize("name", EVERY)
def test_every_configmap_that_is_mounted_is_there(name: str):
    manifests = overlay(name)
    mounted = {volume["configMap"]["name"] for each in workloads(manifests) for volume in spec_of(each)["volumes"] if "configMap" in volume}
    assert mounted <= {each["metadata"]["name"] for each in manifests if each["kind"] == "ConfigMap"}


def test_what_is_wrong_is_told():
    """Each of what `wrong_with` looks for, planted."""
    planted = json.loads(json.dumps(overlay("base")))
    spec = one(planted, "Deployment")["spec"]["template"]["spec"]
    [ours], [nginx] = spec["initContainers"], spec["containers"]
    nginx["securityContext"]["runAsUser"] = 101
    spec["securityContext"].pop("fsGroup")
    ours["securityContext"]["capabilities"]["add"] = ["KILL"]
    spec["hostPID"] = True
    nginx["volumeMounts"] += [{"name": "nowhere", "mountPath": "/x"}, {"name": "reloader-state", "mountPath": "/x"}]
    nginx["volumeMounts"][0]["subPath"] = "nginx.conf"
    nginx["readinessProbe"]["httpGet"]["port"] = "web"
    nginx["ports"][0]["name"] = "other"
    ours["startupProbe"]["failureThreshold"] = 30
    spec["volumes"].append({"name": "idle", "emptyDir": {}})
    next(each for each in spec["volumes"] if each["name"] == "live")["emptyDir"] = {}
    one(planted, "Deployment")["spec"]["selector"]["matchLabels"]["track"] = "another"
    found = "\n".join(wrong_with(planted))
    expected = (
        "its selector does not fit",
        "nowhere is mounted and no volume",
        "the volume idle is mounted nowhere",
        "two mounts at /x",
        "a port that is not declared: web",
        "a capability is added for a user that is not root",
        "Kubernetes refuses shareProcessNamespace beside hostPID",
        "the sidecar, user 10001, may not signal nginx, user 101",
        "nginx, user 101, may not read what user 10001 writes",
        "nginx may write what the sidecar writes, or mounts a part",
        "nginx mounts what is the sidecar's alone",
        "the volume live is not in memory",
        "the startup probe is too short",
        "no Pod has the port http",
    )
    assert [each for each in expected if each not in found] == []


def test_restricted_is_what_the_standard_asks():
    """Each rule of the Pod Security Standard `restricted` that concerns what is there, and a namespace that enforces it."""
    manifests = overlay("restricted")
    pod = spec_of(one(manifests, "Deployment"))
    assert one(manifests, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {each["metadata"]["namespace"] for each in manifests if each["kind"] != "Namespace"} == {"web"}
    assert pod.keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC", "hostUsers"})
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {"configMap", "emptyDir", "projected", "secret"}
    for container in containers(one(manifests, "Deployment")).values():
        own = container["securityContext"]
        assert own.keys().isdisjoint({"privileged", "procMount", "seLinuxOptions"})
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (own["runAsNonRoot"], own["runAsUser"]) == (True, 10001)
        assert all("hostPort" not in port for port in container["ports"])


def test_separate_uids_needs_root_with_one_capability():
    """The sidecar is root with KILL alone, NGINX another user without anything, and one group reads what the other writes."""
    deployment = one(overlay("separate-uids"), "Deployment")
    ours, nginx = (containers(deployment)[name] for name in ("reloader", "nginx"))
    assert security(deployment, ours)["runAsUser"] == 0
    assert ours["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["KILL"]}
    assert ours["securityContext"]["allowPrivilegeEscalation"] is False
    assert security(deployment, nginx)["runAsUser"] == 101
    assert nginx["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec_of(deployment)["securityContext"]["fsGroup"] == 10001


def test_a_canary_is_beside_the_others_and_shares_nothing_that_is_tried():
    """Its own Pod and ConfigMaps, chosen by the Service of the others; the selectors of both Deployments are apart."""
    base, canary = overlay("base"), overlay("canary")
    stable, tried = one(base, "Deployment"), one(canary, "Deployment")
    selector = one(base, "Service")["spec"]["selector"]
    labels = tried["spec"]["template"]["metadata"]["labels"]
    names = [{(each["kind"], each["metadata"]["name"]) for each in manifests} for manifests in (base, canary)]
    assert names[0].isdisjoint(names[1])
    assert selector.items() <= labels.items()
    assert not stable["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert tried["spec"]["replicas"] == 1
    assert spec_of(tried)["serviceAccountName"] == one(base, "ServiceAccount")["metadata"]["name"]
    assert one(canary, "ConfigMap", "web-site-canary")["data"] != one(base, "ConfigMap", "web-site")["data"]


def test_the_rollback_of_the_canary_ends_its_pod_and_changes_nothing_else():
    canary, back = (json.loads(json.dumps(overlay(name))) for name in ("canary", "canary-rollback"))
    assert one(back, "Deployment")["spec"].pop("replicas") == 0
    one(canary, "Deployment")["spec"].pop("replicas")
    assert back == canary


def _sidecar(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    deployment = one(overlay(name), "Deployment")
    return spec_of(deployment), dict(containers(deployment)["reloader"])


def test_the_native_sidecar_starts_first_and_ends_last():
    spec, ours = _sidecar("base")
    assert [each["name"] for each in spec["initContainers"]] == ["reloader"]
    assert ours["restartPolicy"] == "Always"
    assert ours["startupProbe"]["httpGet"]["path"] == "/startupz"


def test_the_classic_form_publishes_first_and_runs_beside():
    """But for where it stands, the sidecar is the same; what publishes first has the same mounts and rights, `state.path` among them."""
    (_, native), (spec, ours) = _sidecar("base"), _sidecar("classic")
    [once] = spec["initContainers"]
    assert once["args"] == ["once"]
    assert {key: value for key, value in native.items() if key != "restartPolicy"} == ours
    assert {key: once[key] for key in ("image", "securityContext", "resources", "volumeMounts")} == {
        key: ours[key] for key in ("image", "securityContext", "resources", "volumeMounts")
    }
    assert any(mount["mountPath"] == "/run/reloader" for mount in once["volumeMounts"])
    assert {each["name"] for each in spec["containers"]} == {"reloader", "nginx"}


def test_the_token_for_vault_is_for_vault_and_the_sidecar_alone():
    """Its configuration reads it from where it is mounted, and logs in as the ServiceAccount that the Pod has."""
    manifests = overlay("vault")
    deployment = one(manifests, "Deployment")
    [source] = next(each for each in spec_of(deployment)["volumes"] if each["name"] == "reloader-vault")["projected"]["sources"]
    [mount] = (each for each in containers(deployment)["reloader"]["volumeMounts"] if each["name"] == "reloader-vault")
    pipeline = yaml.safe_load(one(manifests, "ConfigMap", "web-reloader")["data"]["web.yaml"])
    assert source["serviceAccountToken"]["audience"] == "vault"
    assert pipeline["vault"]["auth"]["jwt_file"] == f"{mount['mountPath']}/{source['serviceAccountToken']['path']}"
    assert spec_of(deployment)["serviceAccountName"] == one(manifests, "ServiceAccount")["metadata"]["name"]
    assert spec_of(deployment)["automountServiceAccountToken"] is False
    assert [each["name"] for each in readers(deployment)] == ["nginx"]
