"""The probes of a container, run as the kubelet runs them (pkg/kubelet/prober/worker.go), with the manifest's thresholds and periods."""

import http.client
import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.pods.network import Answer

Ask = Callable[[int, str, float], Answer]
_PHASE = 0.5
"""Seconds from a container's start to its first probe: the kubelet's clock ticks since the Pod came, so any part of a period will do."""
_LOOK = 0.2
"""Seconds after which it is seen that it is to end."""


@dataclass(frozen=True)
class Probe:
    """One of a container, with what Kubernetes takes for what it does not say."""

    port: int
    path: str
    delay: float
    period: float
    timeout: float
    failures: int
    successes: int

    @classmethod
    def of(cls, container: Mapping[str, Any], name: str) -> "Probe | None":
        """Return the probe of that name; None where the container has none."""
        if (written := container.get(name)) is None:
            return None
        asked = written["httpGet"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        return cls(
            port=ports.get(asked["port"], asked["port"]),
            path=asked["path"],
            delay=written.get("initialDelaySeconds", 0),
            period=written.get("periodSeconds", 10),
            timeout=written.get("timeoutSeconds", 1),
            failures=written.get("failureThreshold", 3),
            successes=written.get("successThreshold", 1),
        )


class Verdict:
    """What a probe says, which changes once enough answers in a row say something else; without a probe it stays."""

    def __init__(self, probe: Probe | None, *, holds: bool, begins: float) -> None:
        self.holds = holds
        self.failed = False
        """Whether `failures` in a row were counted."""
        self._probe = probe
        self._due = begins + probe.delay if probe else float("inf")
        self._last: bool | None = None
        self._times = 0

    @property
    def due(self) -> float:
        """When it is asked next, in seconds of the monotonic clock; never without a probe."""
        return self._due

    def take(self, ask: Ask) -> None:
        """Ask, if it is due."""
        probe, now = self._probe, time.monotonic()
        if probe is None or now < self._due:
            return
        self._due = max(self._due + probe.period, now)
        good = _is_good(probe, ask)
        self._times = self._times + 1 if good == self._last else 1
        self._last = good
        if self._times >= (probe.successes if good else probe.failures):
            self.holds, self.failed = good, not good


class Prober:
    """Watches one container from one start to the next until `closing` is set; `restart` is called when a probe demands it.

    `process` returns what it runs, None while it does not.
    """

    def __init__(self, container: Mapping[str, Any], ask: Ask, process: Callable[[], int | None], restart: Callable[[], object]) -> None:
        self.started = self.ready = False
        self.restarts: list[str] = []
        """The probes for which the container was restarted."""
        self.closing = threading.Event()
        self._probes = {name: Probe.of(container, name) for name in ("startupProbe", "readinessProbe", "livenessProbe")}
        self._ask = ask
        self._process = process
        self._restart = restart

    def watch(self) -> None:
        """Return once `closing` is set."""
        while not self.closing.wait(_LOOK):
            with suppress(ProcessLookupError):
                if process := self._process():
                    self._live(os.pidfd_open(process))

    def _live(self, life: int) -> None:
        try:
            self._follow(life)
        finally:
            os.close(life)
            self.started = self.ready = False

    def _follow(self, life: int) -> None:
        """Probe the process that a container runs until it ends."""
        first = time.monotonic() + _PHASE
        startup = self._verdict("startupProbe", first, holds=self._probes["startupProbe"] is None)
        while not startup.holds:
            if not self._waited(life, startup.due):
                return
            startup.take(self._ask)
            if startup.failed:
                self._restarted("startupProbe")
                return
        self.started = True
        self._go_on(life, max(first, time.monotonic()))

    def _go_on(self, life: int, first: float) -> None:
        readiness = self._verdict("readinessProbe", first, holds=self._probes["readinessProbe"] is None)
        liveness = self._verdict("livenessProbe", first, holds=True)
        self.ready = readiness.holds
        while self._waited(life, min(readiness.due, liveness.due)):
            readiness.take(self._ask)
            self.ready = readiness.holds
            liveness.take(self._ask)
            if liveness.failed:
                self._restarted("livenessProbe")
                return

    def _verdict(self, name: str, first: float, *, holds: bool) -> Verdict:
        return Verdict(self._probes[name], holds=holds, begins=first)

    def _waited(self, life: int, until: float) -> bool:
        """Wait, and return whether the container still runs then, and is to be watched."""
        poll = select.poll()
        poll.register(life, select.POLLIN)
        while not self.closing.is_set():
            left = max(until - time.monotonic(), 0)
            if poll.poll(min(left, _LOOK) * 1000):
                return False
            if left <= _LOOK:
                return True
        return False

    def _restarted(self, probe: str) -> None:
        self.restarts.append(probe)
        self._restart()


def _is_good(probe: Probe, ask: Ask) -> bool:
    """Return whether the answer is one that the kubelet takes for a yes."""
    try:
        return 200 <= ask(probe.port, probe.path, probe.timeout).status < 400
    except (OSError, http.client.HTTPException):
        return False
