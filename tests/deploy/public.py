"""Charts of other projects, in the words of those projects: they come in Python packages, and are rendered with their default values.

`dask-kubernetes` brings the chart of Dask's operator. `magnum-cluster-api` brings those of Cilium, of Kubernetes' cluster autoscaler and of
its cloud provider for OpenStack, as released but for two patches: a rule for the autoscaler, a Secret and the namespace for Manila.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.deploy.adding import FORMS
from tests.deploy.existing import Existing
from tests.deploy.rendering import Manifest, charted, workloads
from tests.servers import UnavailableError, missing
from tests.servers.wheels import unpacked_of

DASK = ("dask-kubernetes==2026.3.0", "dask_kubernetes/operator/deployment/helm")
MAGNUM = ("magnum-cluster-api==0.38.2", "magnum_cluster_api/charts")
NAMESPACE = "kube-system"


@dataclass(frozen=True)
class Chart:
    """A chart in a wheel, and which container of which of its workloads gets the sidecar."""

    wheel: tuple[str, str]
    name: str
    kind: str
    container: str
    user: int | None = None
    """What the sidecar has to say of its user; nothing where the Pod says it, or where nobody does."""
    forms: tuple[str, ...] = ("any user",)
    """What fits: where the chart leaves the user to the image, or wants root, the sidecar has to be root."""
    values: Mapping[str, Any] = field(default_factory=dict)

    def rendered(self) -> tuple[Existing, list[Manifest]]:
        """Return the workload, and what else is rendered but other workloads; the test is over where the chart cannot be had."""
        try:
            folder = unpacked_of(*self.wheel)
        except UnavailableError as reason:
            missing(reason)
        manifests = charted(self.values, folder / self.name, namespace=NAMESPACE)
        [workload] = [each for each in workloads(manifests) if each["kind"] == self.kind]
        others = [each for each in manifests if each not in workloads(manifests)]
        return Existing(workload, self.container, reads="/etc/live", user=self.user), others


CHARTS = {
    "Dask": Chart(DASK, "dask-kubernetes-operator", "Deployment", "dask-kubernetes-operator", 1000, tuple(FORMS)),
    "cluster autoscaler": Chart(
        MAGNUM, "cluster-autoscaler", "Deployment", "aws-cluster-autoscaler", values={"autoDiscovery": {"clusterName": "any"}}
    ),
    "Cinder": Chart(MAGNUM, "openstack-cinder-csi", "Deployment", "cinder-csi-plugin"),
    "Cilium's operator": Chart(MAGNUM, "cilium", "Deployment", "cilium-operator"),
    "Manila": Chart(MAGNUM, "openstack-manila-csi", "StatefulSet", "nfs-nodeplugin"),
    "Cilium": Chart(MAGNUM, "cilium", "DaemonSet", "cilium-agent"),
    "OpenStack": Chart(MAGNUM, "openstack-cloud-controller-manager", "DaemonSet", "openstack-cloud-controller-manager", forms=tuple(FORMS)),
}
"""What they have: several containers (Cinder seven), init containers (Cilium six), privileged ones, the node's network and paths, a user in
the Pod or in the container or nowhere, a root file system that is read-only, `null` and empty lists where the values say nothing."""
