"""A Consul with ACLs: denied is told from missing where the server tells it, and no fold loses a key that a single read returned."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reloader.backends.consul.reads import Fold, Key, Nodes, Prefix, Service, Services
from reloader.snapshot import FailureKind
from tests.recorder import Recorder
from tests.servers import running
from tests.servers.consul import AclConsul
from tests.unit.watching import Watching, watching
from tests.waiting import eventually

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def acl_consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AclConsul]:
    with running(lambda: AclConsul(tmp_path_factory.mktemp("consul"))) as server:
        yield server


@pytest.fixture
def consul(acl_consul: AclConsul) -> Iterator[AclConsul]:
    """A Consul that denies by default; not to be stopped."""
    yield acl_consul
    acl_consul.clean()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return tmp_path / "token"


def watching_as(consul: AclConsul, token_file: Path, rules: str, **plan: int) -> tuple[str, Watching]:
    token = consul.token(rules)
    token_file.write_text(token)
    return token, Watching(consul.address, token_file=str(token_file), **plan)


def denied(inbox: Recorder) -> bool:
    return bool(inbox.got) and getattr(inbox.latest, "kind", None) is FailureKind.REFUSED


def served(watching: Watching) -> set[str]:
    """Return the keys that a fold serves."""
    return {read.key for read, watched in tuple(watching.backend._watched.items()) if isinstance(read, Key) and watched.served}


def fold_there(watching: Watching) -> bool:
    return any(isinstance(read, Fold) for read in tuple(watching.backend._watched))


class TestSingleReads:
    """What the server says of one key, and what it keeps to itself."""

    def test_a_denied_key_is_refused_and_a_missing_one_is_missing(self, consul: AclConsul, token_file: Path) -> None:
        """403 and 404; the refusal names the rule to grant."""
        consul.put("app/mine", "1")
        consul.put("app/theirs", "CANARY")
        _, watching = watching_as(consul, token_file, 'key_prefix "app/mine" { policy = "read" }')
        mine, missing, theirs = (watching.watch(Key(f"app/{name}")) for name in ("mine", "mine-not", "theirs"))
        eventually(lambda: mine.got and missing.got and theirs.got)
        watching.close()

        assert (mine.latest, missing.latest) == ("1", None)
        assert theirs.latest.kind is FailureKind.REFUSED
        assert 'key "app/theirs" { policy = "read" }' in theirs.latest.reason

    def test_of_others_the_server_says_nothing(self, consul: AclConsul, token_file: Path) -> None:
        """What may not be read looks like what is not there; only a token that is none is refused."""
        consul.put("app/a", "1")
        consul.put("app/b", "2")
        consul.register("web", port=8001)
        token, watching = watching_as(consul, token_file, 'key "app/a" { policy = "read" }', max_connections=8)
        reads = (Prefix("app/"), Prefix("other/"), Service("web"), Services(), Nodes())
        inboxes = [watching.watch(read) for read in reads]
        eventually(lambda: all(inbox.got for inbox in inboxes))
        assert [inbox.latest for inbox in inboxes] == [{"a": "1"}, {}, [], [], []]
        watching.close()

        consul.revoke(token)
        with_none = Watching(consul.address, token_file=str(token_file), max_connections=8)
        inboxes = [with_none.watch(read) for read in reads]
        eventually(lambda: all(denied(inbox) for inbox in inboxes))
        with_none.close()

    def test_a_rotated_token_is_taken(self, consul: AclConsul, token_file: Path) -> None:
        """The old one was revoked before the new one was in the file; what was read stays the last that was known."""
        rules = 'key "app/a" { policy = "read" }'
        consul.put("app/a", "1")
        old, watching = watching_as(consul, token_file, rules)
        inbox = watching.watch(Key("app/a"))
        eventually(lambda: inbox.latest == "1")
        eventually(watching.holds)
        consul.revoke(old)
        consul.put("app/a", "2")  # ends the open query, of which the server knows no more who asked
        eventually(lambda: denied(inbox))
        token_file.write_text(consul.token(rules))
        eventually(lambda: inbox.latest == "2", within=30)
        watching.close()

        assert set(inbox.values) <= {"1", "2"}

    def test_a_key_that_is_denied_later_is_refused_and_not_missing(self, consul: AclConsul, token_file: Path) -> None:
        """No default may take its place then."""
        consul.put("app/a", "1")
        token, watching = watching_as(consul, token_file, 'key "app/a" { policy = "read" }')
        inbox = watching.watch(Key("app/a"))
        eventually(lambda: inbox.latest == "1")
        consul.change_rules(token, 'key "app/b" { policy = "read" }')
        consul.put("app/a", "2")
        eventually(lambda: denied(inbox), within=60)
        watching.close()

        assert None not in inbox.values


class TestFolds:
    """Keys that share a folder, more of them than connections."""

    KEYS = tuple(f"app/key-{number}" for number in range(8))

    def test_they_are_served_by_one_query(self, consul: AclConsul, token_file: Path) -> None:
        """A change of each of them arrives through it, and single reads rest."""
        consul.put_all(dict.fromkeys(self.KEYS, "1"))
        _, watching = watching_as(consul, token_file, 'key_prefix "app/" { policy = "read" }', max_connections=2)
        inboxes = {key: watching.watch(Key(key)) for key in self.KEYS}
        eventually(lambda: served(watching) == set(self.KEYS), what="all served")
        eventually(watching.holds, what="one open query")
        for key in self.KEYS:
            consul.put(key, "2")
        eventually(lambda: all(inbox.latest == "2" for inbox in inboxes.values()))
        watching.close()

        assert not any(inbox.failures for inbox in inboxes.values())
        assert all(set(inbox.values) == {"1", "2"} for inbox in inboxes.values())

    def test_a_denied_key_stays_refused_beside_those_that_are_served(self, consul: AclConsul, token_file: Path) -> None:
        """The folder's answer leaves it out without a word, and a right that is given is seen."""
        first, *others = self.KEYS
        consul.put_all(dict.fromkeys(self.KEYS, "1"))
        allowed = " ".join(f'key "{key}" {{ policy = "read" }}' for key in others)
        token, watching = watching_as(consul, token_file, allowed, max_connections=2)
        inboxes = {key: watching.watch(Key(key)) for key in self.KEYS}
        eventually(lambda: served(watching) == set(others))
        assert denied(inboxes[first])
        consul.change_rules(token, 'key_prefix "app/" { policy = "read" }')
        consul.put(first, "2")
        eventually(lambda: inboxes[first].latest == "2", within=60)
        watching.close()

        assert None not in inboxes[first].values

    def test_a_key_that_vanishes_is_confirmed_by_itself(self, consul: AclConsul, token_file: Path) -> None:
        """Deleted, it is missing; denied, it is refused; and neither is lost when it comes back."""
        deleted, denied_later, *others = self.KEYS
        consul.put_all(dict.fromkeys(self.KEYS, "1"))
        token, watching = watching_as(consul, token_file, 'key_prefix "app/" { policy = "read" }', max_connections=2)
        inboxes = {key: watching.watch(Key(key)) for key in self.KEYS}
        eventually(lambda: served(watching) == set(self.KEYS))
        consul.change_rules(token, f'key_prefix "app/" {{ policy = "read" }} key "{denied_later}" {{ policy = "deny" }}')
        consul.delete(deleted)
        eventually(lambda: inboxes[deleted].latest is None and denied(inboxes[denied_later]), within=60)
        assert None not in inboxes[denied_later].values
        eventually(lambda: served(watching) == set(others))
        consul.put(deleted, "2")
        eventually(lambda: inboxes[deleted].latest == "2")
        watching.close()

        assert not any(inboxes[key].failures for key in (deleted, *others))
        assert all(set(inboxes[key].values) == {"1"} for key in others)

    def test_where_folders_may_not_be_listed_keys_take_turns(
        self, tmp_path: Path, token_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With acl.enable_key_list_policy, reading single keys is all that some tokens may; nothing is lost, and a change is seen."""
        monkeypatch.setattr("reloader.schedule.TURN_CYCLE", 1.0)
        with running(lambda: AclConsul(tmp_path / "consul", enable_key_list_policy=True)) as consul:
            consul.put_all(dict.fromkeys(self.KEYS, "1"))
            rules = 'key_prefix "app/" { policy = "read" }'
            _, watching = watching_as(consul, token_file, rules, max_connections=2)
            inboxes = {key: watching.watch(Key(key)) for key in self.KEYS}
            eventually(lambda: "app/" in watching.backend._folding._left_alone, what="the folder to be refused")
            assert not fold_there(watching)
            consul.put(self.KEYS[3], "2")
            eventually(lambda: inboxes[self.KEYS[3]].latest == "2", within=30)
            assert not served(watching)
            assert not any(inbox.failures for inbox in inboxes.values())

            token_file.write_text(consul.token('key_prefix "app/" { policy = "list" }'))
            eventually(lambda: served(watching) == set(self.KEYS), within=30, what="all served with the new token")
            watching.close()

    def test_keys_that_are_created_later_arrive_through_the_fold(self, consul: AclConsul, token_file: Path) -> None:
        """A missing key is not read all the time: the folder's query shows it."""
        there, *missing = self.KEYS
        consul.put(there, "1")
        _, watching = watching_as(consul, token_file, 'key_prefix "app/" { policy = "read" }', max_connections=2)
        inboxes = {key: watching.watch(Key(key)) for key in self.KEYS}
        eventually(lambda: served(watching) == {there})
        fold = eventually(lambda: watching.backend._folding._in_use.get("app/"))
        eventually(lambda: fold.missing == set(missing), within=30, what="all of them to rest")
        consul.put(missing[2], "2")
        eventually(lambda: inboxes[missing[2]].latest == "2")
        watching.close()

        assert all(set(inboxes[key].values) == {None} for key in missing if key != missing[2])

    def test_an_anonymous_client_is_refused_what_it_may_not_read(self, consul: AclConsul) -> None:
        """Without a token the default policy holds."""
        consul.put("app/a", "1")
        with watching(consul.address) as anonymous:
            inbox = anonymous.watch(Key("app/a"))
            eventually(lambda: denied(inbox))
