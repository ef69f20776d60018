"""The Pods of `deploy/`, of the unmodified Dockerfile, run by podman in the place of a kubelet: corrections.py has every difference."""

import re
import signal
from uuid import uuid4

import pytest
import yaml

from tests.deploy.holding import security
from tests.deploy.rendering import Manifest, one, overlay
from tests.e2e.bed import Examined
from tests.pods.conftest import Play
from tests.pods.played import START, Pod, seconds_until_served
from tests.scale import rounds
from tests.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]
BITS = {"KILL": 1 << 5}
"""linux/capability.h."""
SIDES = ("reloader", "nginx")
needs_long = pytest.mark.skipif(
    rounds(0, 1) == 0, reason="takes what the thresholds of the probes ask for, or is nearly another: LONG_TESTS"
)


def converges(pod: Pod, text: str) -> None:
    """Return once NGINX serves this, and it is known to, and the kubelet calls the Pod ready."""
    eventually(lambda: pod.served() == text, within=START, what=f"{text!r} being served")
    eventually(pod.owes_nothing, within=START, what="nothing being owed")
    pod.await_ready()


def text() -> str:
    """Return what was never served yet."""
    return f"hello {uuid4().hex}"


def test_no_container_failed_before_the_pod_was_ready(pod: Pod):
    """NGINX has its configuration when it starts first: a native sidecar's startup probe holds it up until there is one."""
    assert pod.restarts_at_the_start == {"reloader": 0, "nginx": 0}


def test_each_container_is_who_its_manifest_says(pod: Pod):
    """And none has more of capabilities or of a writable root than Kubernetes would leave it."""
    for name, container in pod.containers.items():
        context = security(pod.deployment, container)
        added = sum(BITS[each] for each in context["capabilities"].get("add", ()))
        status = pod.process_status(name)
        assert status["Uid"].split() == [str(context["runAsUser"])] * 4
        assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0 if context["runAsUser"] else added, added)
        assert (int(status["CapAmb"], 16), int(status["CapInh"], 16), status["NoNewPrivs"]) == (0, 0, "1")
        assert pod.writable(name) == {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}


def test_a_change_of_the_configmap_is_served_within_two_seconds(pod: Pod):
    """One of ten is: what else this machine does may delay any other."""
    took: list[float] = []
    while not took or (min(took) > 2 and len(took) < 10):
        took.append(seconds_until_served(pod, text()))
    assert min(took) <= 2, took


def test_the_probes_say_yes_to_the_node_and_the_details_are_not_for_it(pod: Pod):
    assert [pod.get("reloader", path).status for path in ("/startupz", "/readyz", "/healthz", "/metrics")] == [200] * 4
    assert [pod.get("reloader", path).status for path in ("/status", "/")] == [403] * 2
    pod.await_ready()
    assert [prober.restarts for prober in pod.probers.values()] == [[], []]


def test_the_doctor_finds_nothing_wrong(pod: Pod):
    eventually(pod.owes_nothing, within=START)
    assert Examined(pod.executed("reloader", "reloader", "doctor", "--json")).wrong() == {}


@pytest.mark.parametrize("side", SIDES)
def test_what_changes_while_either_side_restarts_arrives(pod: Pod, side: str):
    pod.end(side)
    changed = text()
    pod.swap("web-site", greeting=changed)
    pod.begin(side)
    converges(pod, changed)


@pytest.mark.parametrize("side", SIDES)
def test_what_changes_when_either_side_is_killed_arrives(pod: Pod, side: str):
    """Without a word to it, as the kernel does when memory is short."""
    killed = pod.process(side)
    pod.kill(side)
    changed = text()
    pod.swap("web-site", greeting=changed)
    eventually(lambda: pod.process(side) not in (killed, None), within=START, what=f"{side} being started again")
    converges(pod, changed)


@needs_long
def test_a_sidecar_that_stands_still_is_taken_for_not_ready_and_then_restarted(pod: Pod):
    """As its probes ask for; NGINX serves on."""
    served = pod.served()
    pod.kill("reloader", signal.SIGSTOP)
    changed = text()
    pod.swap("web-site", greeting=changed)
    eventually(lambda: not pod.probers["reloader"].ready, within=START, what="the kubelet taking it for not ready")
    assert (pod.served(), pod.probers["reloader"].restarts) == (served, [])
    eventually(lambda: pod.probers["reloader"].restarts == ["livenessProbe"], within=2 * START, what="the liveness probe's restart")
    pod.probers["reloader"].restarts.clear()
    converges(pod, changed)


def unequal(capabilities: dict[str, list[str]]) -> list[Manifest]:
    """Return the manifests for two users, with a sidecar that is not root."""
    manifests = overlay("separate-uids")
    [sidecar] = one(manifests, "Deployment")["spec"]["template"]["spec"]["initContainers"]
    sidecar["securityContext"].update(runAsUser=10001, runAsGroup=10001, runAsNonRoot=True, capabilities=capabilities)
    return manifests


DROPPED = {"drop": ["ALL"]}
IN_VAIN = (
    "KILL is in this container's bounding set (CapBnd) and not in effect (CapEff). "
    "Capabilities that a container adds come into effect for root alone, so `add: [KILL]` does nothing for another user"
)
LACKING = "it is another user, and KILL is not in effect (CapEff)"


@pytest.mark.parametrize(
    ("capabilities", "why"),
    [
        pytest.param({**DROPPED, "add": ["KILL"]}, IN_VAIN, id="KILL added"),
        pytest.param(DROPPED, LACKING, id="nothing added", marks=needs_long),
    ],
)
def test_another_user_that_may_not_be_signalled_is_told_everywhere(play: Play, capabilities: dict[str, list[str]], why: str):
    """By the doctor, the metric and the reasons; the Pod is ready, unless its pipeline is to be closed then."""
    with play("unequal", unequal(capabilities)) as pod:
        served = pod.served()
        pod.swap("web-site", greeting=text())
        eventually(lambda: pod.metric("reloader_target_trouble", reason="permission") == 1, within=START, what="the metric")
        assert pod.metric("reloader_signal_failures_total", reason="permission") == 1
        assert pod.metric("reloader_reload_owed") == 1

        examined = Examined(pod.executed("reloader", "reloader", "doctor", "--json"))
        [told] = [each["told"] for each in examined.of("target.permission")]
        assert re.sub(r"pid \d+", "pid N", told) == f"uid 10001 may not signal nginx (pid N, uid 101): {why}"
        assert examined.wrong() == {"target.permission": "failed"}

        is_ready_but_degraded(pod)
        close_what_is_troubled(pod)
        assert pod.served() == served


def is_ready_but_degraded(pod: Pod) -> None:
    pod.await_ready()
    assert pod.get("reloader", "/readyz").status == 200
    pipeline = pod.pipeline()
    assert (pipeline["ready"], pipeline["degraded"], pipeline["closed"]) == (True, True, False)
    assert any("may not signal nginx" in reason for reason in pipeline["reasons"])


def close_what_is_troubled(pod: Pod) -> None:
    """Say that the pipeline is to fail closed, while it runs: it is not ready then, and nothing else."""
    configured = yaml.safe_load(pod.shown("web-reloader")["web.yaml"])
    closed = {**configured, "failure": {"mode": "closed", "startup_grace": "2s"}}
    pod.swap("web-reloader", **{"web.yaml": yaml.safe_dump(closed)})
    eventually(lambda: pod.get("reloader", "/readyz").status == 503, within=START, what="being closed")
    assert "may not signal nginx" in pod.get("reloader", "/readyz").text
    assert pod.metric("reloader_closed") == 1
    assert pod.get("reloader", "/healthz").status == 200
    if rounds(0, 1):
        eventually(lambda: not pod.probers["reloader"].ready, within=START, what="the kubelet taking it for not ready")
