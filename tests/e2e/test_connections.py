"""However many identities the pipelines have at one address, the sidecar keeps no more connections to it open than it may."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.e2e.sidecar import Sidecar
from tests.servers import running
from tests.servers.consul import AclConsul
from tests.servers.openbao import OpenBao
from tests.waiting import eventually

pytestmark = pytest.mark.servers

MOST, IDENTITIES = 2, 5
PIPELINE = """
{kind}: {{address: '{address}', max_connections: {most}, {identity}}}
sources: {{it: {{kind: {kind}, {read}}}}}
volume: {{path: {live}, files: {{value: {{content: "{content}"}}}}}}
target: {{kind: none}}
timing: {{min_interval: 0s, settle: 10ms}}
"""


@dataclass(frozen=True)
class Server:
    """One that holds a value, and knows several who may read it."""

    kind: str
    address: str
    identities: list[str]
    read: str
    content: str
    put: Callable[[str], object]

    def pipeline(self, identity: str, live: Path) -> str:
        """Return the file of a pipeline that reads the value as one of these."""
        return PIPELINE.format(
            kind=self.kind, address=self.address, most=MOST, identity=identity, read=self.read, live=live, content=self.content
        )


@pytest.fixture
def vault(openbao: OpenBao) -> Server:
    openbao.enable("kv", "secret", version="2")
    tokens = [openbao.policy_token('path "secret/*" { capabilities = ["read"] }') for _ in range(IDENTITIES)]
    return Server(
        "vault",
        openbao.address,
        [f"auth: {{method: token, token: {token}}}" for token in tokens],
        "path: secret/app, poll: 1s",
        "{{ it.value }}",
        lambda value: openbao.put_kv2("secret", "app", {"value": value}),
    )


@pytest.fixture
def consul(tmp_path: Path) -> Iterator[Server]:
    with running(lambda: AclConsul(tmp_path / "consul")) as server:
        tokens = [server.token('key "app" { policy = "read" }') for _ in range(IDENTITIES)]
        identities = [f"token: {token}" for token in tokens]
        yield Server("consul", server.address, identities, "key: app", "{{ it }}", lambda value: server.put("app", value))


@pytest.mark.parametrize("kind", ["vault", "consul"])
def test_those_to_a_server(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Each pipeline has a token of its own, and is served after a change, though they are more than the connections."""
    server: Server = request.getfixturevalue(kind)
    server.put("1")
    live = {name: tmp_path / "live" / name for name in map(str, range(IDENTITIES))}
    for identity, (name, path) in zip(server.identities, live.items(), strict=True):
        (tmp_path / f"{name}.yaml").write_text(server.pipeline(identity, path))
    sidecar = Sidecar(tmp_path / "sidecar", *sorted(tmp_path.glob("*.yaml"))).start()
    try:
        process, open_at_once = psutil.Process(sidecar.pid), [0]

        def shows(value: str) -> bool:
            open_at_once.append(to(server.address, process))
            return all((path / "value").exists() and (path / "value").read_text() == value for path in live.values())

        for value in ("1", "2", "3"):
            server.put(value)
            eventually(lambda value=value: shows(value), within=60, every=0.01, what=f"{value} in each volume")
        assert max(open_at_once) == MOST
        assert [line for line in sidecar.lines() if line["level"] in {"warning", "error"}] == []
    finally:
        sidecar.stop()


def to(address: str, process: psutil.Process) -> int:
    """Return how many connections to an address a process has open."""
    port = int(address.rpartition(":")[2])
    return sum(
        bool(each.raddr) and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp")
    )
