"""Workloads to which the sidecar is added, in shapes that no chart of `public.py` has.

The shapes are those of widely used charts, the text is ours: an ingress controller (another container beside it, a capability of its own, a
webhook's certificate), and a database with claimed storage (a StatefulSet with an init container that is root). Neither knows of a sidecar.
"""

from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Existing:
    """A workload, and what a user has to say about it: which container reads where, and whose user that is."""

    manifest: dict[str, Any]
    container: str
    reads: str
    user: int | None
    """What the sidecar has to say of its user; nothing where the Pod says it."""

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The one that is written in it; nothing where that is left to whoever applies it."""
        return str(self.manifest["metadata"].get("namespace", ""))


INGRESS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge-controller, labels: {app.kubernetes.io/name: edge}}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: edge, app.kubernetes.io/component: controller}}
  minReadySeconds: 0
  template:
    metadata: {labels: {app.kubernetes.io/name: edge, app.kubernetes.io/component: controller}}
    spec:
      dnsPolicy: ClusterFirst
      serviceAccountName: edge
      terminationGracePeriodSeconds: 300
      nodeSelector: {kubernetes.io/os: linux}
      containers:
        - name: controller
          image: example.com/edge:1.15
          args: [/edge-controller, --election-id=edge]
          lifecycle: {preStop: {exec: {command: [/wait-shutdown]}}}
          securityContext:
            runAsNonRoot: true
            runAsUser: 101
            runAsGroup: 82
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
          env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
          ports: [{name: http, containerPort: 80}, {name: https, containerPort: 443}, {name: webhook, containerPort: 8443}]
          livenessProbe: {httpGet: {path: /healthz, port: 10254}, failureThreshold: 5}
          volumeMounts: [{name: webhook-cert, mountPath: /usr/local/certificates/, readOnly: true}]
        - name: exporter
          image: example.com/exporter:2
          ports: [{name: metrics, containerPort: 9113}]
      volumes: [{name: webhook-cert, secret: {secretName: edge-admission}}]
"""
DATABASE = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  serviceName: store-headless
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}, annotations: {checksum/configuration: 1b4f0e98}}
    spec:
      initContainers:
        - name: volume-permissions
          image: example.com/shell:12
          command: [sh, -c, chown -R 999 /data]
          securityContext: {runAsUser: 0}
          volumeMounts: [{name: data, mountPath: /data}]
      containers:
        - name: store
          image: example.com/store:16
          ports: [{name: tcp-store, containerPort: 5432}]
          readinessProbe: {exec: {command: [store-ready]}, initialDelaySeconds: 5}
          securityContext: {runAsUser: 999}
          volumeMounts: [{name: data, mountPath: /data}, {name: dshm, mountPath: /dev/shm}]
      volumes: [{name: dshm, emptyDir: {medium: Memory}}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 8Gi}}}
"""
EVERY = (
    Existing(yaml.safe_load(INGRESS), container="controller", reads="/etc/edge/live", user=101),
    Existing(yaml.safe_load(DATABASE), container="store", reads="/etc/store/tls", user=999),
)
