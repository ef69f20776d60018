"""What this container gives: a read-only root, watches, descriptors, memory."""

import errno
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

from reloader.backends.wake import Watches
from reloader.doctor.checks import Check, failed, ok, skipped, warning
from reloader.doctor.finding import Evidence, Finding, Mend
from reloader.doctor.mends import by_place, command, compose, ours, words
from reloader.doctor.patient import Patient
from reloader.doctor.place import Place, covering
from reloader.doctor.room import mebibytes
from reloader.doctor.state import own_volume
from reloader.state import state_directory

LEAST_INSTANCES, LEAST_WATCHES = 8192, 524288
"""What a node is told to allow at least; the kernel's own 128 instances are for all Pods of a user together."""
SPARE_MEMORY, USUAL_LIMIT = 1.25, 128 * 2**20
"""How many times what was measured a limit must be, and what the manifests of this project have."""
_UNLIMITED = 2**60
"""From here on control groups of the first version mean no limit."""
_DESCRIPTORS = 64
"""What the process has open beside its pipelines: endpoints with their connections, the log, the control socket."""
_PER_PIPELINE = 16


def _root(patient: Patient) -> Iterator[Finding]:
    if patient.place is Place.HOST:
        yield skipped("this is a host")
        return
    root = covering(patient.machine.mounts(), "/")
    if root is None:
        yield skipped("/proc/self/mountinfo cannot be read")
        return
    seen = [Evidence("/proc/self/mountinfo", root.line)]
    if os.statvfs("/").f_flag & os.ST_RDONLY:
        yield ok("the root file system is read-only", evidence=seen)
        return
    mends = by_place(
        patient, pod=ours(patient, {"securityContext": {"readOnlyRootFilesystem": True}}), compose=compose({"read_only": True})
    )
    state = state_directory(patient.plan.state)
    mount = covering(patient.machine.mounts(), str(state)) if state else None
    more = own_volume(patient, state) if state is not None and mount is not None and mount.point == "/" else ()
    yield warning("the root file system is writable, which the reloader does not need", evidence=seen, mends=[*mends, *more])


def _inotify(patient: Patient) -> Iterator[Finding]:
    watches = Watches(threading.Event())
    watched = Path("/")
    try:
        found = watched.stat()
        watches.aim({(found.st_dev, found.st_ino): str(watched)})
    except OSError as error:
        yield _exhausted(patient, error)
    else:
        yield ok("a directory can be watched", evidence=[_limits(patient)])
    finally:
        watches.close()


def _exhausted(patient: Patient, error: OSError) -> Finding:
    instances = error.errno == errno.EMFILE
    what, least = ("instances", LEAST_INSTANCES) if instances else ("watches", LEAST_WATCHES)
    node = patient.machine.number(f"/proc/sys/fs/inotify/max_user_{what}") or 0
    own = patient.machine.number(f"/proc/sys/user/max_inotify_{what}")
    key = f"user.max_inotify_{what}" if own is not None and own < node else f"fs.inotify.max_user_{what}"
    amount = max(least, 2 * (own if own is not None and own < node else node))
    told = f"no directory can be watched ({error.strerror or error}), so each is read once a second instead, and changes are seen later"
    mends = [command(f"sysctl -w {key}={amount}", "a shell on the node, as root; and /etc/sysctl.d/ for its next start")]
    return warning(told, evidence=[_limits(patient), *_instances(patient)], mends=mends)


def _limits(patient: Patient) -> Evidence:
    names = ("fs/inotify/max_user_instances", "fs/inotify/max_user_watches", "user/max_inotify_instances", "user/max_inotify_watches")
    told = {name: patient.machine.number(f"/proc/sys/{name}") for name in names}
    return Evidence("/proc/sys", ", ".join(f"{name} {value}" for name, value in told.items() if value is not None))


def _instances(patient: Patient) -> Iterator[Evidence]:
    """Yield who holds instances, as far as that may be seen."""
    held: dict[str, int] = {}
    for process in patient.processes():
        try:
            links = [str(link.readlink()) for link in (patient.machine.root / f"proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue
        if count := sum(link == "anon_inode:inotify" for link in links):
            held[f"{process.comm} (pid {process.pid})"] = count
    if held:
        most = sorted(held.items(), key=lambda item: -item[1])[:5]
        yield Evidence("/proc/*/fd", "instances are held by " + ", ".join(f"{who}: {count}" for who, count in most))


def _descriptors(patient: Patient) -> Iterator[Finding]:
    soft, hard = _descriptor_limits(patient)
    plan = patient.plan
    connections = sum(
        each.max_connections for pipeline in plan.pipelines for each in (pipeline.connections.vault, pipeline.connections.consul) if each
    )
    need = _DESCRIPTORS + _PER_PIPELINE * len(plan.pipelines) + 2 * connections
    where = "/proc/self/limits"
    seen = [Evidence(where, f"Max open files {_shown(soft)}, at most {_shown(hard)}")]
    if soft == resource.RLIM_INFINITY or soft >= need:
        yield ok(f"{_shown(soft)} descriptors, {need} are needed", evidence=seen)
        return
    amount = max(1024, 2 * need)
    mends = [
        *by_place(patient, compose=compose({"ulimits": {"nofile": amount}})),
        command(
            f"ulimit -n {amount}", "what starts the reloader; in a Pod it is the container engine's limit (LimitNOFILE, default_ulimits)"
        ),
    ]
    yield failed(f"{_shown(soft)} descriptors are too few: this configuration needs {need}", evidence=seen, mends=mends)


def _descriptor_limits(patient: Patient) -> tuple[int, int]:
    """Return the limits of the reloader that runs here, which may be others than those of this process."""
    for process in patient.siblings()[:1] if _is_the_one(patient) else ():
        for line in (patient.machine.text(f"/proc/{process.pid}/limits") or "").splitlines():
            if line.startswith("Max open files"):
                soft, hard = (resource.RLIM_INFINITY if word == "unlimited" else int(word) for word in line.split()[3:5])
                return soft, hard
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def _shown(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _memory(patient: Patient) -> Iterator[Finding]:
    limit, where = limit_of(patient)
    need, how = need_of(patient)
    killed = _killed(patient)
    seen = [Evidence(where, "no limit" if limit is None else f"{limit} bytes"), Evidence(how, f"{need} bytes"), *killed]
    if limit is None:
        yield ok(f"there is no limit; {mebibytes(need)} are needed", evidence=seen)
    elif limit >= need * SPARE_MEMORY and not killed:
        yield ok(f"the limit is {mebibytes(limit)}, {mebibytes(need)} are needed", evidence=seen)
    else:
        told = f"the limit of {mebibytes(limit)} is too small: {mebibytes(need)} were measured, and a render may need half as much again"
        yield failed(told, evidence=seen, mends=_more(patient, max(USUAL_LIMIT, 2 * need if not killed else 2 * limit)))


def need_of(patient: Patient) -> tuple[int, str]:
    """Return the bytes that the reloader needs, and how that is known: its own peak, or that of this process, which loaded the same."""
    pids: tuple[int | str, ...] = (*(process.pid for process in patient.siblings() if _is_the_one(patient)), "self")
    peaks = {pid: _peak(patient, pid) for pid in pids}
    pid, peak = max(peaks.items(), key=lambda item: item[1])
    own = "VmHWM, the peak of this doctor, which loaded what a reloader loads" if pid == "self" else "VmHWM, its peak"
    return peak, f"/proc/{pid}/status: {own}"


def _is_the_one(patient: Patient) -> bool:
    """Return whether a reloader that runs here is the one that this is about; on a host, and beside a manifest, it may be any."""
    return patient.is_there and patient.place is not Place.HOST


def _peak(patient: Patient, pid: int | str) -> int:
    words_ = patient.machine.status(pid).get("VmHWM", "0 kB").split()
    return int(words_[0]) * 1024


def limit_of(patient: Patient) -> tuple[int | None, str]:
    """Return the smallest limit of this process's control group and of those above it, and the file that says so."""
    found = [(limit, file) for file in _limit_files(patient, "memory.max", "memory.limit_in_bytes") if (limit := _limit(patient, file))]
    least = min(found, default=(None, ""))
    return least if least[0] is not None else (None, "/sys/fs/cgroup")


def _limit(patient: Patient, file: str) -> int | None:
    limit = patient.machine.number(file)
    return limit if limit is not None and limit < _UNLIMITED else None


def _limit_files(patient: Patient, unified: str, first: str) -> Iterator[str]:
    """Yield the files of both versions of control groups, from this process's own group up to the topmost that can be seen."""
    for line in (patient.machine.text("/proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        roots = {"": ("/sys/fs/cgroup", unified), "memory": ("/sys/fs/cgroup/memory", first)}
        for name, (root, file) in roots.items():
            if name in controllers.split(","):
                # In a container its own group is often mounted in the place of the root.
                path = Path(group)
                yield from (f"{root}{str(each).rstrip('/')}/{file}" for each in (path, *path.parents))


def _killed(patient: Patient) -> list[Evidence]:
    for file in _limit_files(patient, "memory.events", "memory.oom_control"):
        for line in (patient.machine.text(file) or "").splitlines()[:8]:
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdecimal() and int(count):
                return [Evidence(file, f"{count} processes were killed for want of memory")]
        if patient.machine.text(file) is not None:
            break  # those above are of others too
    return []


def _more(patient: Patient, size: int) -> Iterator[Mend]:
    whole = -(-size // (32 * 2**20)) * 32
    yield from by_place(
        patient,
        pod=ours(patient, {"resources": {"limits": {"memory": f"{whole}Mi"}}}),
        compose=compose({"mem_limit": f"{whole}m"}),
        host=words(f"Raise the limit of the control group to {whole} MiB (MemoryMax= of its systemd unit)."),
    )


CHECKS = (
    Check("container.root", "the root file system is read-only", _root),
    Check("container.inotify", "directories can be watched", _inotify),
    Check("container.descriptors", "enough files may be open", _descriptors),
    Check("container.memory", "the memory limit leaves room", _memory),
)
