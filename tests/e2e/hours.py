"""Hours of a Vault backend at a real OpenBao, in moments: the clock jumps from one request to the next, and what was asked is counted."""

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from reloader import settings
from reloader.backends.vault import Backend
from reloader.plan import BackendPlan, Pipeline, Vault, VaultAuth
from reloader.sources import make
from reloader.world import World
from reloader.written import Secret as Hidden
from tests.recorder import Recorder
from tests.servers.openbao import OpenBao
from tests.virtual import VirtualClock, VirtualTurns

HOUR = 3600.0
START = 60.0
"""How many seconds a start takes, with the second poll of what is polled every 30 s."""


class ServersClock(VirtualClock):
    """Jumps for us, but not for the server: what it says of times of day is true."""

    def wall(self) -> float:
        return time.time()


class Hours:
    """One backend; `asked` counts by operation and path."""

    def __init__(self, server: OpenBao, plan: Vault, seed: int = 1) -> None:
        self.clock = ServersClock()
        self.turns = VirtualTurns(self.clock)
        world = replace(World(), clock=self.clock, random=random.Random(seed))
        self.backend = Backend(plan, self.turns, world)
        self._server = server
        self._began = len(server.audit())

    def watch(self, *reads: object) -> list[Recorder]:
        """Read them from now on."""
        inboxes = [Recorder() for _ in reads]
        for read, inbox in zip(reads, inboxes, strict=True):
            self.backend.watch(read, inbox, "name")
        return inboxes

    def run(self, hours: float) -> Counter[str]:
        """Let time pass, and return what was asked meanwhile; a minute of it is a start."""
        self.turns.run(self.clock.now() + hours * HOUR)
        return self.asked()

    def start(self) -> Counter[str]:
        """Let the first minute pass."""
        return self.run(START / HOUR)

    def asked(self) -> Counter[str]:
        """Return what was asked since the last time."""
        since, self._began = self._began, len(self._server.audit())
        return Counter(f"{each.operation} {each.path}" for each in self._server.audit(since=since))


@contextmanager
def hours(server: OpenBao, auth: VaultAuth | str, *, address: str = "", seed: int = 1) -> Iterator[Hours]:
    """Run a backend as whoever a login or a token makes it."""
    auth = VaultAuth(token=Hidden(auth)) if isinstance(auth, str) else auth
    made = Hours(server, Vault(address=address or server.address, auth=auth), seed)
    try:
        yield made
    finally:
        made.backend.close()


def loaded(text: str, folder: Path, moved: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None) -> Pipeline:
    """Return the pipeline of a configuration, some paths in it replaced."""
    for old, new in (moved or {}).items():
        text = text.replace(old, new)
    file = folder / "app.yaml"
    file.write_text(text)
    return settings.load([file], env or {}).pipelines[0]


def reads_of(pipeline: Pipeline) -> dict[str, object]:
    """Return what each source reads."""
    return {name: _made(pipeline, name).read for name in pipeline.sources}


def backend_of(pipeline: Pipeline) -> BackendPlan:
    """Return the server that its sources read from."""
    return next(_made(pipeline, name).backend for name in pipeline.sources)


def lines_of(policy: str) -> dict[str, str]:
    """Return the lines of a policy or of ACL rules by what they name."""
    return {line.split('"')[1] or line.split()[0]: line for line in policy.splitlines() if line.strip()}


def _made(pipeline: Pipeline, name: str) -> Any:
    plan = pipeline.sources[name]
    return make(plan.kind, plan.settings, pipeline.connections)
