"""Whether manifests hold together where a schema sees nothing."""

from collections.abc import Iterable, Iterator
from typing import Any

from tests.deploy.rendering import Manifest, workloads

NAMES = ("startupProbe", "readinessProbe", "livenessProbe")
FIELDS = ("runAsUser", "runAsNonRoot", "runAsGroup", "seccompProfile")
"""What a container has from its Pod unless it says otherwise."""


def wrong_with(manifests: Iterable[Manifest]) -> list[str]:
    """Return a sentence for each thing that does not hold together."""
    every = list(manifests)
    found = [f"{each['metadata']['name']}: {told}" for each in workloads(every) for told in _wrong_with_one(each)]
    return [*found, *_services(every), *_elsewhere(every)]


def spec_of(workload: Manifest) -> dict[str, Any]:
    """Return the specification of its Pods."""
    return dict(workload["spec"]["template"]["spec"])


def containers(workload: Manifest) -> dict[str, dict[str, Any]]:
    """Return its containers, those that start first too, by their names."""
    spec = spec_of(workload)
    return {each["name"]: each for each in (*spec.get("initContainers", ()), *spec["containers"])}


def security(workload: Manifest, container: dict[str, Any]) -> dict[str, Any]:
    """Return what holds for a container: its own, else its Pod's."""
    of_pod = spec_of(workload).get("securityContext") or {}
    return {**{name: of_pod[name] for name in FIELDS if name in of_pod}, **(container.get("securityContext") or {})}


def readers(workload: Manifest) -> list[dict[str, Any]]:
    """Return the containers other than ours that mount the volume `live`: the targets."""
    others = (each for name, each in containers(workload).items() if not name.startswith("reloader"))
    return [each for each in others if any(mount["name"] == "live" for mount in each.get("volumeMounts") or ())]


def _wrong_with_one(workload: Manifest) -> Iterator[str]:
    spec = spec_of(workload)
    names = [each["name"] for key in ("initContainers", "containers") for each in spec.get(key) or ()]
    yield from (f"two containers are called {name}" for name in {name for name in names if names.count(name) > 1})
    labels = workload["spec"]["template"]["metadata"]["labels"]
    if not workload["spec"]["selector"]["matchLabels"].items() <= labels.items():
        yield "its selector does not fit the labels of its Pods"
    yield from _mounts(workload)
    for name, container in containers(workload).items():
        yield from (f"{name}: {told}" for told in (*_probes(name, container), *_user(workload, name, container)))
    if "reloader" in containers(workload):
        yield from _ours(workload)


def _mounts(workload: Manifest) -> Iterator[str]:
    spec, parts = spec_of(workload), list(containers(workload).values())
    claimed = {each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates") or ()}
    volumes = {each["name"] for each in spec.get("volumes") or ()}
    mounted = {mount["name"] for each in parts for mount in each.get("volumeMounts") or ()}
    yield from (f"{name} is mounted and no volume" for name in sorted(mounted - volumes - claimed))
    yield from (f"the volume {name} is mounted nowhere" for name in sorted(volumes - mounted))
    for each in parts:
        paths = [mount["mountPath"] for mount in each.get("volumeMounts") or ()]
        yield from (f"{each['name']}: two mounts at {path}" for path in {path for path in paths if paths.count(path) > 1})


def _probes(name: str, container: dict[str, Any]) -> Iterator[str]:
    ports = list(container.get("ports") or ())
    declared = {each.get("name") for each in ports} | {each["containerPort"] for each in ports}
    asked = (
        (probe, container[probe].get(how, {}).get("port")) for probe in NAMES if probe in container for how in ("httpGet", "tcpSocket")
    )
    for probe, port in asked:
        # Kubernetes itself asks that of names only; a number that nobody declares is other people's habit, and not ours.
        if port is not None and port not in declared and (isinstance(port, str) or name.startswith("reloader")):
            yield f"{probe} asks a port that is not declared: {port}"


def _user(workload: Manifest, name: str, container: dict[str, Any]) -> Iterator[str]:
    context = security(workload, container)
    not_root = bool(context.get("runAsUser") or context.get("runAsNonRoot"))
    # A program of somebody else may have a capability of its file; ours has none.
    if name.startswith("reloader") and not_root and (context.get("capabilities") or {}).get("add"):
        yield "a capability is added for a user that is not root, which does nothing"
    if context.get("runAsNonRoot") and context.get("runAsUser") == 0:
        yield "runs as root and must not"


def _ours(workload: Manifest) -> Iterator[str]:
    spec, ours = spec_of(workload), containers(workload)["reloader"]
    if not (spec.get("shareProcessNamespace") or spec.get("hostPID")) or spec.get("enableServiceLinks") is not False:
        yield "its processes are not shared, or the variables of Services come in"
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        yield "Kubernetes refuses shareProcessNamespace beside hostPID"
    yield from _signal(workload)
    yield from _memory(workload)
    for name, each in containers(workload).items():
        theirs = {mount["name"] for mount in each.get("volumeMounts") or ()}
        if not name.startswith("reloader") and theirs & {"reloader-state", "reloader-vault"}:
            yield f"{name} mounts what is the sidecar's alone"
    probe = ours["startupProbe"]
    if probe["periodSeconds"] * probe["failureThreshold"] < 2 * 30:
        yield "the startup probe is too short for startup_grace"


def _signal(workload: Manifest) -> Iterator[str]:
    own = security(workload, containers(workload)["reloader"])
    root = own.get("runAsUser") == 0 and "KILL" in (own["capabilities"].get("add") or ())
    if not readers(workload):
        yield "no container reads what the sidecar writes"
    for each in readers(workload):
        uid = security(workload, each).get("runAsUser")
        if not root and (uid is None or own.get("runAsUser") != uid):
            yield f"the sidecar, user {own.get('runAsUser')}, may not signal {each['name']}, user {uid}"
        if uid and own.get("runAsUser") != uid and "fsGroup" not in (spec_of(workload).get("securityContext") or {}):
            yield f"{each['name']}, user {uid}, may not read what user {own.get('runAsUser')} writes"
        live = [mount for mount in each["volumeMounts"] if mount["name"] == "live"]
        if any(not mount.get("readOnly") or "subPath" in mount for mount in live):
            yield f"{each['name']} may write what the sidecar writes, or mounts a part of it"


def _memory(workload: Manifest) -> Iterator[str]:
    volumes = {each["name"]: each.get("emptyDir") or {} for each in spec_of(workload)["volumes"]}
    for name in ("live", "reloader-state"):
        if volumes[name].get("medium") != "Memory" or "sizeLimit" not in volumes[name]:
            yield f"the volume {name} is not in memory, or without a limit"


def _services(manifests: list[Manifest]) -> Iterator[str]:
    for service in (each for each in manifests if each["kind"] == "Service" and each["spec"].get("selector")):
        chosen = [
            each
            for each in workloads(manifests)
            if service["spec"]["selector"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        ports = {port.get("name") for each in chosen for part in containers(each).values() for port in part.get("ports") or ()}
        missing = [port["targetPort"] for port in service["spec"]["ports"] if isinstance(port.get("targetPort"), str)]
        yield from (f"Service {service['metadata']['name']}: no Pod has the port {port}" for port in missing if port not in ports)


def _elsewhere(manifests: list[Manifest]) -> Iterator[str]:
    spaces = {each["metadata"].get("namespace") for each in workloads(manifests) if "reloader" in containers(each)}
    ours = (each for each in manifests if each["metadata"]["name"].split("-")[0] == "reloader")
    for each in ours:
        if spaces and each["metadata"].get("namespace") not in spaces:
            yield f"{each['kind']} {each['metadata']['name']}: no Pod with the sidecar is in its namespace"
