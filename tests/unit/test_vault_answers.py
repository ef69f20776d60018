"""What the Vault backend makes of answers that a healthy server does not give, from a server that plays them."""

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from reloader.backends.reads import Fetched, ReadFailed
from reloader.backends.transport import LONGEST_RETRY_AFTER
from reloader.backends.turns import Turns
from reloader.backends.vault import Backend, Secret, Write
from reloader.backends.vault.client import Client
from reloader.plan import Vault, VaultAuth
from reloader.snapshot import FailureKind, Mailbox
from reloader.world import World
from reloader.written import Secret as Hidden
from tests.servers.ports import free_port
from tests.waiting import eventually

REFUSED, UNREACHABLE, MISCONFIGURED = FailureKind.REFUSED, FailureKind.UNREACHABLE, FailureKind.MISCONFIGURED
TOKEN = "s.canary"
MOUNT = {"data": {"path": "secret/", "type": "kv", "options": {"version": "2"}}}
VERSION_3 = {"data": {"data": {"password": "x"}, "metadata": {"version": 3}}}

Answer = tuple[int, Mapping[str, str], bytes]
Play = Callable[[str], Answer]


def said(status: int, body: Any = None, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return status, {"Content-Length": str(len(content)), **{name.replace("_", "-"): text for name, text in headers.items()}}, content


def client_of(plan: Vault) -> Client:
    world = World()
    return Client(plan, Turns(plan.address, plan.max_connections, world), world)


class Stage:
    """A server on which each request is answered by `play`, and counted; it tells nothing of a token."""

    def __init__(self) -> None:
        self.told = said(403, {"errors": ["permission denied"]})
        self.play: Play = lambda _path: said(500)
        self.asked: Counter[str] = Counter()
        self.tokens: list[str | None] = []
        stage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                path = self.path.removeprefix("/v1/")
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                if path == "auth/token/lookup-self":
                    status, headers, content = stage.told
                else:
                    stage.asked[path] += 1
                    stage.tokens.append(self.headers["X-Vault-Token"])
                    status, headers, content = stage.play(path)
                self.send_response(status)
                for name, text in headers.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = int(headers["Content-Length"]) != len(content)

            do_GET = do_POST = answer  # noqa: N815 - what http.server looks for

            def log_message(self, *_args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def client(self) -> Client:
        return client_of(self.plan())

    def plan(self) -> Vault:
        return Vault(address=self.address, auth=VaultAuth(token=Hidden(TOKEN)))

    def backend(self) -> Backend:
        return Backend(self.plan(), Turns(self.address, 4, World()), World())


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


HTML = b"<html>Welcome</html>"
NO = {"errors": ["in the server's words"]}


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (said(400, NO), REFUSED, "(in the server's words)"),
        (said(401, NO), REFUSED, "check vault.auth"),
        (said(403, NO), REFUSED, 'path "secret/data/app" { capabilities = ["read"] }'),
        (said(404, {"errors": []}), REFUSED, "no such path"),
        (said(405, NO), MISCONFIGURED, "does not take a GET"),
        (said(412, NO), UNREACHABLE, "has not caught up"),
        (said(429, NO), UNREACHABLE, "asked for fewer requests"),
        (said(429, HTML), UNREACHABLE, "asked for fewer requests"),
        (said(472), UNREACHABLE, "disaster recovery"),
        (said(472, {"errors": []}), UNREACHABLE, "disaster recovery"),
        (said(473, {"errors": []}), UNREACHABLE, "performance standby"),
        (
            said(500, {"errors": ["1 error occurred:\n\t* boom\n\n"]}),
            UNREACHABLE,
            "status 500; see the server's log (1 error occurred: * boom)",
        ),
        (said(500, {"errors": "boom"}), UNREACHABLE, "status 500"),
        (said(501, NO), REFUSED, "is not initialised"),
        (said(502, HTML), UNREACHABLE, "status 502"),
        (said(503, {"errors": ["Vault is sealed"]}), REFUSED, "is sealed; unseal it"),
        (said(503, HTML), UNREACHABLE, "status 503"),
        (said(504, HTML), UNREACHABLE, "status 504"),
        (said(200, HTML), MISCONFIGURED, "answered 200 as no Vault does; check vault.address"),
        (said(200, []), MISCONFIGURED, "as no Vault does"),
        (said(200, {"leader": "10.0.0.1"}), MISCONFIGURED, "as no Vault does"),
        (said(201, {"data": {}}), MISCONFIGURED, "as no Vault does"),
        (said(403, HTML), MISCONFIGURED, "as no Vault does"),
        (said(404, HTML), MISCONFIGURED, "as no Vault does"),
        (said(204, b""), MISCONFIGURED, "answered with nothing"),
        (said(307, b"", Location="http://elsewhere.test:1/v1/x?canary"), MISCONFIGURED, "elsewhere.test:1"),
        ((200, {"Content-Length": "9000"}, b'{"data"'), UNREACHABLE, "the answer broke off"),
    ],
)
def test_each_answer_has_a_kind_and_names_address_path_and_mend(stage, answer, kind, text):
    stage.play = lambda _path: answer
    client = stage.client()
    with pytest.raises(ReadFailed) as caught:
        client.get("secret/data/app")
    assert caught.value.kind is kind
    assert str(caught.value).startswith(f"{stage.address}: secret/data/app: ")
    assert text in str(caught.value)
    assert "canary" not in str(caught.value)
    assert stage.tokens == [TOKEN]


@pytest.mark.parametrize(
    ("answer", "everywhere"),
    [
        (said(503, {"errors": ["Vault is sealed"]}), True),
        (said(501, NO), True),
        (said(472), True),
        (said(473), True),
        (said(502, HTML), True),
        (said(503, HTML), True),
        (said(429, NO, Retry_After="7"), True),
        (said(429, NO), False),
        (said(400, NO), False),
        (said(403, NO), False),
        (said(404, NO), False),
        (said(412, NO), False),
        (said(500, NO), False),
        (said(504, HTML), False),
        (said(200, HTML), False),
    ],
)
def test_what_concerns_the_whole_server_is_told_from_what_concerns_one_path(stage, answer, everywhere):
    stage.play = lambda _path: answer
    with pytest.raises(ReadFailed) as caught:
        stage.client().get("secret/data/app")
    assert caught.value.everywhere is everywhere


def test_a_denied_write_names_the_other_capability(stage):
    stage.play = lambda _path: said(403, NO)
    with pytest.raises(ReadFailed, match=re.escape('path "pki/issue/web" { capabilities = ["update"] }')):
        stage.client().post("pki/issue/web", {})


def test_a_refused_connection_says_so():
    address = f"http://127.0.0.1:{free_port()}"
    client = client_of(Vault(address=address, auth=VaultAuth(token=Hidden(TOKEN))))
    with pytest.raises(ReadFailed, match=f"{address}: [^ ]+: Connection refused; check that the server runs") as caught:
        client.get("secret/app")
    assert (caught.value.kind, caught.value.everywhere) == (UNREACHABLE, True)


def test_a_connection_that_is_closed_without_an_answer_says_so():
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=_hang_up, args=(server,), daemon=True).start()
        client = client_of(Vault(address=f"http://127.0.0.1:{server.getsockname()[1]}", auth=VaultAuth(token=Hidden(TOKEN))))
        with pytest.raises(ReadFailed, match=r"the connection was closed|Connection reset") as caught:
            client.get("secret/app")
    assert caught.value.kind is UNREACHABLE


def _hang_up(server: socket.socket) -> None:
    server.accept()[0].close()


def test_plain_http_where_tls_was_asked_for_is_a_mistake(stage):
    address = stage.address.replace("http", "https")
    client = client_of(Vault(address=address, auth=VaultAuth(token=Hidden(TOKEN))))
    with pytest.raises(ReadFailed, match=r"TLS failed: .*; check vault\.tls\.\* and vault\.address") as caught:
        client.get("secret/app")
    assert caught.value.kind is MISCONFIGURED


@pytest.mark.parametrize("address", ["vault:8200", "vault.test", "ftp://vault.test", "http://[::1"])
def test_an_address_that_is_no_url_is_a_mistake(address):
    client = client_of(Vault(address=address, auth=VaultAuth(token=Hidden(TOKEN))))
    with pytest.raises(ReadFailed, match=r"check that vault\.address is a http:// or https:// URL") as caught:
        client.get("secret/app")
    assert caught.value.kind is MISCONFIGURED


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7.0), ("86400", LONGEST_RETRY_AFTER), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)]
)
def test_the_wait_that_the_server_asks_for_is_kept_within_reason(stage, text, seconds):
    stage.play = lambda _path: said(429, {"errors": []}, Retry_After=text)
    with pytest.raises(ReadFailed) as caught:
        stage.client().get("secret/app")
    assert caught.value.retry_after == seconds


def test_a_failed_look_for_the_mount_is_no_assumption_about_it(stage):
    """consul-template takes any failure here for KV v1 and keeps to it, so that the secret is not found until it restarts."""
    answers = {
        "sys/internal/ui/mounts/secret/app": [said(500, NO), said(503, HTML), said(200, MOUNT)],
        "secret/data/app": [said(200, VERSION_3)],
    }
    stage.play = lambda path: answers[path].pop(0)
    backend = stage.backend()
    for _ in range(2):
        with pytest.raises(ReadFailed):
            backend.fetch(Secret("secret/app"), None, 0)
    assert backend.fetch(Secret("secret/app"), None, 0).reading.detail == "version 3"
    assert stage.asked["secret/app"] == 0


def test_the_mount_is_asked_for_once_however_many_secrets_are_read(stage):
    stage.play = lambda path: said(200, MOUNT if path.startswith("sys/") else VERSION_3)
    backend = stage.backend()
    for name in ("one", "two", "three"):
        backend.fetch(Secret(f"secret/{name}"), None, 0)
    assert sorted(stage.asked.values()) == [1, 1, 1, 1]


def test_a_mount_that_was_not_asked_for_is_not_believed(stage):
    stage.play = lambda _path: said(200, {"data": {"path": "other/", "type": "kv", "options": None}})
    with pytest.raises(ReadFailed, match="told another mount"):
        stage.backend().fetch(Secret("secret/app"), None, 0)


def test_a_leased_secret_is_not_read_again_before_its_time_whoever_asks(stage):
    mount = {"data": {"path": "database/", "type": "database", "options": None}}
    creds = {"lease_id": "database/creds/app/1", "lease_duration": 1000, "renewable": False, "data": {"username": "u1"}}
    stage.play = lambda path: said(200, mount if path.startswith("sys/") else creds)
    backend, read, now = stage.backend(), Secret("database/creds/app", poll=0.01), World().clock.now()
    first = backend.fetch(read, None, 0)
    again = backend.fetch(read, first.state, 0)
    assert again.reading == first.reading
    assert stage.asked["database/creds/app"] == 1
    assert 849 < first.due - now < 951
    assert first.reading.expires == pytest.approx(now + 1000, abs=1)
    assert first.reading.current_until == first.due


@pytest.mark.parametrize("as_text", [True, False])
def test_the_end_of_a_certificate_may_be_a_number_or_a_text(stage, as_text):
    end = int(time.time()) + 1000
    stage.play = lambda _path: said(200, {"lease_duration": 0, "data": {"expiration": str(end) if as_text else end}})
    fetched = issued(stage)
    now = World().clock.now()
    assert fetched.reading.expires == pytest.approx(now + 1000, abs=2)
    assert 840 < fetched.due - now < 952


def test_a_certificate_that_has_ended_already_is_a_failure_and_no_loop_of_issues(stage):
    stage.play = lambda _path: said(200, {"data": {"expiration": time.time() - 10}})
    with pytest.raises(ReadFailed, match="compare the clocks") as caught:
        issued(stage)
    assert caught.value.kind is MISCONFIGURED


def test_a_lifetime_below_a_second_is_no_loop_of_issues(stage):
    stage.play = lambda _path: said(200, {"data": {"expiration": time.time() + 0.2}})
    now = World().clock.now()
    assert issued(stage).due >= now + 1.0


def test_a_failed_issue_leaves_what_there_is_and_is_tried_again(stage):
    good = said(200, {"lease_id": "pki/1", "lease_duration": 1, "data": {"serial": "1"}})
    answers = [good, said(500, NO), said(500, NO)]
    stage.play = lambda _path: answers.pop(0) if answers else good
    mailbox, backend = Mailbox(["tls"]), stage.backend()
    backend.watch(Write("pki/issue/web", "{}"), mailbox, "tls")
    failed = eventually(lambda: (now := mailbox.take().standings["tls"]).failure and now)
    assert failed.reading.value == {"serial": "1"}
    eventually(lambda: stage.asked["pki/issue/web"] >= 4 and mailbox.take().standings["tls"].failure is None)
    backend.close()


def issued(stage: Stage) -> Fetched:
    return stage.backend().fetch(Write("pki/issue/web", '{"common_name": "web.test"}'), None, 0)


@pytest.mark.parametrize("answer", [{"data": None, "auth": {"client_token": "s.canary"}}, {"data": ["canary"]}])
def test_an_answer_without_fields_is_a_mistake(stage, answer):
    stage.play = lambda _path: said(200, answer)
    with pytest.raises(ReadFailed, match="the answer holds no fields") as caught:
        issued(stage)
    assert caught.value.kind is MISCONFIGURED


def test_a_refused_token_is_replaced_once_by_the_one_in_the_file_now(stage, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text("old")

    def play(_path: str) -> Answer:
        token_file.write_text("new")
        return said(200, VERSION_3) if stage.tokens[-1] == "new" else said(403, NO)

    stage.play = play
    client = client_of(Vault(address=stage.address, auth=VaultAuth(token_file=str(token_file))))
    assert client.get("secret/data/app").body == VERSION_3
    assert stage.tokens == ["old", "new"]


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"a b", "s.caf\u00e9".encode(), b"\xff\xfe", b"a\0b"])
def test_a_file_that_holds_no_token_is_named_and_not_quoted(tmp_path, content):
    token_file = tmp_path / "token"
    token_file.write_bytes(content)
    with pytest.raises(ReadFailed, match=f"token_file {token_file} (holds no token|is empty)") as caught:
        client_of(Vault(address="http://vault.test", auth=VaultAuth(token_file=str(token_file)))).identity.token()
    assert caught.value.kind is MISCONFIGURED
    assert "lines" not in str(caught.value)


def test_a_token_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ReadFailed, match=r"token_file .*/none: No such file or directory; mount the file") as caught:
        client_of(Vault(address="http://vault.test", auth=VaultAuth(token_file=str(tmp_path / "none")))).identity.token()
    assert caught.value.kind is MISCONFIGURED


class TestSight:
    """Whether the metadata of a secret may be read is asked for once, before they are."""

    @staticmethod
    def rights(*failing: Answer) -> Play:
        """Return how a good server plays, once the question for rights was answered with these."""
        left = list(failing)

        def play(path: str) -> Answer:
            if path == "sys/capabilities-self":
                return left.pop(0) if left else said(200, {"data": {"secret/metadata/app": ["read"]}})
            if path == "secret/metadata/app":
                return said(200, {"data": {"current_version": 3, "versions": {"3": {}}}})
            return said(200, MOUNT if "mounts" in path else VERSION_3)

        return play

    def test_a_server_that_fails_for_all_is_not_asked_for_the_secret_as_well(self, stage):
        backend, read = stage.backend(), Secret("secret/app")
        stage.play = self.rights(said(503, {"errors": ["Vault is sealed"]}))
        state = backend.fetch(read, None, 0.0).state
        with pytest.raises(ReadFailed, match="sealed"):
            backend.fetch(read, state, 0.0)
        backend.close()
        assert stage.asked["secret/data/app"] == 1

    def test_a_failure_is_not_taken_for_a_no(self, stage):
        """The secret is read instead, and the rights are asked for at the next poll again."""
        backend, read = stage.backend(), Secret("secret/app")
        stage.play = self.rights(said(500, NO))
        state = backend.fetch(read, None, 0.0).state
        backend.fetch(read, backend.fetch(read, state, 0.0).state, 0.0)
        backend.close()
        assert (stage.asked["secret/data/app"], stage.asked["secret/metadata/app"]) == (2, 1)
