"""`reloader doctor`: it finds what is planted and nothing else, and what it says mends it, followed to the letter by a program.

Each case runs in a Pod of namespaces whose containers run the product; servers are real ones.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.e2e import small_pod
from tests.e2e.bed import DROPPED, Bed, Examined
from tests.waiting import eventually


@dataclass(frozen=True)
class Case:
    """Something that is wrong, what finds it, and the mend that is followed."""

    plant: Callable[[Bed], object]
    check: str
    seen: str
    """What the evidence holds."""
    state: str = "failed"
    mend: str = "pod"
    number: int = 0
    """Which of the mends of that kind."""
    also: tuple[str, ...] = ()
    """Other checks that have to notice it too."""
    left: tuple[str, ...] = ()
    """Those that have mends of their own."""


def separate_processes(bed: Bed) -> None:
    del bed.manifest["spec"]["shareProcessNamespace"]


def another_user(bed: Bed) -> None:
    bed.app["securityContext"]["runAsUser"] = 10101


def kill_without_root(bed: Bed) -> None:
    """KILL is added, and does nothing for a user that is not root."""
    another_user(bed)
    bed.ours["securityContext"]["capabilities"] = {"drop": ["ALL"], "add": ["KILL"]}


def not_mounted(bed: Bed) -> None:
    bed.app["volumeMounts"] = []


def sub_path(bed: Bed) -> None:
    bed.app["volumeMounts"] = [{"name": "live", "mountPath": str(bed.folder / "etc/app.conf"), "subPath": "app.conf"}]


def read_only(bed: Bed) -> None:
    bed.ours["volumeMounts"][0]["readOnly"] = True


def too_small(bed: Bed) -> None:
    bed.volume("live")["emptyDir"]["sizeLimit"] = "40Ki"


def on_no_volume(bed: Bed) -> None:
    """On the container's own file system, which is writable for that."""
    bed.ours["volumeMounts"] = bed.app["volumeMounts"] = []
    bed.ours["securityContext"]["readOnlyRootFilesystem"] = False
    bed.live.mkdir()
    bed.live.chmod(0o777)


def writable_root(bed: Bed) -> None:
    bed.ours["securityContext"]["readOnlyRootFilesystem"] = False


def service_links(bed: Bed) -> None:
    del bed.manifest["spec"]["enableServiceLinks"]
    bed.pod.services = ("reloader",)


def service_links_that_are_refused(bed: Bed) -> None:
    del bed.manifest["spec"]["enableServiceLinks"]
    bed.pod.services = ("reloader--live",)


def state_of_the_target(bed: Bed) -> None:
    """On a volume that both mount."""
    mount = {"name": "shared", "mountPath": str(bed.folder / "state")}
    bed.configure(state={"path": mount["mountPath"]})
    bed.manifest["spec"]["volumes"].append({"name": "shared", "emptyDir": {"medium": "Memory"}})
    for container in (bed.app, bed.ours):
        container["volumeMounts"].append(dict(mount))


def state_read_only(bed: Bed) -> None:
    bed.configure(state={"path": str(bed.folder / "state")})
    (bed.folder / "state").mkdir()


def target_misspelt(bed: Bed) -> None:
    bed.configure(target={"match": {"name": f"{bed.name}x"}})


def two_targets(bed: Bed) -> None:
    other = {**bed.app, "name": "other", "securityContext": {**DROPPED, "runAsUser": 0, "runAsNonRoot": False}}
    bed.manifest["spec"]["containers"].append(other)


def ignores_the_signal(bed: Bed) -> None:
    bed.app["command"] = bed.target("--handler", "ignore")


def handles_another_signal(bed: Bed) -> None:
    script = "import signal; signal.signal(signal.SIGUSR1, lambda *_: None); signal.pause()"
    bed.app["command"] = [bed.target()[0], "-c", f"{script}\nwhile True: signal.pause()"]


def check_elsewhere(bed: Bed) -> None:
    """A program that is there, but not on the way that is searched; it is `true` under /usr/bin."""
    volume = yaml.safe_load(bed.file.read_text())["volume"]
    bed.configure(volume={**volume, "check": {"command": ["true", "{staged}"]}})
    bed.env["PATH"] = str(bed.folder)


def owner_not_ours(bed: Bed) -> None:
    bed.configure(volume={"path": str(bed.live), "files": {"app.conf": {"content": "x", "owner": "12345"}}})


def misspelt_key(bed: Bed) -> None:
    bed.file.write_text(bed.file.read_text().replace("target:", "targt:"))


def undefined_name(bed: Bed) -> None:
    """In a template file, which the doctor's own user cannot change."""
    template = bed.folder / "templates" / "app.j2"
    template.parent.mkdir()
    template.write_text("# greeting\n{{ siet.greeting }}\n")
    bed.configure(volume={"path": str(bed.live), "files": {"app.conf": {"template": str(template)}}})


def undefined_value(bed: Bed) -> None:
    bed.configure(volume={"path": str(bed.live), "files": {"app.conf": {"content": "{{ site.greting }}"}}})


def few_descriptors(bed: Bed) -> None:
    bed.around = ("/bin/sh", "-c", 'ulimit -n 60; exec "$@"', "sh")

    def raise_it(text: str) -> None:
        bed.around = ("/bin/sh", "-c", f'ulimit -Sn 60; {text.strip()}; exec "$@"', "sh")

    bed.apply["command"] = raise_it


def one_user_twice(bed: Bed) -> None:
    bed.manifest["spec"]["containers"].append({**bed.app, "name": "other"})


def closed_volume(bed: Bed) -> None:
    """A volume of root's, as a hostPath is one."""
    bed.pod.mode = 0o755


def no_inotify(bed: Bed) -> None:
    """In a user namespace of its own, so that nobody else on this machine runs out of it."""

    def before(text: str) -> None:
        bed.around = (sys.executable, str(Path(__file__).with_name("few_watches.py")), "0", text)

    before(":")
    bed.apply["command"] = before


def another_reloader(bed: Bed) -> None:
    """One with another file and the same volume, in the same container."""
    other = bed.folder / "other.yaml"
    other.write_text(bed.file.read_text())

    def start() -> bool:
        bed.pod.start_in("reloader", sys.executable, "-m", "reloader", "run", other, "--listen", "off")
        bed.ready = lambda: "another reloader" in bed.examine().of("volume.lock")[0]["told"]
        return bool(bed.ready())

    bed.ready = start
    bed.apply["command"] = lambda text: bed.pod.run("reloader", "sh", "-ec", text)
    bed.mended = lambda: bed.examine().wrong() == {}


CASES = {
    "no shared process namespace": Case(separate_processes, "process.namespace", "of this container", also=("target.found",)),
    "another user: the target's user": Case(another_user, "target.permission", "Uid 10101"),
    "another user: root with KILL": Case(another_user, "target.permission", "Operation not permitted", number=1),
    "KILL added for a user that is not root": Case(
        kill_without_root, "target.permission", "CapEff 0000000000000000, CapBnd 0000000000000020"
    ),
    "volume not mounted in the target": Case(not_mounted, "volume.target", "/proc/"),
    "volume mounted by subPath": Case(sub_path, "volume.target", "/app.conf "),
    "volume mounted by subPath: in place": Case(sub_path, "volume.target", "/app.conf ", mend="configuration"),
    "read-only volume": Case(read_only, "volume.usable", "Read-only file system"),
    "full volume": Case(too_small, "volume.usable", "No space left on device"),
    "no volume at all": Case(on_no_volume, "volume.mounted", " / / ", also=("container.root",), left=("container.root",)),
    "writable root": Case(writable_root, "container.root", " / / ", state="warning"),
    "variables of a Service": Case(service_links, "configuration.environment", "RELOADER_SERVICE_HOST", state="warning"),
    "variables of a Service that are refused": Case(
        service_links_that_are_refused, "configuration.environment", "RELOADER__LIVE_SERVICE_HOST", also=("configuration.valid",)
    ),
    "state where the target looks": Case(state_of_the_target, "state.private", "/proc/"),
    "state that takes nothing": Case(state_read_only, "state.usable", "Read-only file system"),
    "target under another name": Case(target_misspelt, "target.found", "/proc", mend="configuration"),
    "two targets: told apart": Case(two_targets, "target.found", "uid 0", mend="configuration"),
    "target ignores the signal": Case(ignores_the_signal, "target.signal", "SigIgn", mend="words"),
    "target handles another signal": Case(handles_another_signal, "target.signal", "SigCgt", mend="configuration"),
    "check's program not found": Case(check_elsewhere, "configuration.commands", "true is not there", mend="configuration"),
    "owner that may not be set": Case(owner_not_ours, "volume.owners", "CapEff", mend="configuration"),
    "misspelt key": Case(misspelt_key, "configuration.valid", "targt", mend="command"),
    "undefined name": Case(undefined_name, "configuration.templates", "volume.files.app.conf.template", mend="command"),
    "undefined value": Case(undefined_value, "template.renders", "app.conf", mend="configuration"),
    "few descriptors": Case(few_descriptors, "container.descriptors", "Max open files 60", mend="command"),
    "two targets of one user: all": Case(one_user_twice, "target.found", "/proc/", mend="configuration"),
    "volume of another user": Case(closed_volume, "volume.usable", "uid 0, gid 0, mode 0755"),
    "owner that may not be set: root with CHOWN": Case(owner_not_ours, "volume.owners", "CapEff"),
    "no inotify instances": Case(no_inotify, "container.inotify", "max_inotify_instances 0", state="warning", mend="command"),
    "another reloader": Case(another_reloader, "volume.lock", "/proc/locks", mend="command"),
}


def healed(bed: Bed, case: Case) -> Examined:
    """Find what is planted, follow the mend, and return what is found then."""
    before = bed.examine()
    assert before.wrong().keys() == {case.check, *case.also}, before.wrong()
    assert before.wrong()[case.check] == case.state
    mends = [mend for mend in before.finding(case.check, case.seen)["mends"] if mend["kind"] == case.mend]
    bed.follow(mends[case.number])
    eventually(bed.mended, what="the end of what was wrong")
    return bed.examine()


def test_nothing_is_wrong_where_nothing_is(bed: Bed):
    """Beside a running sidecar, whose lock is a sign of life; and the sidecar does not notice."""
    bed.run_reloader()
    bed.start()
    eventually(lambda: bed.examine().of("volume.lock")[0]["evidence"], what="the lock of the sidecar")
    found = bed.examine()

    assert found.wrong() == {}
    assert found.status == 0
    assert found.document["place"]["kind"] == "pod"
    assert "it is alive" in found.of("volume.lock")[0]["told"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_planted_is_found_and_mended_to_the_letter(bed: Bed, case: Case):
    case.plant(bed)
    bed.apply["words"] = lambda text: follow_words(bed, text)
    bed.start()
    eventually(bed.ready, what="what is planted")

    assert healed(bed, case).wrong().keys() == set(case.left)


def follow_words(bed: Bed, text: str) -> None:
    """Do by hand what words say: only those of a program without a handler are followed here."""
    assert "handle SIGHUP and start it without nohup" in text
    bed.app["command"] = bed.target()
    bed.start()


def test_a_memory_limit_that_is_too_small_is_found_by_what_was_measured(bed: Bed):
    """The limit is planted just above what the doctor itself needed, so that it can still say so."""
    if reason := small_pod.lacking_memory_groups():
        pytest.skip(reason)
    bed.start()
    measured = bed.examine().of("container.memory")[0]["evidence"][1]
    assert "VmHWM" in measured["where"]
    bed.ours["resources"] = {"limits": {"memory": f"{int(int(measured['seen'].split()[0]) * 1.15) // 1024}Ki"}}
    bed.start()

    assert healed(bed, Case(lambda _: None, "container.memory", "memory.limit_in_bytes")).wrong() == {}


def test_a_volume_that_takes_no_files_more_is_found(bed: Bed):
    """There are bytes and no inodes."""
    bed.start()
    bed.shell(f"mount -o remount,nr_inodes=2 {bed.folder}/volumes/live")

    assert healed(bed, Case(lambda _: None, "volume.usable", "of 2 files (inodes) free")).wrong() == {}


def test_with_the_manifest_the_mends_have_its_names(bed: Bed):
    """Beside a running sidecar; the patch is one that names the Pod."""
    bed.manifest["metadata"]["name"] = "shop"
    for old, new in (("app", "front"), ("live", "rendered")):
        renamed(bed, old, new)
    bed.run_reloader()
    bed.container("front")["volumeMounts"] = []
    manifest = bed.folder / "pod.yaml"
    manifest.write_text(yaml.safe_dump(bed.manifest))
    bed.options = ("--manifest", manifest)
    bed.start()
    before = bed.examine()
    mend = before.finding("volume.target", "/proc/")["mends"][0]

    assert yaml.safe_load(mend["text"])["metadata"] == {"name": "shop"}
    assert before.wrong() == {"volume.target": "failed", "manifest.volumes": "failed"}
    bed.follow(mend)
    manifest.write_text(yaml.safe_dump(bed.manifest))
    assert bed.examine().wrong() == {}


def renamed(bed: Bed, old: str, new: str) -> None:
    spec = bed.manifest["spec"]
    for each in (
        *spec["containers"],
        *spec["volumes"],
        *(mount for container in spec["containers"] for mount in container["volumeMounts"]),
    ):
        each["name"] = new if each["name"] == old else each["name"]


def test_the_table_for_people_has_what_is_wrong_at_its_end(bed: Bed):
    """With evidence and mends, without colour where there is no terminal, and with the status of the worst."""
    writable_root(bed)
    not_mounted(bed)
    bed.start()
    done = bed.doctor()
    lines = done.stdout.splitlines()
    states = [line.split()[0] for line in lines if line.split()[0] in ("ok", "skipped", "warning", "FAILED")]

    assert done.returncode == 1
    assert states == sorted(states, key=("skipped", "ok", "warning", "FAILED").index)
    assert "\x1b" not in done.stdout
    assert lines[0] == "This is a Pod (environment: KUBERNETES_SERVICE_HOST is set)."
    assert lines[-1].startswith("1 failed, 1 warning, ")
    assert any(line.strip().startswith("seen in /proc/self/mountinfo: ") for line in lines)
    assert "               readOnlyRootFilesystem: true" in lines or any("readOnlyRootFilesystem: true" in line for line in lines)


def test_an_invalid_configuration_is_a_finding_and_the_rest_is_looked_at(bed: Bed):
    """Status 2, whatever else is wrong; what needs a plan says that it has none."""
    misspelt_key(bed)
    writable_root(bed)
    separate_processes(bed)
    bed.start()
    found = bed.examine()

    assert found.status == 2
    assert found.document["configuration"] == "invalid"
    assert found.wrong() == {"configuration.valid": "failed", "container.root": "warning", "process.namespace": "failed"}
    assert {"the configuration is invalid, so nothing is known of this"} == {one["told"] for one in found.of("volume.usable")}


def test_a_reloader_of_another_container_is_told_from_the_own_one(bed: Bed):
    """It has the volume, and signals the same target. Nobody sees into its memory, nor its mounts; its control group tells where it is."""
    if reason := small_pod.lacking_memory_groups():
        pytest.skip(reason)
    second = {**bed.ours, "name": "second"}
    bed.manifest["spec"]["containers"].append(second)
    second["command"] = [sys.executable, "-m", "reloader", "run", str(bed.file), "--listen", "off"]
    bed.start()
    eventually(lambda: "volume.lock" in bed.examine().wrong(), what="the lock of the other one")
    found = bed.examine()

    assert found.wrong() == {"process.reloaders": "warning", "volume.lock": "failed"}
    assert [mend["kind"] for mend in found.finding("volume.lock", "/proc/locks")["mends"]] == ["configuration", "words"]


def test_a_doctor_who_is_another_user_says_so(bed: Bed):
    """What root may do says nothing of what the sidecar may."""
    bed.ours["securityContext"] = {"runAsUser": 0, "readOnlyRootFilesystem": True}
    bed.start()
    drop = ("setpriv", "--reuid=10001", "--regid=10001", "--clear-groups")
    bed.pod.start_in("reloader", *drop, sys.executable, "-m", "reloader", "run", bed.file, "--listen", "off")
    eventually(lambda: bed.examine().wrong() == {"process.identity": "warning"}, what="a reloader of another user")
    found = bed.examine().finding("process.identity", "uid 10001")

    assert found["mends"][0]["text"].startswith("Run the doctor as uid 10001")


def test_a_volume_that_another_user_has_used_is_told(bed: Bed):
    """As after a change of the UID: what the sidecar keeps there is private."""
    bed.start()
    home = bed.folder / "volumes" / "live" / "..reloader"
    bed.shell(f"mkdir -m 700 {home} && chown 4321 {home}")
    found = bed.examine()

    assert found.wrong() == {"volume.usable": "failed"}
    assert "..reloader was made by uid 4321, and this is uid 10001" in found.of("volume.usable")[0]["told"]
    assert "runAsUser: 4321" in found.of("volume.usable")[0]["mends"][0]["text"]


def test_a_volume_that_another_program_fills_is_told(bed: Bed):
    bed.start()
    bed.shell(f"ln -s ..2026_01_01 {bed.folder}/volumes/live/..data")

    assert "another program fills this directory" in bed.examine().of("volume.usable")[0]["told"]


def test_a_volume_with_room_for_one_set_and_not_for_those_that_are_kept(bed: Bed):
    bed.volume("live")["emptyDir"]["sizeLimit"] = "200Ki"
    bed.start()

    assert healed(bed, Case(lambda _: None, "volume.usable", "MiB free", state="warning")).wrong() == {}


def test_single_files_beside_the_whole_volume_are_a_warning(bed: Bed):
    bed.app["volumeMounts"].append({"name": "live", "mountPath": str(bed.live / "app.conf"), "subPath": "app.conf"})
    del bed.app["volumeMounts"][0]["readOnly"]
    bed.start()

    assert bed.examine().wrong() == {"volume.target": "warning"}


def test_targets_that_are_no_processes_need_no_shared_namespace(bed: Bed):
    separate_processes(bed)
    bed.configure(target={"kind": "none"})
    bed.start()

    assert bed.examine().wrong() == {}


def test_a_directory_that_is_not_there_is_a_finding_of_its_source(bed: Bed):
    bed.configure(sources={"site": {"kind": "files", "path": str(bed.folder / "nowhere")}})
    bed.start()
    found = bed.examine()

    assert found.wrong() == {"source.read": "failed"}
    assert found.of("template.renders")[0]["state"] == "skipped"


def test_of_several_files_those_that_are_valid_are_examined(bed: Bed):
    """The other one's mistakes are told, and the exit status is theirs."""
    other = bed.folder / "other.yaml"
    other.write_text("targt: {kind: none}\n")
    bed.options = (other,)
    bed.start()
    found = bed.examine()

    assert found.status == 2
    assert found.wrong() == {"configuration.valid": "failed"}
    assert found.of("target.found")[0]["state"] == "ok"
