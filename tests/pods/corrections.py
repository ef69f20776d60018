"""What a Pod of the manifests needs to mean the same to podman as to a kubelet: each function is one difference, with its reason.

Where podman is more lenient, a passing test would say nothing of Kubernetes; where it lacks something, the Pod would not run. Nothing else
of the manifests is changed. Honoured are users, groups, a root that is read-only, dropped capabilities, no new privileges, memory limits,
and one process namespace.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.deploy.rendering import Manifest, one
from tests.pods.volumes import Volumes

RUNTIME = "kubernetes"
"""By podman's own runtime a capability that is added comes into effect for any user, in Kubernetes for root alone: see runtime.py."""
NETWORK = "none"
"""podman's own networks change the rules of this machine's firewall. What asks from outside is connected as in network.py."""

Spec = dict[str, Any]


@dataclass(frozen=True)
class Ground:
    """Where a Pod is to run."""

    images: Mapping[str, str]
    """By the names in the manifests."""
    maps: Mapping[str, Mapping[str, str]]
    """The data of each ConfigMap."""
    volumes: Volumes


def corrected(manifests: list[Manifest], images: Mapping[str, str], volumes: Volumes) -> Manifest:
    """Return the Pod that the Deployment among the manifests makes, without a name."""
    template = copy.deepcopy(one(manifests, "Deployment")["spec"]["template"])
    maps = {each["metadata"]["name"]: each["data"] for each in manifests if each["kind"] == "ConfigMap"}
    for correct in CORRECTIONS:
        correct(template["spec"], Ground(images, maps, volumes))
    return {"apiVersion": "v1", "kind": "Pod", **template}


def images_of_this_machine(spec: Spec, ground: Ground) -> None:
    """No image is pulled: the sidecar's is the one that the Dockerfile makes, NGINX is Debian's. Users name theirs in `images:`."""
    for container in _every(spec):
        container["image"] = ground.images[container["image"]]


def nobody_is_root_who_must_not(spec: Spec, _: Ground) -> None:
    """Podman does not enforce runAsNonRoot; the kubelet would not start such a container."""
    for container in _every(spec):
        context = {**spec["securityContext"], **container["securityContext"]}
        assert not context.get("runAsNonRoot") or context.get("runAsUser"), (
            f"{container['name']} has no user, or root, and must not be root"
        )


def native_sidecar_first(spec: Spec, _: Ground) -> None:
    """Podman waits for the end of a native sidecar for ever. Who starts the Pod keeps the order: the next once the startup probe holds."""
    sidecars = [each for each in spec.get("initContainers", ()) if each.pop("restartPolicy", None) == "Always"]
    assert sidecars == spec.pop("initContainers", []), "an init container that ends takes podman 20 s"
    spec["containers"] = sidecars + spec["containers"]


def no_probes(spec: Spec, _: Ground) -> None:
    """Podman has no readiness and no startup, and systemd would have to run liveness, by a curl in the image: see probing.py instead."""
    for container in spec["containers"]:
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            container.pop(name, None)


def no_ports(spec: Spec, _: Ground) -> None:
    """Podman refuses declared ports beside `NETWORK`, since it would publish them; Kubernetes takes them for a word about the container."""
    for container in spec["containers"]:
        container.pop("ports", None)


def empty_dirs(spec: Spec, ground: Ground) -> None:
    """Podman's belong to the first user, who alone may write, are on a disk though they are to be in memory, and have no limit."""
    group = spec["securityContext"].get("fsGroup")
    for volume in spec["volumes"]:
        if "emptyDir" in volume:
            _at(volume, ground.volumes.empty(volume["name"], volume.pop("emptyDir"), group))


def config_maps(spec: Spec, ground: Ground) -> None:
    """Podman copies a ConfigMap once; the kubelet updates it by a rename, as tests/kubelet.py does."""
    for volume in spec["volumes"]:
        if "configMap" in volume:
            name = volume.pop("configMap")["name"]
            _at(volume, ground.volumes.config_map(name, ground.maps[name]))


def group_of_the_volumes(spec: Spec, _: Ground) -> None:
    """Podman ignores fsGroup: `empty_dirs` gives the volumes to that group, and here all containers are in it."""
    context = spec["securityContext"]
    context["supplementalGroups"] = [*context.get("supplementalGroups", ()), context.pop("fsGroup")]


CORRECTIONS = (
    images_of_this_machine,
    nobody_is_root_who_must_not,
    native_sidecar_first,
    no_probes,
    no_ports,
    empty_dirs,
    config_maps,
    group_of_the_volumes,
)


def _every(spec: Spec) -> list[Spec]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


def _at(volume: Spec, path: object) -> None:
    volume["hostPath"] = {"path": str(path), "type": "Directory"}
