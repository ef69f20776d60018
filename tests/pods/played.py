"""A Pod that podman plays and that this process looks after in the kubelet's place."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.holding import containers
from tests.deploy.rendering import Manifest, one
from tests.pods.corrections import NETWORK, RUNTIME, corrected
from tests.pods.network import Answer, Network
from tests.pods.probing import Prober
from tests.pods.volumes import Volumes
from tests.servers.podman import Podman
from tests.waiting import eventually

START = 120
"""Seconds for a container to be started and ready, on a busy machine too."""


class Pod:
    """The Pod of the Deployment among the manifests: `start` it, and `close` it whatever happens."""

    def __init__(self, podman: Podman, name: str, manifests: list[Manifest], images: Mapping[str, str], folder: Path) -> None:
        self._podman = podman
        self.name = f"{name}-{os.getpid()}"
        self.deployment = one(manifests, "Deployment")
        self.containers = containers(self.deployment)
        """As the manifests have them, by their names."""
        self._maps = {each["metadata"]["name"]: dict(each["data"]) for each in manifests if each["kind"] == "ConfigMap"}
        with contextlib.ExitStack() as made:
            self._volumes = made.enter_context(contextlib.closing(Volumes(folder)))
            self._network = made.enter_context(contextlib.closing(Network()))
            self._manifest = corrected(manifests, images, self._volumes)
            self._pool = made.enter_context(ThreadPoolExecutor(8, "kubelet"))
            self._made = made.pop_all()
        self._manifest["metadata"] = {"name": self.name, "labels": {**self._manifest["metadata"]["labels"], **podman.mark}}
        self._file = folder / "pod.yaml"
        self.probers = {name: self._prober(each) for name, each in self.containers.items()}
        self._watching: list[Future[None]] = []
        self.restarts_at_the_start: dict[str, int] = {}
        """How often each container was started again before the Pod was ready."""

    def start(self) -> None:
        """Start the containers as the kubelet does, each native sidecar until its startup probe holds, and return when all are ready."""
        self._file.write_text(yaml.safe_dump(self._manifest))
        self._podman(f"--runtime={RUNTIME}", "kube", "play", f"--network={NETWORK}", "--start=false", self._file)
        infra = self._podman("pod", "inspect", "--format={{.InfraContainerID}}", self.name)
        self._podman("start", infra)
        self._network.join(int(self._podman("inspect", "--format={{.State.Pid}}", infra)))
        with self._logs_beside_what_fails():
            for name, container in self.containers.items():
                self.begin(name)
                self._watching.append(self._pool.submit(self.probers[name].watch))
                if container.get("restartPolicy") == "Always":
                    self._await_started(name)
            self.await_ready()
        self.restarts_at_the_start = {name: int(self._inspected(name, "RestartCount")) for name in self.containers}

    def await_ready(self) -> None:
        """Return when the kubelet would call the Pod ready."""
        eventually(lambda: all(each.ready for each in self.probers.values()), within=START, what="every container being ready")

    def shown(self, name: str) -> Mapping[str, str]:
        """Return the data of a ConfigMap."""
        return self._maps[name]

    def swap(self, name: str, **data: str) -> float:
        """Update these keys of a ConfigMap, and return when that was shown, in seconds of the monotonic clock."""
        self._maps[name] |= data
        return self._volumes.swap(name, self._maps[name])

    def get(self, port: str, path: str) -> Answer:
        """Ask a port of the Pod by its name, from the node."""
        ports = {each["name"]: each["containerPort"] for container in self.containers.values() for each in container["ports"]}
        return self._network.get(ports[port], path)

    def served(self) -> str:
        """Return what NGINX answers."""
        return self.get("http", "/").text

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric of the only pipeline."""
        families = text_string_to_metric_families(self.get("reloader", "/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        [value] = [each.value for each in samples if each.name == name and labels.items() <= each.labels.items()]
        return float(value)

    def owes_nothing(self) -> bool:
        """Return whether NGINX is known to run on what was published last."""
        generations = {self.metric("reloader_generation", state=state) for state in ("desired", "published", "confirmed")}
        return len(generations) == 1 and self.metric("reloader_reload_owed") == 0

    def executed(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container, as `kubectl exec` does."""
        return self._podman.tried("exec", self._called(name), *words)

    def pipeline(self) -> dict[str, Any]:
        """Return what the status document says of the only pipeline."""
        [pipeline] = json.loads(self.executed("reloader", "reloader", "status", "--json").stdout)["pipelines"]
        return dict(pipeline)

    def end(self, name: str) -> None:
        """End a container, and leave it."""
        self._podman("stop", "--time=10", self._called(name))

    def begin(self, name: str) -> None:
        """Start a container."""
        self._podman("start", self._called(name))

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Signal what a container runs from outside, as the kernel does when memory is short."""
        process = self.process(name)
        assert process, f"{name} does not run"
        os.kill(process, number)

    def process(self, name: str) -> int | None:
        """Return what a container runs, as this machine counts; None while it does not run."""
        done = self._podman.tried("inspect", "--format={{.State.Pid}}", self._called(name))
        return int(done.stdout) or None if done.returncode == 0 else None

    def process_status(self, name: str) -> dict[str, str]:
        """Return what the kernel says of what a container runs, proc_pid_status(5)."""
        lines = Path(f"/proc/{self.process(name)}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def writable(self, name: str) -> set[str]:
        """Return where a container may write, but for what the kernel shows there, proc_pid_mountinfo(5)."""
        lines = [line.split() for line in Path(f"/proc/{self.process(name)}/mountinfo").read_text().splitlines()]
        points = {words[4] for words in lines if "rw" in words[5].split(",")}
        return {point for point in points if not point.startswith(("/dev", "/proc", "/sys"))}

    def close(self) -> None:
        """End and remove all of it; what went wrong in a prober is raised then."""
        for prober in self.probers.values():
            prober.closing.set()
        with self._made:
            self._podman("pod", "rm", "--force", "--ignore", "--time=0", self.name)
        for each in self._watching:
            each.result()

    def _await_started(self, name: str) -> None:
        eventually(lambda: self.probers[name].started, within=START, what=f"the start of {name}")

    def _prober(self, container: Mapping[str, Any]) -> Prober:
        name = container["name"]
        return Prober(container, self._network.get, lambda: self.process(name), lambda: self._podman("restart", self._called(name)))

    def _inspected(self, name: str, field: str) -> str:
        return self._podman("inspect", f"--format={{{{.{field}}}}}", self._called(name))

    def _called(self, name: str) -> str:
        return f"{self.name}-{name}"

    @contextlib.contextmanager
    def _logs_beside_what_fails(self) -> Iterator[None]:
        try:
            yield
        except AssertionError as problem:
            for name in self.containers:
                done = self._podman.tried("logs", "--tail=30", self._called(name))
                problem.add_note(f"{name}:\n{done.stdout}{done.stderr}")
            raise


def seconds_until_served(pod: Pod, text: str) -> float:
    """Change what is served, and return how long that took."""
    shown = pod.swap("web-site", greeting=text)
    eventually(lambda: pod.served() == text, within=START, what=f"{text!r} being served")
    return time.monotonic() - shown
