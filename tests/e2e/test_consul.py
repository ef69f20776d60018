"""Consul end to end: what a sidecar publishes of it, with ACLs, in outages, and with thousands of keys."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.sidecar import Sidecar
from tests.servers import running
from tests.servers.consul import AclConsul, Consul
from tests.waiting import eventually

pytestmark = pytest.mark.servers

Start = Callable[..., tuple[Sidecar, Path]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a sidecar that reads these sources and publishes one file; return it, and the file."""
    started: list[Sidecar] = []

    def start(address: str, sources: dict[str, str], content: str, consul: str = "") -> tuple[Sidecar, Path]:
        lines = "".join(f"  {name}: {{kind: consul, {read}}}\n" for name, read in sources.items())
        configuration = tmp_path / "app.yaml"
        configuration.write_text(
            f"consul: {{address: '{address}'{consul}}}\nsources:\n{lines}"
            f'volume:\n  path: {tmp_path / "live"}\n  files:\n    app.conf: {{content: "{content}"}}\n'
            "target: {kind: none}\ntiming: {min_interval: 0s}\n"
        )
        started.append(Sidecar(tmp_path / "sidecar", configuration).start())
        return started[-1], tmp_path / "live" / "app.conf"

    yield start
    for sidecar in started:
        sidecar.stop()


def test_a_default_is_for_a_missing_key_alone(start: Start, tmp_path: Path) -> None:
    """Neither a denied key nor an outage brings it; what was published stays, and the reason names the rule to grant."""
    with running(lambda: AclConsul(tmp_path / "consul")) as consul:
        consul.put("app/denied", "CANARY")
        token_file = tmp_path / "token"
        token = consul.token('key "app/flags" { policy = "read" }')
        token_file.write_text(token)
        sidecar, file = start(
            consul.address,
            {"flags": "key: app/flags, default: fallback", "denied": "key: app/denied, default: fallback"},
            "{{ flags }} {{ denied }}",
            f", token_file: {token_file}",
        )
        denied = eventually(lambda: next(each for each in sidecar.pipeline()["sources"] if each["name"] == "denied" and each["failure"]))
        assert 'key "app/denied" { policy = "read" }' in denied["failure"]
        assert not file.exists()

        consul.change_rules(token, 'key_prefix "app/" { policy = "read" }')
        eventually(lambda: file.read_text() == "fallback CANARY", within=60)
        consul.put("app/flags", "set")
        eventually(lambda: file.read_text() == "set CANARY", within=30)

        consul.change_rules(token, 'key_prefix "other/" { policy = "read" }')
        consul.put("app/flags", "hidden")
        eventually(lambda: sidecar.metric("reloader_source_up", source="flags") == 0, within=60, what="the denial to be told")
        consul.stop(kill=True)
        eventually(lambda: sidecar.metric("reloader_source_errors_total", source="flags", reason="unreachable") > 0, within=60)
        # Consul lets a query that was open when the right was taken away bring one more answer.
        assert file.read_text() in {"set CANARY", "hidden CANARY"}

    assert "CANARY" not in sidecar.log()


def test_a_token_that_is_rotated_is_taken_from_its_file(start: Start, tmp_path: Path) -> None:
    """The old one is revoked, nothing is blanked, and the new one brings what changed."""
    with running(lambda: AclConsul(tmp_path / "consul")) as consul:
        rules = 'key_prefix "app/" { policy = "read" }'
        consul.put_all({"app/a": "1", "app/b": "1"})
        token, token_file = consul.token(rules), tmp_path / "token"
        token_file.write_text(token)
        _, file = start(consul.address, {"app": "prefix: app/"}, "{{ app | dictsort }}", f", token_file: {token_file}")
        eventually(lambda: file.read_text() == "[('a', '1'), ('b', '1')]")
        consul.revoke(token)
        consul.put("app/a", "2")
        token_file.write_text(consul.token(rules))

        eventually(lambda: file.read_text() == "[('a', '2'), ('b', '1')]", within=60)


def test_one_of_two_thousand_keys_is_rendered_over_four_connections(start: Start, consul_server: Consul) -> None:
    """However many sources there are, connections stay within the bound, and a change arrives through the query of the folder."""
    keys = {f"s{number}": f"many/{number % 20}/{number}" for number in range(2_000)}
    consul_server.put_all(dict.fromkeys(keys.values(), "1"))
    sidecar, file = start(
        consul_server.address,
        {name: f"key: {key}" for name, key in keys.items()},
        "{{ s7 }} {{ s1999 }} {{ s1234 }}",
    )
    most = 0

    def shows(text: str) -> bool:
        nonlocal most
        most = max(most, connections_of(sidecar, consul_server))
        return file.exists() and file.read_text() == text

    eventually(lambda: shows("1 1 1"), within=90, what="the first set")
    for number, text in ((1234, "1 1 2"), (7, "2 1 2")):
        consul_server.put(keys[f"s{number}"], "2")
        eventually(lambda text=text: shows(text), within=30, what="the changed key")

    assert 1 <= most <= 4


def connections_of(sidecar: Sidecar, consul: Consul) -> int:
    """Return how many connections to the server the sidecar has open."""
    port = int(consul.address.rpartition(":")[2])
    open_ones = psutil.Process(sidecar.pid).net_connections("tcp")
    return sum(each.raddr != () and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED for each in open_ones)
