"""What can be said of the Pod before it runs: its manifest held against the configuration."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import ceil
from pathlib import PurePosixPath
from typing import Any

from reloader.doctor.checks import Check, each, failed, ok, skipped, warning
from reloader.doctor.container import SPARE_MEMORY, USUAL_LIMIT, need_of
from reloader.doctor.finding import Evidence, Finding, Mend
from reloader.doctor.mends import Fragment, ours, pod, target_name, target_words, words
from reloader.doctor.patient import Patient
from reloader.doctor.room import mebibytes
from reloader.doctor.workload import Manifest, Workload, arguments, named
from reloader.plan import FailurePolicy, Pipeline, Server

PROBES: Mapping[str, tuple[str, ...]] = {
    "startupProbe": ("/startupz",),
    "readinessProbe": ("/readyz", "/readyz/*", "/startupz"),
    "livenessProbe": ("/healthz",),
}
"""What each probe may ask for; liveness on readiness would restart a reloader that waits for a server."""
_PERIOD, _FAILURES = 10, 3
"""What Kubernetes takes where a probe does not say."""
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_NONE = "no manifest was given (--manifest FILE), and what only a manifest tells was not looked at"
_OTHERS, _OTHERS_READ = 0o005, 0o004
"""Of a mode: what lets a user who is neither owner nor of the group into a directory, and read a file."""
GRACES = 2
"""How many times `startup_grace` a startup probe waits at least: the grace itself, and the first reads after it."""


def _found(patient: Patient) -> Iterator[Finding]:
    if patient.unfit:
        yield failed(patient.unfit)
    elif patient.workload is None:
        yield skipped(_NONE)
    else:
        yield ok(f"container {patient.workload.container.get('name')} of {patient.workload.where} runs reloader")


def _of(patient: Patient) -> Iterator[Workload]:
    if patient.workload is not None:
        yield patient.workload


def _namespace(patient: Patient) -> Iterator[Finding]:
    return each((_shares(patient, workload) for workload in _of(patient)), _NONE)


def _shares(patient: Patient, workload: Workload) -> Finding:
    if workload.spec.get("hostPID") is True:
        return ok("the containers see all processes of their node", evidence=[Evidence(_at(workload, "hostPID"), "true")])
    shared = workload.spec.get("shareProcessNamespace")
    seen = [Evidence(_at(workload, "shareProcessNamespace"), str(shared).lower() if shared is not None else "not there")]
    if shared is True:
        return ok("the containers share their processes", evidence=seen)
    if patient.plan.pipelines and not any(pipeline.target.kind == "process" for pipeline in patient.plan.pipelines):
        return ok("no pipeline signals a process", evidence=seen)
    told = "the containers do not share their processes, so no target can be found or signalled"
    return failed(told, evidence=seen, mends=[pod(patient, {"shareProcessNamespace": True})])


def _startup(patient: Patient) -> Iterator[Finding]:
    return each((_budget(patient, workload) for workload in _of(patient)), _NONE)


def _budget(patient: Patient, workload: Workload) -> Finding:
    graces = [pipeline.failure.startup_grace for pipeline in patient.plan.pipelines]
    grace, probe = max(graces, default=FailurePolicy().startup_grace), workload.container.get("startupProbe")
    if not isinstance(probe, dict):
        if workload.listed == "containers":
            return ok("an ordinary container needs none")
        asked = {
            "httpGet": {"path": PROBES["startupProbe"][0], "port": _port(_listen(patient, workload))},
            "periodSeconds": 1,
            "failureThreshold": ceil(GRACES * grace),
        }
        told = "a native sidecar without a startup probe: the target starts before its first configuration is there"
        seen = [Evidence(_at(workload, "startupProbe", of=workload.container), "not there")]
        return warning(told, evidence=seen, mends=[ours(patient, {"startupProbe": asked})])
    period, failures = int(probe.get("periodSeconds", _PERIOD)), int(probe.get("failureThreshold", _FAILURES))
    delay = int(probe.get("initialDelaySeconds", 0))
    budget = delay + period * failures
    written = (
        f"initialDelaySeconds {delay} + failureThreshold {failures} * periodSeconds {period} = {budget} s; startup_grace is {grace:g} s"
    )
    seen = [Evidence(_at(workload, "startupProbe", of=workload.container), written)]
    mends = [ours(patient, {"startupProbe": {"failureThreshold": max(failures, ceil((GRACES * grace - delay) / period))}})]
    if budget <= grace:
        told = (
            f"the startup probe gives up after {budget} s, before startup_grace ({grace:g} s) is over: the kubelet restarts what only waits"
        )
        return failed(told, evidence=seen, mends=mends)
    if budget < GRACES * grace:
        return warning(f"the startup probe gives up after {budget} s; {GRACES * grace:g} s leave time", evidence=seen, mends=mends)
    return ok(f"the startup probe waits {budget} s, startup_grace is {grace:g} s", evidence=seen)


def _users(patient: Patient) -> Iterator[Finding]:
    signalled = [pipeline for pipeline in patient.plan.pipelines if pipeline.target.kind == "process"]
    return each((_may_signal(patient, workload, pipeline) for workload in _of(patient) for pipeline in signalled), _NONE)


def _may_signal(patient: Patient, workload: Workload, pipeline: Pipeline) -> Finding:
    target = workload.target(*target_words(pipeline))
    if target is None:
        return skipped("it is not clear which container is the target's", pipeline.name)
    own, their = (_security(workload, each).get("runAsUser") for each in (workload.container, target))
    added, dropped = (_capabilities(workload.container, key) for key in ("add", "drop"))
    seen = [
        Evidence(_at(workload, "securityContext", of=workload.container), f"runAsUser {own}, capabilities.add {added}, .drop {dropped}"),
        Evidence(_at(workload, "securityContext", of=target), f"runAsUser {their}"),
    ]
    if own is not None and own == their:
        return ok(f"both run as uid {own}", pipeline.name, evidence=seen)
    if own == 0 and _has_kill(workload, added, dropped):
        return ok("uid 0 with KILL may signal everyone", pipeline.name, evidence=seen)
    if own is None or their is None:
        told = "an image decides whose user it is: the reloader may signal the target only as the same one"
        return warning(told, pipeline.name, evidence=seen, mends=[_one_user(patient, pipeline, their if own is None else own)])
    why = "; `add: [KILL]` comes into effect for root alone, and does nothing for another user" if "KILL" in added else ""
    root = {"runAsUser": 0, "runAsNonRoot": False, "capabilities": {"drop": ["ALL"], "add": ["KILL"]}}
    mends = [_one_user(patient, pipeline, their), ours(patient, {"securityContext": root})]
    return failed(f"uid {own} may not signal uid {their}{why}", pipeline.name, evidence=seen, mends=mends)


def _one_user(patient: Patient, pipeline: Pipeline, uid: Any) -> Mend:
    whose = {"securityContext": {"runAsUser": uid if uid is not None else 10001}}
    if patient.workload is None:
        return ours(patient, whose)
    listed, name = patient.workload.listed, str(patient.workload.container.get("name"))
    of_target = {"name": target_name(patient, pipeline), **whose}
    if listed == "containers":
        return pod(patient, {"containers": [{"name": name, **whose}, of_target]})
    return pod(patient, {listed: [{"name": name, **whose}], "containers": [of_target]})


def _volumes(patient: Patient) -> Iterator[Finding]:
    found = ((workload, pipeline) for workload in _of(patient) for pipeline, _ in patient.volumes())
    return each((_shared(patient, workload, pipeline) for workload, pipeline in found), _NONE)


def _shared(patient: Patient, workload: Workload, pipeline: Pipeline) -> Finding:
    volume = pipeline.volume
    if volume is None:
        return skipped("it has no volume", pipeline.name)
    mount = _mount_at(workload.container, volume.path)
    if mount is None:
        return failed(f"nothing is mounted at {volume.path}", pipeline.name, mends=[_given(patient, workload, pipeline, volume.path)])
    seen = [Evidence(_at(workload, "volumeMounts", of=workload.container), str(dict(mount)))]
    if mount.get("readOnly") or mount.get("subPath"):
        what = "read-only" if mount.get("readOnly") else "mounted by subPath"
        mends = [ours(patient, {"volumeMounts": [{**mount, "readOnly": False, "subPath": None}]})]
        return failed(f"{volume.path} is {what} in the reloader's container", pipeline.name, evidence=seen, mends=mends)
    target = workload.target(*target_words(pipeline))
    if target is None:
        return skipped("it is not clear which container is the target's", pipeline.name)
    theirs = [each for each in named(target, "volumeMounts") if each.get("name") == mount.get("name")]
    seen += [Evidence(_at(workload, "volumeMounts", of=target), str(dict(each))) for each in theirs]
    wanted = volume.target_path or volume.path
    if not any(_inside(each, wanted) == _inside(mount, volume.path) for each in theirs):
        parts = any(each.get("subPath") for each in theirs)
        how = "mounts the volume by subPath, which no publish reaches" if parts else f"does not mount it at {wanted}"
        fragment = {"name": target.get("name"), "volumeMounts": [{"name": mount.get("name"), "mountPath": wanted, "readOnly": True}]}
        return failed(f"{target.get('name')} {how}", pipeline.name, evidence=seen, mends=[pod(patient, {"containers": [fragment]})])
    return _unreadable(patient, workload, pipeline, target) or _in_memory(patient, workload, pipeline, mount, seen)


def _unreadable(patient: Patient, workload: Workload, pipeline: Pipeline, target: Manifest) -> Finding | None:
    """Return what is wrong if another user than ours reads the volume, and has no group with us by which he may."""
    own, their = (_security(workload, each).get("runAsUser") for each in (workload.container, target))
    group = (workload.spec.get("securityContext") or {}).get("fsGroup")
    if own == their or None in (own, their) or their == 0 or group is not None or _for_everyone(pipeline):
        return None
    seen = [Evidence(_at(workload, "securityContext.fsGroup"), "not there")]
    told = f"uid {their} may not read what uid {own} writes: they have no group in common"
    mends = [pod(patient, {"securityContext": {"fsGroup": their}})]
    return failed(told, pipeline.name, evidence=seen, mends=mends)


def _for_everyone(pipeline: Pipeline) -> bool:
    volume = pipeline.volume
    if volume is None or volume.copy is not None or volume.dir_mode & _OTHERS != _OTHERS:
        return False
    return all(file.mode & _OTHERS_READ for file in volume.files.values())


def _in_memory(patient: Patient, workload: Workload, pipeline: Pipeline, mount: Manifest, seen: list[Evidence]) -> Finding:
    source = next((each for each in named(workload.spec, "volumes") if each.get("name") == mount.get("name")), {})
    secret = [name for name, each in pipeline.sources.items() if each.kind == "vault"]
    empty = source.get("emptyDir")
    if secret and isinstance(empty, dict | None) and (empty or {}).get("medium") != "Memory":
        told = f"the volume is not in memory, and {', '.join(secret)} of it is secret"
        mend = pod(patient, {"volumes": [{"name": mount.get("name"), "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]})
        return warning(told, pipeline.name, evidence=[*seen, Evidence(_at(workload, "volumes"), str(dict(source)))], mends=[mend])
    return ok(f"both containers mount {mount.get('name')}", pipeline.name, evidence=seen)


def _given(patient: Patient, workload: Workload, pipeline: Pipeline, path: str) -> Mend:
    wanted = (pipeline.volume.target_path or path) if pipeline.volume else path
    own = {"name": workload.container.get("name"), "volumeMounts": [{"name": "live", "mountPath": path}]}
    their = {"name": target_name(patient, pipeline), "volumeMounts": [{"name": "live", "mountPath": wanted, "readOnly": True}]}
    spec: dict[str, Any] = {"volumes": [{"name": "live", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]}
    spec |= {"containers": [own, their]} if workload.listed == "containers" else {workload.listed: [own], "containers": [their]}
    return pod(patient, spec)


def _mount_at(container: Manifest, path: str) -> Manifest | None:
    mounts = [each for each in named(container, "volumeMounts") if _inside(each, path) is not None]
    return max(mounts, key=lambda each: len(str(each["mountPath"])), default=None)


def _inside(mount: Manifest, path: str) -> PurePosixPath | None:
    """Return where in the volume itself a path of a container is; None where this mount does not hold it."""
    if not mount.get("mountPath") or not PurePosixPath(path).is_relative_to(str(mount["mountPath"])):
        return None
    return PurePosixPath(str(mount.get("subPath") or "."), PurePosixPath(path).relative_to(str(mount["mountPath"])))


def _probes(patient: Patient) -> Iterator[Finding]:
    found = [(workload, name) for workload in _of(patient) for name in PROBES if isinstance(workload.container.get(name), dict)]
    return each((_probe(patient, workload, name) for workload, name in found), _NONE if patient.workload is None else "it has no probes")


def _probe(patient: Patient, workload: Workload, name: str) -> Finding:
    asked = workload.container[name].get("httpGet") or {}
    path, port = str(asked.get("path", "")), asked.get("port")
    seen = [Evidence(_at(workload, name, of=workload.container), f"httpGet {path} on port {port}")]
    if not asked:
        return skipped(f"{name} does not ask by HTTP", name)
    known = {each.get("name"): each.get("containerPort") for each in named(workload.container, "ports")}
    listen, right = _listen(patient, workload), PROBES[name]
    if listen == "off":
        mends = [words(f"Give server.listen an address, such as {Server().listen}, or remove the probe.")]
        return failed("nobody answers it: server.listen is off", name, evidence=seen, mends=mends)
    wanted = _port(listen)
    fits = any(path == each or (each.endswith("*") and path.startswith(each[:-1])) for each in right)
    if fits and known.get(port, port) == wanted:
        return ok(f"{path} on port {port}", name, evidence=seen)
    told = (
        f"it asks for {path}, which is not {right[0]}"
        if not fits
        else f"it asks on port {port}, and the endpoints are on {wanted} (server.listen)"
    )
    mend = ours(patient, {name: {"httpGet": {"path": path if fits else right[0], "port": wanted}}})
    return failed(told, name, evidence=seen, mends=[mend])


def _listen(patient: Patient, workload: Workload) -> str:
    """Return where our container serves the endpoints: its option says, else its variable, else the configuration."""
    given = arguments(workload.container)
    options = [text.partition("=")[2] for text in given if text.startswith("--listen=")]
    options += [text for option, text in pairwise(given) if option == "--listen"]
    options += [str(each.get("value")) for each in named(workload.container, "env") if each.get("name") == "RELOADER_SERVER__LISTEN"]
    return next(iter([*options, patient.plan.server.listen]))


def _port(listen: str) -> int:
    port = listen.rpartition(":")[2]
    return int(port) if port.isdecimal() else _port(Server().listen)


def _restart(patient: Patient) -> Iterator[Finding]:
    return each((_restarts(patient, workload) for workload in _of(patient)), _NONE)


def _restarts(patient: Patient, workload: Workload) -> Finding:
    once, policy = "once" in arguments(workload.container), workload.container.get("restartPolicy")
    seen = [Evidence(_at(workload, "restartPolicy", of=workload.container), str(policy))]
    if workload.listed == "containers" or once or policy == "Always":
        return ok("it runs once, before the others" if once else "it runs beside the target", evidence=seen)
    told = "an init container that never ends: without restartPolicy: Always, the target never starts"
    return failed(told, evidence=seen, mends=[ours(patient, {"restartPolicy": "Always"})])


def _memory(patient: Patient) -> Iterator[Finding]:
    return each((_limit(patient, workload) for workload in _of(patient)), _NONE)


def _limit(patient: Patient, workload: Workload) -> Finding:
    written = ((workload.container.get("resources") or {}).get("limits") or {}).get("memory")
    need, how = need_of(patient)
    seen = [Evidence(_at(workload, "resources.limits.memory", of=workload.container), str(written)), Evidence(how, f"{need} bytes")]
    limit = _bytes(str(written)) if written is not None else None
    if limit is None:
        return ok("there is no limit" if written is None else f"{written} is not understood", evidence=seen)
    if limit >= need * SPARE_MEMORY:
        return ok(f"the limit is {mebibytes(limit)}, {mebibytes(need)} are needed", evidence=seen)
    whole = -(-max(USUAL_LIMIT, 2 * need) // (32 * 2**20)) * 32
    mends = [ours(patient, {"resources": {"limits": {"memory": f"{whole}Mi"}}})]
    return failed(f"the limit of {mebibytes(limit)} is too small: {mebibytes(need)} were measured", evidence=seen, mends=mends)


def _bytes(written: str) -> int | None:
    number = written.rstrip("kMGKi")
    unit = written.removeprefix(number)
    return int(float(number) * _UNITS[unit]) if number.replace(".", "", 1).isdecimal() and unit in _UNITS else None


def _hardened(patient: Patient) -> Iterator[Finding]:
    return each((_read_only(patient, workload) for workload in _of(patient)), _NONE)


def _read_only(patient: Patient, workload: Workload) -> Finding:
    found = (workload.container.get("securityContext") or {}).get("readOnlyRootFilesystem")
    seen = [Evidence(_at(workload, "securityContext.readOnlyRootFilesystem", of=workload.container), str(found).lower())]
    if found is True:
        return ok("the root file system is read-only", evidence=seen)
    mend: Fragment = {"securityContext": {"readOnlyRootFilesystem": True}}
    return warning("the root file system is writable, which the reloader does not need", evidence=seen, mends=[ours(patient, mend)])


def _links(patient: Patient) -> Iterator[Finding]:
    return each((_service_links(patient, workload) for workload in _of(patient)), _NONE)


def _service_links(patient: Patient, workload: Workload) -> Finding:
    links = workload.spec.get("enableServiceLinks")
    seen = [Evidence(_at(workload, "enableServiceLinks"), str(links).lower() if links is not None else "not there, which is true")]
    called = [name for name in workload.services if f"{name}-".startswith("reloader-")]
    if links is False or not called:
        return ok(
            "no Service's variables begin like this program's" if links is not False else "no Service's variables come in", evidence=seen
        )
    told = f"the Service {called[0]} puts RELOADER_* variables into the containers"
    return warning(told, evidence=seen, mends=[pod(patient, {"enableServiceLinks": False})])


def _security(workload: Workload, container: Manifest) -> dict[str, Any]:
    return {**(workload.spec.get("securityContext") or {}), **(container.get("securityContext") or {})}


def _capabilities(container: Manifest, key: str) -> list[str]:
    found = (container.get("securityContext") or {}).get("capabilities") or {}
    return [str(each).removeprefix("CAP_") for each in found.get(key) or ()]


def _has_kill(workload: Workload, added: list[str], dropped: list[str]) -> bool:
    """Return whether our container, if it is root's, has KILL: engines give it to root unless it is dropped."""
    privileged = (workload.container.get("securityContext") or {}).get("privileged") is True
    return privileged or ("KILL" not in dropped and ("KILL" in added or "ALL" not in dropped))


def _at(workload: Workload, key: str, *, of: Manifest | None = None) -> str:
    inside = f"container {of.get('name')}: " if of is not None else ""
    return f"{workload.where}: {inside}{key}"


CHECKS = (
    Check("manifest.found", "a container in the manifests runs reloader", _found, is_here=False),
    Check("manifest.namespace", "the Pod shares its processes", _namespace, is_here=False),
    Check("manifest.startup", "the startup probe waits longer than startup_grace", _startup, is_here=False),
    Check("manifest.users", "the reloader's user may signal the target's", _users, is_here=False),
    Check("manifest.volumes", "both mount the volume whole, ours writable, secrets in memory", _volumes, is_here=False),
    Check("manifest.probes", "probes ask for what they are about, on the right port", _probes, is_here=False),
    Check("manifest.restart", "a sidecar among the init containers has restartPolicy: Always", _restart, is_here=False),
    Check("manifest.memory", "the memory limit leaves room", _memory, is_here=False),
    Check("manifest.root", "the root file system is read-only", _hardened, is_here=False),
    Check("manifest.links", "no Service's variables come in", _links, is_here=False),
)
