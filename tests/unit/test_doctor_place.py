"""Where the doctor is, and what it makes of mounts and control groups; from files as kernels and container engines write them."""

from pathlib import Path

import pytest

from reloader.doctor.container import limit_of
from reloader.doctor.patient import Patient, command_of
from reloader.doctor.place import Machine, Place, covering, place_of
from reloader.world.processes import Process

ROOT_MOUNT = "1 0 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b"
LIVE = "2 1 0:51 / /etc/nginx/live rw,relatime - tmpfs tmpfs rw,size=16384k"
DISK = r"3 1 8:1 /var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/live /srv/with\040space ro master:1 shared:2 - ext4 /dev/sda1 rw"


def machine(root: Path, files: dict[str, str], **environ: str) -> Machine:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(root, environ)


@pytest.mark.parametrize(
    ("files", "environ", "place", "where"),
    [
        ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, Place.POD, "environment"),
        ({"proc/1/cmdline": "/pause\0"}, {}, Place.POD, "/proc/1/cmdline"),
        ({"proc/self/cgroup": "0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-x.scope"}, {}, Place.POD, "/proc/self/cgroup"),
        ({".dockerenv": ""}, {}, Place.CONTAINER, "/.dockerenv"),
        ({"run/.containerenv": ""}, {}, Place.CONTAINER, "/run/.containerenv"),
        ({"proc/self/cgroup": "0::/system.slice/docker-1f.scope"}, {}, Place.CONTAINER, "/proc/self/cgroup"),
        ({"proc/self/cgroup": "0::/user.slice/user-1000.slice", "proc/1/cmdline": "/sbin/init\0"}, {}, Place.HOST, "/proc"),
    ],
)
def test_the_place_is_known_by_what_is_there(tmp_path: Path, files: dict[str, str], environ: dict[str, str], place: Place, where: str):
    found, shown = place_of(machine(tmp_path, files, **environ))
    assert (found, shown.where) == (place, where)


def test_a_line_of_mountinfo_is_understood(tmp_path: Path):
    """With any number of optional fields, and escapes in the path."""
    root, live, disk = machine(tmp_path, {"proc/self/mountinfo": f"{ROOT_MOUNT}\n{LIVE}\n{DISK}\n"}).mounts()

    assert (root.device, root.point, root.kind, root.is_in_memory) == ("0:50", "/", "overlay", False)
    assert (live.is_in_memory, live.inside("/etc/nginx/live/..1/a")) == (True, "/..1/a")
    assert disk.point == "/srv/with space"
    assert {"ro", "rw"} <= disk.options
    assert disk.inside("/srv/with space/a") == "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/live/a"


@pytest.mark.parametrize(
    ("path", "device"), [("/etc/nginx/live/a", "0:51"), ("/etc/nginx/live", "0:51"), ("/etc/nginx/livelier", "0:50"), ("/", "0:50")]
)
def test_a_path_is_on_the_deepest_mount_above_it(tmp_path: Path, path: str, device: str):
    found = covering(machine(tmp_path, {"proc/self/mountinfo": f"{ROOT_MOUNT}\n{LIVE}\n"}).mounts(), path)
    assert found is not None
    assert found.device == device


def test_of_two_mounts_at_one_point_the_later_one_counts(tmp_path: Path):
    later = LIVE.replace("0:51", "0:99")
    found = covering(machine(tmp_path, {"proc/self/mountinfo": f"{ROOT_MOUNT}\n{LIVE}\n{later}\n"}).mounts(), "/etc/nginx/live")
    assert found is not None
    assert found.device == "0:99"


def test_what_cannot_be_read_is_nothing(tmp_path: Path):
    bare = machine(tmp_path, {})
    assert (bare.mounts(), bare.status(), bare.text("/proc/nowhere"), bare.number("/proc/nowhere")) == ((), {}, None, None)
    assert covering((), "/") is None


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "134217728\n"}, 134217728),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "0::/pod/one", "sys/fs/cgroup/pod/one/memory.max": "max", "sys/fs/cgroup/pod/memory.max": "5000"}, 5000),
        ({"proc/self/cgroup": "4:memory:/deep", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({"proc/self/cgroup": "4:memory:/deep", "sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864"}, 67108864),
        ({}, None),
    ],
)
def test_the_smallest_limit_counts_in_both_versions_of_control_groups(tmp_path: Path, files: dict[str, str], limit: int | None):
    """Also where the container sees its own group in the place of the root."""
    assert limit_of(Patient(machine=machine(tmp_path, files)))[0] == limit


def test_processes_are_in_one_container_by_their_mounts_else_by_their_group(tmp_path: Path):
    """Whose mounts may not be seen is judged by its control group."""
    seen = machine(tmp_path, {"proc/self/cgroup": "0::/", "proc/7/cgroup": "0::/../other", "proc/8/cgroup": "0::/"})
    for pid, namespace in (("self", "mnt:[1]"), ("9", "mnt:[1]"), ("10", "mnt:[2]")):
        (tmp_path / f"proc/{pid}/ns").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/ns/mnt").symlink_to(namespace)

    assert [pid for pid in (7, 8, 9, 10) if seen.beside(pid)] == [8, 9]


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (("/usr/bin/python3", "/usr/local/bin/reloader", "run", "/etc/reloader/web.yaml"), "run"),
        (("python", "-m", "reloader", "doctor", "--json"), "doctor"),
        (("reloader", "--version"), ""),
        (("nginx", "-c", "/etc/reloader/nginx.conf"), ""),
        (("vi", "reloader.yaml"), ""),
        (("",), ""),
    ],
)
def test_a_reloader_is_known_by_its_arguments(argv: tuple[str, ...], command: str):
    assert command_of(Process(pid=1, parent=0, comm="x", argv=argv, uid=0, started=0.0)) == command
