"""Real servers that fail in every way they have, several at a time, under a sidecar that must come through it: seeded, and counted."""

import datetime as dt
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from reloader.schedule import BACKOFF_CAP
from tests.e2e.sidecar import PROGRAM, Sidecar
from tests.faults import chaos, judging
from tests.faults.eyes import Eyes, Judge, alike, certificate, matching, paired, words
from tests.scale import SEED, rounds
from tests.servers import UnavailableError, missing
from tests.servers.postgres import Postgres
from tests.targets.reading import read
from tests.waiting import eventually

pytestmark = pytest.mark.servers

QUIET = rounds(8, 60)
"""Seconds without a fault, for comparison: values change as they do later."""
STORM = rounds(28, 600)

WELL = {"ready": True, "degraded": False, "closed": False, "owed": None}
"""What the status of a pipeline says then."""
PIPELINE = """
{connection}
sources: {{it: {{kind: {source}}}}}
volume: {{path: {live}, files: {files}}}
target: {{kind: none}}
timing: {{min_interval: 0s, settle: 10ms}}
"""
BOTH = '{{one.conf: {{content: "{0}"}}, two.conf: {{content: "{0}"}}}}'
FIELDS = BOTH.format("{{ it.one }} {{ it.two }}")
USER = BOTH.format("{{ it.username }} {{ it.password }}")
PAIR = '{one.conf: {content: "{{ it.certificate }}"}, two.conf: {content: "{{ it.private_key }}"}}'
TEXT = BOTH.format("{{ it }}")
VALUES = BOTH.format("{% for name, value in it | dictsort %}{{ value }} {% endfor %}")
NUMBERS = BOTH.format("{% for each in it %}{{ each.meta.number }} {% endfor %}")


class House:
    """A sidecar with a pipeline for each thing that can be had, and the servers that it has them from."""

    def __init__(self, folder: Path, postgres: Postgres, stops: ExitStack) -> None:
        self.folder, self.postgres = folder, postgres
        self.over, self.connects = threading.Event(), folder / "connects"
        self.threads = ThreadPoolExecutor(3)  # as long as the servers live, which end with the thread that started them
        stops.callback(self.threads.shutdown)
        self.vault, self.consul, self.trio = chaos.Vault(folder, postgres), chaos.Consul(folder), chaos.Trio(folder / "trio")
        self.troubles: tuple[chaos.Trouble, ...] = (self.vault, self.consul, self.trio)
        for trouble in self.troubles:
            stops.callback(trouble.stop)
        self.everywhere(lambda trouble: trouble.start())
        self.judges: dict[str, Judge] = {}
        self._write_all()
        self.live = {name: folder / "live" / name for name in self.judges}
        program = (PROGRAM[0], Path(__file__).with_name("connects.py"), self.connects)
        self.sidecar = Sidecar(folder / "sidecar", *sorted(folder.glob("*.yaml")), program=program)
        stops.callback(self.sidecar.stop, kill=True)
        self.eyes = Eyes(self.live, self.judges)
        stops.callback(self.over.set)

    def start(self) -> None:
        """Start the sidecar, and return when all is well."""
        self.sidecar.start()
        eventually(self.all_well, within=30, what="every pipeline")
        self.eyes.start()

    def everywhere(self, do: Callable[[chaos.Trouble], None]) -> None:
        """Do something with all servers at the same time."""
        for done in [self.threads.submit(do, trouble) for trouble in self.troubles]:
            done.result()

    def rest(self) -> None:
        """Let a quiet time pass."""
        self.everywhere(lambda trouble: trouble.let_be(QUIET, self.over))

    def storm(self) -> None:
        """Let everything happen, and make it well again."""
        until = time.monotonic() + STORM
        self.everywhere(lambda trouble: trouble.storm(random.Random(f"{SEED} {type(trouble).__name__}"), until, self.over))

    def converge(self) -> None:
        """Change every value, and return when all of them arrived: by then no backoff is left, and another change takes no time."""
        for within in (BACKOFF_CAP + 15, 15):
            for trouble in self.troubles:
                trouble.number += 1000
                eventually(lambda trouble=trouble: trouble.change(trouble.number) or True, within=30, what=f"a change of {trouble}")
            eventually(self.all_well, within=within, every=0.1, what="every pipeline after the storm")

    def all_well(self) -> bool:
        """Return whether each pipeline has what there is, and says so; AssertionError with what is wrong."""
        wrong = {name: state for name in self.live if (state := self._wrong(name))}
        assert not wrong, wrong
        return True

    def rate(self, since: float, until: float) -> float:
        """Return how many requests a second all servers had, also those that found none."""
        return sum(judging.mean(trouble.counting.requests(self.connects), since, until) for trouble in self.troubles)

    def too_soon(self) -> list[str]:
        return [late for trouble in self.troubles for late in judging.too_soon(trouble.counting.requests(self.connects))]

    def minted(self, path: str, *, term: float, most: float | None) -> Counter[str]:
        """Return how often something was minted, by the reason."""
        lost = [seen for seen in self.vault.counting.requests() if seen.path == f"/v1/{path}" and seen.status is None]
        return Counter(judging.reasons_to_mint(self.answers(), path, term=term, most=most, lost=lost))

    def answers(self) -> list[judging.Answered]:
        return judging.audit(self.vault.audit)

    def _wrong(self, name: str) -> object:
        """Return what is wrong with a pipeline, if something is."""
        state, files = self.sidecar.pipeline(name), read(self.live[name])
        if not self.sidecar.settled(name) or any(state[key] != value for key, value in WELL.items()):
            return state
        assert files is not None
        if name == "vault-user":
            return None if self.postgres.lets_in(*words(files)) else "the user is not let in"
        if name == "vault-pair":
            return None if certificate(files).not_valid_after_utc > dt.datetime.now(dt.UTC) else "the certificate has ended"
        number = getattr(self, name.partition("-")[0]).number
        return None if set(words(files)) == {f"{name[0]}{number}"} else files

    def _write_all(self) -> None:
        vault, consul, trio = self.vault.connection, self.consul.connection, self.trio.connection
        self._write("vault-secret", vault, "vault, path: secret/app, poll: 2s", FIELDS, alike(2))
        self._write("vault-user", vault, "vault, path: database/creds/app", USER, paired)
        issue = f"{{common_name: localhost, ttl: {chaos.LIFETIME}s}}"
        self._write("vault-pair", vault, f"vault, path: pki/issue/any, write: {issue}", PAIR, matching)
        for prefix, connection in (("consul", consul), ("trio", trio)):
            self._write(f"{prefix}-tree", connection, "consul, prefix: app/tree/", VALUES, alike(3))
            self._write(f"{prefix}-key", connection, "consul, key: app/key", TEXT, alike(1))
        self._write("consul-service", consul, "consul, service: web", NUMBERS, alike(1))

    def _write(self, name: str, connection: str, source: str, files: str, judge: Judge) -> None:
        text = PIPELINE.format(connection=connection, source=source, live=self.folder / "live" / name, files=files)
        (self.folder / f"{name}.yaml").write_text(text)
        self.judges[name] = judge


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with ExitStack() as stops:
        try:
            postgres = Postgres()
            stops.callback(postgres.stop, kill=True)
            postgres.start()
            yield House(tmp_path, postgres, stops)
        except UnavailableError as reason:
            missing(reason)


@pytest.mark.timeout(rounds(150, 900))
def test_a_storm_of_faults_is_outlived_calmly(house: House) -> None:
    """All converges, nothing is blanked, nothing is minted without need, and servers are not asked more than they should."""
    house.start()
    pid, began = house.sidecar.pid, time.monotonic()
    house.rest()
    rested = time.monotonic()
    house.storm()
    house.converge()
    ended = time.monotonic()
    house.eyes.stop()

    faults = [Counter(name for _, name in trouble.happened) for trouble in house.troubles]
    users = house.minted("database/creds/app", term=chaos.TERM, most=chaos.MOST)
    pairs = house.minted("pki/issue/any", term=chaos.LIFETIME, most=None)
    logins = sum(each.path == judging.LOGIN and not each.refused for each in house.answers())
    quiet, stormy = house.rate(began, rested), house.rate(rested, ended)
    print(f"{faults}: users {users}, certificates {pairs}, {logins} logins, {quiet:.2f} requests/s, then {stormy:.2f}")

    assert house.eyes.bad == []
    assert house.sidecar.pid == pid
    assert [line for line in house.sidecar.log().splitlines() if "internal error: " in line or "Traceback" in line] == []
    assert users["no reason"] == pairs["no reason"] == 0
    assert users["gone"] + users["token"] <= faults[0].total()
    assert logins <= 1 + faults[0].total()
    assert judging.trials_too_soon(house.answers()) == []
    assert stormy <= 2 * quiet
    assert house.too_soon() == []
