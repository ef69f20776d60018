"""Consul over TLS, in a cluster that loses its leader, restored from a snapshot and restarted empty: what was read is never blanked."""

from pathlib import Path
from typing import Any

import pytest

from reloader.backends.consul.reads import Fold, Key, Prefix
from reloader.plan import Tls
from reloader.schedule import BACKOFF_CAP, BLOCKING_WAIT
from reloader.snapshot import FailureKind
from tests.servers import running
from tests.servers.certificates import Authority
from tests.servers.consul import Cluster, Consul
from tests.unit.watching import Watching, watching
from tests.waiting import eventually

pytestmark = pytest.mark.servers


def readings_of(inbox: Any) -> list[Any]:
    return [value for value in inbox.values if value is not None]


class TestTls:
    """A server that has a certificate of a private authority, and asks its clients for one."""

    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path / "authority")

    def test_both_sides_prove_themselves(self, tmp_path: Path, authority: Authority) -> None:
        """By the authority's certificates; the server's name may be another than the address's."""
        with running(lambda: Consul(tmp_path / "consul", authority)) as consul:
            consul.put("app/a", "1")
            certificate, key = map(str, authority.issue("sidecar"))
            tls = Tls(ca_file=str(authority.ca_file), cert_file=certificate, key_file=key, server_name="consul.test")
            with watching(consul.address, tls=tls) as trusted:
                inbox = trusted.watch(Key("app/a"))
                eventually(lambda: inbox.latest == "1")
                eventually(trusted.holds)
                consul.put("app/a", "2")
                eventually(lambda: inbox.latest == "2")

    @pytest.mark.parametrize("lacks", ["our certificate", "their authority", "their name"])
    def test_whoever_does_not_is_told_what_to_mend(self, tmp_path: Path, authority: Authority, lacks: str) -> None:
        """It is a matter of configuration, and no outage."""
        with running(lambda: Consul(tmp_path / "consul", authority)) as consul:
            certificate, key = map(str, authority.issue("sidecar"))
            ours = {} if lacks == "our certificate" else {"cert_file": certificate, "key_file": key}
            theirs = {} if lacks == "their authority" else {"ca_file": str(authority.ca_file)}
            name = "other.test" if lacks == "their name" else "consul.test"
            with watching(consul.address, tls=Tls(**ours, **theirs, server_name=name)) as stranger:
                inbox = stranger.watch(Key("app/a"))
                failure = eventually(lambda: inbox.failures)[0]

        assert failure.kind is FailureKind.MISCONFIGURED
        assert "consul.tls" in failure.reason


class TestCluster:
    """Three servers, one of which leads."""

    def test_a_lost_leader_blanks_nothing(self, tmp_path: Path) -> None:
        """The election passes unseen or as a failure; a change after it arrives; without a majority there is no answer at all."""
        with running(lambda: Cluster(tmp_path)) as cluster:
            cluster.servers[0].put_all({f"app/{number}": "1" for number in range(3)})
            leader = eventually(cluster.leader)
            asked, other = (server for server in cluster.servers if server is not leader)
            with watching(asked.address, max_connections=2) as sidecar:
                folder, key, missing = (sidecar.watch(read) for read in (Prefix("app/"), Key("app/1"), Key("app/none")))
                eventually(lambda: folder.values and key.values and missing.values)
                leader.stop(kill=True)
                eventually(cluster.leader, within=60, what="another leader")
                eventually(lambda: asked.put("app/1", "2") or True, within=30, what="a write")
                eventually(lambda: key.latest == "2" and folder.latest["1"] == "2", within=30, what="the change")

                other.stop(kill=True)
                eventually(lambda: key.failures and key.latest is key.failures[-1], within=BLOCKING_WAIT, what="no leader to be told")
                reason = key.latest.reason
                leader.start()
                eventually(cluster.leader, within=60, what="a majority")
                eventually(lambda: asked.put("app/1", "3") or True, within=30, what="a write")
                # Whoever asks waits for as long as the backoff has grown to, and then each read for its turn.
                eventually(lambda: key.latest == "3" and folder.latest["1"] == "3", within=2 * BACKOFF_CAP, what="the change")

        assert "no leader" in reason
        assert all(set(value) == {"0", "1", "2"} for value in folder.values)
        assert None not in key.values
        assert set(missing.values) == {None}


class TestHistory:
    """A server whose indexes go backwards."""

    def test_a_change_after_a_restored_snapshot_is_seen_at_once(self, own_consul: Consul) -> None:
        """The open queries end with the restore, with the old answer, and must not wait for its index again."""
        for number in range(4):
            own_consul.put(f"app/{number}", "old")
        snapshot = own_consul.snapshot()
        for _ in range(30):
            own_consul.put("app/1", "new")
        with watching(own_consul.address) as sidecar:
            key, folder = sidecar.watch(Key("app/1")), sidecar.watch(Prefix("app/"))
            eventually(lambda: key.latest == "new" and folder.latest["1"] == "new")
            eventually(lambda: sidecar.holds(2))
            before = own_consul.index("app/1")
            own_consul.restore(snapshot)
            assert own_consul.index("app/1") < before
            eventually(lambda: key.latest == "old" and folder.latest["1"] == "old", within=BLOCKING_WAIT / 4)
            eventually(lambda: sidecar.holds(2))
            own_consul.put("app/1", "after")
            eventually(lambda: key.latest == "after" and folder.latest["1"] == "after", within=BLOCKING_WAIT / 4)

        assert not key.failures
        assert None not in key.values

    def test_a_server_that_comes_back_empty_is_read_as_it_is(self, own_consul: Consul) -> None:
        """Whether to believe that is for others to say; what is written then is seen at once, though its indexes are low."""
        keys = [f"app/{number}" for number in range(6)]
        own_consul.put_all(dict.fromkeys(keys, "1"))
        with watching(own_consul.address, max_connections=2) as sidecar:
            inboxes = [sidecar.watch(Key(key)) for key in keys]
            folder = sidecar.watch(Prefix("app/"))
            eventually(lambda: all(inbox.latest == "1" for inbox in inboxes))
            eventually(lambda: served_by_fold(sidecar) == set(keys))
            own_consul.stop(kill=True)
            eventually(lambda: all(inbox.failures for inbox in inboxes), what="the outage to be told")
            assert all(None not in inbox.values for inbox in inboxes)
            own_consul.empty()
            eventually(lambda: folder.latest == {} and all(inbox.latest is None for inbox in inboxes), within=BLOCKING_WAIT)
            own_consul.put(keys[0], "2")
            eventually(lambda: inboxes[0].latest == "2" and folder.latest == {"0": "2"}, within=BLOCKING_WAIT / 4)


class TestMany:
    """Thousands of keys."""

    def test_one_of_ten_thousand_keys_below_a_prefix_is_seen_to_change(self, consul_server: Consul) -> None:
        """One query for the whole tree."""
        consul_server.put_all({f"many/{number % 100}/{number}": "1" for number in range(10_000)})
        with watching(consul_server.address) as sidecar:
            inbox = sidecar.watch(Prefix("many/"))
            eventually(lambda: len(inbox.latest) == 10_000, within=30)
            eventually(sidecar.holds)
            consul_server.put("many/17/4217", "2")
            eventually(lambda: inbox.latest["17/4217"] == "2", within=30)

        assert not inbox.failures
        assert list(inbox.latest.values()).count("1") == 9_999

    def test_two_thousand_keys_are_served_by_a_few_queries(self, consul_server: Consul) -> None:
        """Each is read once by itself; then a change of any of them comes through the folder's."""
        keys = [f"many/{number % 20}/{number}" for number in range(2_000)]
        consul_server.put_all(dict.fromkeys(keys, "1"))
        with watching(consul_server.address, max_connections=4) as sidecar:
            inboxes = {key: sidecar.watch(Key(key)) for key in keys}
            eventually(lambda: served_by_fold(sidecar) == set(keys), within=60, every=0.5, what="all served")
            folds = [read for read in sidecar.backend._watched if isinstance(read, Fold)]
            assert 1 <= len(folds) <= 4
            consul_server.put(keys[1234], "2")
            eventually(lambda: inboxes[keys[1234]].latest == "2", within=30)
            assert len(sidecar.backend._idle) + len(sidecar.backend._used) <= 4

        assert not any(inbox.failures for inbox in inboxes.values())
        assert not any(None in inbox.values for inbox in inboxes.values())


def served_by_fold(sidecar: Watching) -> set[str]:
    return {read.key for read, watched in tuple(sidecar.backend._watched.items()) if isinstance(read, Key) and watched.served}
