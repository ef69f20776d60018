"""`reloader doctor --manifest`: what is wrong with a Pod before it runs, and patches that mend it as they stand."""

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.rendering import overlay
from tests.e2e.bed import DOCTOR, Examined
from tests.e2e.mending import patched
from tests.e2e.small_pod import ROOT

VAULT = {"vault": {"address": "http://127.0.0.1:1", "auth": {"token": "t"}}, "sources": {"db": {"kind": "vault", "path": "secret/app"}}}


class Drawn:
    """The manifests of this project, and their configuration, to be changed and examined."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.manifests = overlay("base")
        data = next(each["data"] for each in self.manifests if each["kind"] == "ConfigMap" and "web.yaml" in each["data"])
        for name, text in data.items():
            (folder / name).write_text(text.replace("/etc/reloader/", f"{folder}/"))
        self.file = folder / "web.yaml"
        self.ours["resources"]["limits"]["memory"] = "1Gi"  # the doctor itself needs much more while coverage is measured

    @property
    def deployment(self) -> dict[str, Any]:
        return next(each for each in self.manifests if each["kind"] == "Deployment")

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self.deployment["spec"]["template"]["spec"])

    @property
    def ours(self) -> dict[str, Any]:
        return dict_of(self.spec["initContainers"], "reloader")

    @property
    def nginx(self) -> dict[str, Any]:
        return dict_of(self.spec["containers"], "nginx")

    def configure(self, **sections: Any) -> None:
        self.file.write_text(yaml.safe_dump({**yaml.safe_load(self.file.read_text()), **sections}))

    def examine(self) -> Examined:
        stream = self._folder / "stream.yaml"
        stream.write_text(yaml.safe_dump_all(self.manifests))
        return Examined(doctor(self.file, "--manifest", stream, "--json"))

    def follow(self, text: str) -> None:
        """Apply a patch to the manifest that it names; the result is one that Kubernetes knows every field of."""
        meant = yaml.safe_load(text)
        assert (meant["kind"], meant["metadata"]) == ("Deployment", {"name": "web"})
        changed = patched(self.deployment, text)
        kubernetes_validate.validate(changed, kubernetes_validate.latest_version(), strict=True)
        self.manifests[self.manifests.index(self.deployment)] = changed


def dict_of(listed: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(each for each in listed if each["name"] == name)


def doctor(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DOCTOR, *map(str, arguments)], input=text, capture_output=True, text=True, cwd=ROOT, timeout=100, check=False)


@pytest.fixture
def drawn(tmp_path: Path) -> Drawn:
    return Drawn(tmp_path)


@dataclass(frozen=True)
class Case:
    plant: Callable[[Drawn], object]
    check: str
    seen: str
    state: str = "failed"
    number: int = 0


def other_user(drawn: Drawn) -> None:
    drawn.nginx["securityContext"]["runAsUser"] = 101


def kill_without_root(drawn: Drawn) -> None:
    other_user(drawn)
    drawn.ours["securityContext"]["capabilities"]["add"] = ["KILL"]


def mounts(container: dict[str, Any], name: str) -> dict[str, Any]:
    return dict_of(container["volumeMounts"], name)


def root_and_no_group(drawn: Drawn) -> None:
    other_user(drawn)
    drawn.ours["securityContext"].update(runAsUser=0, runAsNonRoot=False, capabilities={"drop": ["ALL"], "add": ["KILL"]})
    drawn.spec["securityContext"].pop("fsGroup")


def without(key: str) -> Callable[[Drawn], object]:
    return lambda drawn: drawn.deployment["spec"]["template"]["spec"].pop(key)


def secrets_on_disk(drawn: Drawn) -> None:
    drawn.configure(**VAULT, volume={"path": "/live", "target_path": "/etc/nginx/live", "files": {"a": {"content": "{{ db.password }}"}}})
    dict_of(drawn.spec["volumes"], "live")["emptyDir"] = {}


def service_called_like_us(drawn: Drawn) -> None:
    drawn.deployment["spec"]["template"]["spec"].pop("enableServiceLinks")
    drawn.manifests.append(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "reloader-metrics"}, "spec": {"ports": [{"port": 9533}]}}
    )


CASES = {
    "processes are not shared": Case(without("shareProcessNamespace"), "manifest.namespace", "not there"),
    "startup probe shorter than startup_grace": Case(
        lambda drawn: drawn.ours["startupProbe"].update(failureThreshold=20), "manifest.startup", "= 20 s; startup_grace is 30 s"
    ),
    "startup probe that is tight": Case(
        lambda drawn: drawn.ours["startupProbe"].update(failureThreshold=45), "manifest.startup", "= 45 s", state="warning"
    ),
    "no startup probe": Case(lambda drawn: drawn.ours.pop("startupProbe"), "manifest.startup", "not there", state="warning"),
    "another user": Case(other_user, "manifest.users", "runAsUser 101"),
    "another user: root with KILL": Case(other_user, "manifest.users", "runAsUser 101", number=1),
    "KILL without root": Case(kill_without_root, "manifest.users", "capabilities.add ['KILL']"),
    "volume not mounted in the target": Case(lambda drawn: drawn.nginx["volumeMounts"].pop(0), "manifest.volumes", "mountPath"),
    "volume mounted by subPath": Case(
        lambda drawn: mounts(drawn.nginx, "live").update(subPath="nginx.conf", mountPath="/etc/nginx/nginx.conf"),
        "manifest.volumes",
        "subPath",
    ),
    "volume read-only": Case(lambda drawn: mounts(drawn.ours, "live").update(readOnly=True), "manifest.volumes", "readOnly"),
    "no group with the target": Case(root_and_no_group, "manifest.volumes", "not there"),
    "secrets on a disk": Case(secrets_on_disk, "manifest.volumes", "emptyDir", state="warning"),
    "liveness asks for readiness": Case(
        lambda drawn: drawn.ours["livenessProbe"]["httpGet"].update(path="/readyz"), "manifest.probes", "/readyz on port reloader"
    ),
    "a probe at another port": Case(
        lambda drawn: drawn.ours["readinessProbe"]["httpGet"].update(port=8080), "manifest.probes", "on port 8080"
    ),
    "an init container that never ends": Case(lambda drawn: drawn.ours.pop("restartPolicy"), "manifest.restart", "None"),
    "memory limit too small": Case(lambda drawn: drawn.ours["resources"]["limits"].update(memory="32Mi"), "manifest.memory", "32Mi"),
    "writable root": Case(
        lambda drawn: drawn.ours["securityContext"].pop("readOnlyRootFilesystem"), "manifest.root", "none", state="warning"
    ),
    "a Service called like us": Case(service_called_like_us, "manifest.links", "not there", state="warning"),
}


def test_the_manifests_of_this_project_have_nothing_wrong(drawn: Drawn, monkeypatch: pytest.MonkeyPatch):
    """Their memory limit among it, which the doctor holds against its own need."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    drawn.manifests = overlay("base")
    found = drawn.examine()
    assert found.wrong() == {}
    assert {one["told"] for one in found.of("target.found")} == {
        "a manifest was given, so the reloader runs elsewhere; run the doctor there too"
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_wrong_in_a_manifest_is_found_and_its_patch_mends_it(drawn: Drawn, case: Case):
    case.plant(drawn)
    before = drawn.examine()
    assert before.wrong() == {case.check: case.state}
    assert before.status == (1 if case.state == "failed" else 0)
    drawn.follow(before.finding(case.check, case.seen)["mends"][case.number]["text"])

    assert drawn.examine().wrong() == {}


def the_nodes_processes(drawn: Drawn) -> None:
    without("shareProcessNamespace")(drawn)
    drawn.deployment["spec"]["template"]["spec"]["hostPID"] = True


def root_as_engines_have_it(drawn: Drawn, **more: Any) -> None:
    other_user(drawn)
    drawn.ours["securityContext"] |= {"runAsUser": 0, "runAsNonRoot": False, "capabilities": {}, **more}


def privileged_root(drawn: Drawn) -> None:
    root_as_engines_have_it(drawn, capabilities={"drop": ["ALL"]}, privileged=True, allowPrivilegeEscalation=True)


def a_folder_of_a_volume(drawn: Drawn, **theirs: str) -> None:
    """Have the set in a folder of what is mounted; the target gets the folder itself, or what it is in."""
    drawn.configure(volume={"path": "/srv/live", "target_path": "/etc/nginx/live", "files": {"a": {"content": "b"}}})
    mounts(drawn.ours, "live")["mountPath"] = "/srv"
    mounts(drawn.nginx, "live").update(theirs)


def another_port(drawn: Drawn, **ours: Any) -> None:
    drawn.ours.update(ours)
    drawn.ours["ports"][0]["containerPort"] = 8081


def a_service_called_almost_like_us(drawn: Drawn) -> None:
    service_called_like_us(drawn)
    drawn.manifests[-1]["metadata"]["name"] = "reloaders"


RIGHT = {
    "the processes of the node": the_nodes_processes,
    "root with what engines give it": root_as_engines_have_it,
    "privileged root": privileged_root,
    "a folder of the volume for both": lambda drawn: a_folder_of_a_volume(drawn, mountPath="/etc/nginx"),
    "a folder of the volume by subPath": lambda drawn: a_folder_of_a_volume(drawn, subPath="live"),
    "another port by an option": lambda drawn: another_port(drawn, args=["run", "--listen", "[::]:8081"]),
    "another port by an option in one word": lambda drawn: another_port(drawn, args=["run", "--listen=[::]:8081"]),
    "another port by a variable": lambda drawn: another_port(drawn, env=[{"name": "RELOADER_SERVER__LISTEN", "value": "[::]:8081"}]),
    "a Service called almost like us": a_service_called_almost_like_us,
}


@pytest.mark.parametrize("plant", RIGHT.values(), ids=RIGHT)
def test_what_is_right_in_another_way_is_not_wrong(drawn: Drawn, plant: Callable[[Drawn], object]):
    plant(drawn)
    assert drawn.examine().wrong() == {}


def test_probes_of_endpoints_that_are_off_are_told_so(drawn: Drawn):
    drawn.ours["args"] = ["run", "--listen", "off"]
    found = drawn.examine()
    assert found.wrong() == {"manifest.probes": "failed"}
    assert {each["told"] for each in found.of("manifest.probes")} == {"nobody answers it: server.listen is off"}


def test_root_that_drops_kill_may_not_signal_everyone(drawn: Drawn):
    root_as_engines_have_it(drawn, capabilities={"drop": ["KILL"]})
    assert drawn.examine().wrong() == {"manifest.users": "failed"}


def test_a_patch_says_everything_in_full(drawn: Drawn):
    """Both containers get a user, and neither is an alias of the other."""
    drawn.spec["securityContext"].pop("runAsUser")
    text = drawn.examine().of("manifest.users")[0]["mends"][0]["text"]
    assert text.count("runAsUser: 10001") == 2


def test_a_volume_that_nobody_mounts_is_made(drawn: Drawn):
    """There is no evidence of what is not there; the patch makes the volume and both mounts."""
    for container in (drawn.ours, drawn.nginx):
        container["volumeMounts"][:] = [mount for mount in container["volumeMounts"] if mount["name"] != "live"]
    drawn.spec["volumes"][:] = [volume for volume in drawn.spec["volumes"] if volume["name"] != "live"]
    before = drawn.examine()

    assert before.wrong() == {"manifest.volumes": "failed"}
    drawn.follow(before.of("manifest.volumes")[0]["mends"][0]["text"])
    assert drawn.examine().wrong() == {}


def test_a_stream_may_come_from_the_standard_input(drawn: Drawn):
    drawn.ours.pop("restartPolicy")
    found = Examined(doctor(drawn.file, "--manifest", "-", "--json", text=yaml.safe_dump_all(drawn.manifests)))
    assert found.wrong() == {"manifest.restart": "failed"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: ConfigMap\n", "no container in them runs reloader (by its command, arguments, image or name); found: ConfigMap"),
        ("a: [", "cannot be read as YAML: "),
        ("- 1\n", "holds something that is no manifest"),
        ("kind: List\nitems: [1]\n", "holds something that is no manifest"),
        ("kind: Service\nmetadata:\n", "no container in them runs reloader"),
        ("kind: [Pod]\n", "no container in them runs reloader"),
        ("kind: Pod\nspec: {containers: {name: a}}\n", "no container in them runs reloader"),
        ("kind: Pod\nspec: {containers: [{name: a, command: 5}]}\n", "no container in them runs reloader"),
    ],
)
def test_manifests_that_tell_nothing_are_a_finding(drawn: Drawn, text: str, told: str):
    done = doctor(drawn.file, "--manifest", "-", "--json", text=text)
    assert told in Examined(done).of("manifest.found")[0]["told"]
    assert done.returncode == 1


def test_a_manifest_is_examined_though_the_configuration_is_invalid(drawn: Drawn):
    drawn.file.write_text(drawn.file.read_text().replace("target:", "tarjet:"))
    without("shareProcessNamespace")(drawn)
    found = drawn.examine()

    assert found.status == 2
    assert found.wrong() == {"configuration.valid": "failed", "manifest.namespace": "failed"}


def test_two_containers_with_a_reloader_are_one_too_many(drawn: Drawn):
    drawn.spec["containers"].append({**copy.deepcopy(drawn.ours), "name": "second", "command": [sys.executable, "reloader", "run"]})
    assert "several containers run reloader, examine one at a time: " in drawn.examine().of("manifest.found")[0]["told"]
