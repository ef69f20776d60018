"""Values of a real Consul server arrive as they change, and failures as they come and go."""

import threading
from collections.abc import Callable, Iterator

import pytest

from reloader.backends.consul.reads import Key, Nodes, Prefix, Service, Services
from reloader.schedule import BLOCKING_WAIT
from reloader.snapshot import FailureKind, Reading
from tests.servers.consul import Consul
from tests.servers.misbehaving import Exchange, hang, misbehaving
from tests.unit.watching import Watching
from tests.waiting import eventually

pytestmark = pytest.mark.servers


@pytest.fixture
def watching(consul_server: Consul) -> Iterator[Watching]:
    watching = Watching(consul_server.address)
    yield watching
    watching.close()


def threads_of(address: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(address)]


def test_a_datacenter_that_is_not_there_is_told_as_such(consul_server: Consul) -> None:
    """The server says 500, as for much else."""
    watching = Watching(consul_server.address, datacenter="nowhere")
    inbox = watching.watch(Key("app/flags"))
    eventually(lambda: inbox.failures)
    watching.close()

    assert "knows no way to the datacenter nowhere; check consul.datacenter" in inbox.latest.reason


class TestKey:
    """The text of one key."""

    def test_it_arrives_and_follows_every_change(self, consul_server: Consul, watching: Watching) -> None:
        """A change is seen through the open query, not at the next poll."""
        consul_server.put("app/flags", "one")
        inbox = watching.watch(Key("app/flags"))
        eventually(lambda: inbox.latest == "one")
        for text in ("two", "", "drei\n", "ümlaut"):
            eventually(watching.holds, what="the blocking query")
            consul_server.put("app/flags", text)
            eventually(lambda text=text: inbox.latest == text)

        assert inbox.values == ["one", "two", "", "drei\n", "ümlaut"]
        assert not inbox.failures

    def test_what_is_no_text_is_bytes(self, consul_server: Consul, watching: Watching) -> None:
        """A key may hold anything."""
        consul_server.put("blob", b"\xff\x00\xfe")
        inbox = watching.watch(Key("blob"))

        assert eventually(lambda: inbox.values) == [b"\xff\x00\xfe"]

    def test_a_missing_key_is_seen_when_it_is_created_and_deleted(self, consul_server: Consul, watching: Watching) -> None:
        """404 is an answer that is watched like any other."""
        inbox = watching.watch(Key("later"))
        eventually(lambda: inbox.values == [None])
        eventually(watching.holds)
        consul_server.put("later", "here")
        eventually(lambda: inbox.latest == "here")
        eventually(watching.holds)
        consul_server.delete("later")
        eventually(lambda: inbox.latest is None)

        assert not inbox.failures

    def test_a_reading_says_how_current_it_is(self, consul_server: Consul, watching: Watching) -> None:
        """Until the open query must have been answered, so that a read that is stuck shows in its age; no value is in the detail."""
        consul_server.put("app/flags", "CANARY")
        inbox = watching.watch(Key("app/flags"))
        eventually(lambda: inbox.got)
        reading = inbox.got[0][1]

        assert isinstance(reading, Reading)
        assert reading.at + BLOCKING_WAIT < reading.current_until < reading.at + 2 * BLOCKING_WAIT
        assert reading.detail.startswith("index ")
        assert "CANARY" not in repr(reading)


class TestPrefix:
    """The keys below a folder."""

    def test_it_is_a_flat_mapping_of_relative_paths(self, consul_server: Consul, watching: Watching) -> None:
        """Folder markers and neighbours with the same beginning are left out."""
        for key in ("routes/a", "routes/b/c", "routes/b/", "routes/", "routes-old/x", "other"):
            consul_server.put(key, f"value of {key}")
        consul_server.put("routes/raw", b"\xff")
        inbox = watching.watch(Prefix("routes/"))

        assert eventually(lambda: inbox.values)[0] == {"a": "value of routes/a", "b/c": "value of routes/b/c", "raw": b"\xff"}

    def test_an_empty_folder_is_an_empty_mapping_and_watched(self, consul_server: Consul, watching: Watching) -> None:
        """A key added or deleted is a change of the folder."""
        inbox = watching.watch(Prefix("routes/"))
        eventually(lambda: inbox.latest == {})
        eventually(watching.holds)
        consul_server.put("routes/a", "1")
        eventually(lambda: inbox.latest == {"a": "1"})
        eventually(watching.holds)
        consul_server.delete("routes/a")
        eventually(lambda: inbox.latest == {})

        assert not inbox.failures

    def test_all_keys_have_no_folder(self, consul_server: Consul, watching: Watching) -> None:
        """The empty prefix is everything."""
        consul_server.put("a/b", "1")
        consul_server.put("c", "2")
        inbox = watching.watch(Prefix(""))

        assert eventually(lambda: inbox.values)[0] == {"a/b": "1", "c": "2"}


class TestService:
    """The instances of a service."""

    def test_an_instance_has_all_its_parts(self, consul_server: Consul, watching: Watching) -> None:
        """Id, address, port, tags, meta and node."""
        consul_server.register("web", "web-1", port=8080, address="10.0.0.1", tags=("blue", "v1"), meta={"weight": "3"})
        inbox = watching.watch(Service("web"))

        (instance,) = eventually(lambda: inbox.latest)
        assert instance == {
            "id": "web-1",
            "address": "10.0.0.1",
            "port": 8080,
            "tags": ["blue", "v1"],
            "meta": {"weight": "3"},
            "node": "tests",
        }

    def test_an_address_that_is_left_out_is_the_nodes(self, consul_server: Consul, watching: Watching) -> None:
        """A service without an address of its own is where its agent is."""
        consul_server.register("web", port=8080, address="")
        inbox = watching.watch(Service("web"))

        assert eventually(lambda: inbox.latest)[0]["address"] == "127.0.0.1"

    def test_instances_come_and_go_in_a_stable_order(self, consul_server: Consul, watching: Watching) -> None:
        """Sorted by id, whatever order the server has them in."""
        inbox = watching.watch(Service("web"))
        eventually(lambda: inbox.values == [[]])
        for port in (8003, 8001, 8002):
            consul_server.register("web", port=port)
        eventually(lambda: [each["port"] for each in inbox.latest] == [8001, 8002, 8003])
        consul_server.deregister("web-8002")
        eventually(lambda: [each["port"] for each in inbox.latest] == [8001, 8003])

        assert all(list_ == sorted(list_, key=lambda each: each["id"]) for list_ in inbox.values)

    def test_an_instance_that_goes_critical_leaves(self, consul_server: Consul, watching: Watching) -> None:
        """Only passing ones count, and a recovered one is back."""
        for port in (8001, 8002):
            consul_server.register("web", port=port)
        inbox = watching.watch(Service("web"))
        eventually(lambda: len(inbox.latest) == 2)
        eventually(watching.holds)
        consul_server.fail("web-8001")
        eventually(lambda: [each["port"] for each in inbox.latest] == [8002])
        eventually(watching.holds)
        consul_server.recover("web-8001")

        eventually(lambda: len(inbox.latest) == 2)

    def test_all_instances_count_when_told_so(self, consul_server: Consul, watching: Watching) -> None:
        """Without passing, critical ones are in the list too."""
        consul_server.register("web", port=8001, passing=False)
        everyone, passing = watching.watch(Service("web", passing=False)), watching.watch(Service("web"))
        eventually(lambda: everyone.got and passing.got)

        assert [each["port"] for each in everyone.latest] == [8001]
        assert passing.latest == []

    def test_a_tag_narrows_the_list(self, consul_server: Consul, watching: Watching) -> None:
        """Only instances with that tag are in it."""
        consul_server.register("web", port=8001, tags=("blue",))
        consul_server.register("web", port=8002, tags=("green",))
        inbox = watching.watch(Service("web", tag="green"))

        assert [each["port"] for each in eventually(lambda: inbox.latest)] == [8002]


class TestNames:
    """The names of all services, and of all nodes."""

    def test_services_come_and_go(self, consul_server: Consul, watching: Watching) -> None:
        """Each once, sorted, however many instances it has."""
        consul_server.register("web", port=8001)
        inbox = watching.watch(Services())
        eventually(lambda: inbox.latest == ["consul", "web"])
        eventually(watching.holds)
        consul_server.register("web", port=8002)
        consul_server.register("api", port=8003)
        eventually(lambda: inbox.latest == ["api", "consul", "web"])
        eventually(watching.holds)
        consul_server.deregister("api-8003")

        eventually(lambda: inbox.latest == ["consul", "web"])

    def test_nodes_are_listed(self, watching: Watching) -> None:
        """The only one there is."""
        inbox = watching.watch(Nodes())

        assert eventually(lambda: inbox.values) == [["tests"]]


class TestSharing:
    """Reads at one address share its connections."""

    def test_two_reads_on_one_connection_stay_current(self, consul_server: Consul) -> None:
        """They take turns; a change of either arrives within a turn of the other."""
        watching = Watching(consul_server.address, max_connections=1)
        consul_server.put("a", "1")
        consul_server.put("b", "1")
        first, second = watching.watch(Key("a")), watching.watch(Key("b"))
        eventually(lambda: first.values and second.values, what="both read")
        consul_server.put("a", "2")
        consul_server.put("b", "2")
        eventually(lambda: first.latest == second.latest == "2", within=15, what="both changes")
        assert len(threads_of(consul_server.address)) == 1
        assert len(watching.backend._used) + len(watching.backend._idle) <= 1

        watching.close()
        assert not first.failures + second.failures

    def test_a_read_that_comes_late_is_answered_at_once(self, consul_server: Consul) -> None:
        """It does not wait until a blocking query of another ends by itself."""
        watching = Watching(consul_server.address, max_connections=1)
        consul_server.put("b", "1")
        first = watching.watch(Key("a"))
        eventually(watching.holds)
        second = watching.watch(Key("b"))
        eventually(lambda: second.latest == "1", within=5)
        watching.close()

        assert not first.failures

    def test_equal_reads_of_two_inboxes_run_once(self) -> None:
        """Whoever comes second gets the latest, and both share the open query."""
        with misbehaving(_consul_that_blocks()) as server:
            watching = Watching(server.address)
            first = watching.watch(Key("a"))
            eventually(lambda: len(server.exchanges) == 2, what="the open query")
            second = watching.watch(Key("a"))
            watching.close()

            assert first.values == second.values == ["text"]
            assert len(server.exchanges) == 2


class TestOutages:
    """A server that goes away and comes back."""

    def test_a_killed_server_is_a_failure_and_its_return_a_reading(self, own_consul: Consul) -> None:
        """An open query ends with the server; its changes are there once it is back, long before a blocking query would end."""
        watching = Watching(own_consul.address)
        own_consul.put("a", "before")
        inbox, missing = watching.watch(Key("a")), watching.watch(Key("missing"))
        eventually(lambda: watching.holds(2))
        own_consul.stop(kill=True)
        eventually(lambda: inbox.failures and missing.failures)
        assert {failure.kind for failure in inbox.failures} == {FailureKind.UNREACHABLE}
        assert own_consul.address in inbox.latest.reason

        own_consul.start()
        eventually(lambda: inbox.latest == "before" and missing.latest is None, within=BLOCKING_WAIT / 2, what="the recovery")
        eventually(lambda: watching.holds(2))
        own_consul.put("a", "after")
        eventually(lambda: inbox.latest == "after")
        watching.close()

        assert set(inbox.values) == {"before", "after"}
        assert set(missing.values) == {None}

    def test_a_server_restored_to_an_older_index_is_read_anew(self) -> None:
        """Waiting for an index that is far away would miss every change until then."""
        index = [100]

        def consul(exchange: Exchange) -> None:
            asked = int(exchange.query.get("index", 0))
            if asked == index[0]:
                exchange.stopping.wait(0.5)
                index[0] = 5  # restored while the query was open
            exchange.answer([{"Key": "a", "Value": "MQ=="}], X_Consul_Index=str(index[0]))

        with misbehaving(consul) as server:
            watching = Watching(server.address)
            watching.watch(Key("a"))
            eventually(lambda: len(server.exchanges) >= 4)
            watching.close()

            assert [exchange.query.get("index") for exchange in server.exchanges[:4]] == [None, "100", None, "5"]


class TestEnding:
    """Nothing is left of a read that nobody waits for."""

    def test_a_read_that_is_left_frees_its_connection(self) -> None:
        """The blocking query does not go on for a minute."""
        with misbehaving(_consul_that_blocks()) as server:
            watching = Watching(server.address)
            watching.watch(Key("a"))
            eventually(watching.holds)
            watching.cancels[0]()

            eventually(lambda: not threads_of(server.address), what="the thread's end")
            assert not watching.backend._used
            watching.close()

    @pytest.mark.parametrize("behave", [hang, None], ids=["at the first read", "in a blocking query"])
    def test_close_leaves_no_thread(self, behave: Callable[[Exchange], None] | None) -> None:
        """A read under way is cut, and nobody is told."""
        with misbehaving(behave or _consul_that_blocks()) as server:
            watching = Watching(server.address)
            inbox = watching.watch(Key("a"))
            eventually(lambda: len(server.exchanges) == (1 if behave else 2))
            watching.close()

            eventually(lambda: not threads_of(server.address), what="the thread's end")
            assert not inbox.failures

    def test_a_read_that_comes_back_is_read_anew(self, consul_server: Consul, watching: Watching) -> None:
        """Leaving and watching again in a row misses nothing."""
        consul_server.put("a", "1")
        for _ in range(20):
            inbox = watching.watch(Key("a"))
            watching.cancels.pop()()
        inbox = watching.watch(Key("a"))
        eventually(lambda: inbox.latest == "1")
        eventually(watching.holds)
        consul_server.put("a", "2")

        eventually(lambda: inbox.latest == "2")


def _consul_that_blocks() -> Callable[[Exchange], None]:
    def consul(exchange: Exchange) -> None:
        if "index" in exchange.query:
            hang(exchange)
        exchange.answer([{"Key": "a", "Value": "dGV4dA=="}], X_Consul_Index="7")

    return consul
