"""Consul: keys, folders of keys and services by blocking queries, which the server answers when something changed, or after a while.

https://developer.hashicorp.com/consul/api-docs/features/blocking says what a client has to do; it is done here.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from requests import RequestException, Response, Timeout, codes

from reloader import plan as plans
from reloader.backends.reads import Fetched, LetGo, ReadFailed, ReadingBackend
from reloader.backends.transport import explain
from reloader.backends.turns import Turns
from reloader.schedule import ANSWER_INTERVAL
from reloader.snapshot import FailureKind, Reading, Value
from reloader.world import World


def _refuse_other_clients() -> None:
    """Make sure that `consul` is py-consul's: its predecessors have the same folder, put the token into the URL and never time out."""
    for name in ("python-consul", "python-consul2"):
        try:
            distribution(name)
        except PackageNotFoundError:
            continue
        raise ImportError(f"{name} took the place of py-consul: pip uninstall {name}, then pip install --force-reinstall py-consul")


_refuse_other_clients()

import consul  # noqa: E402 - only once it is known to be the right one

DEADLINE = 10.0
"""How many seconds an answer may take, beside the time that the server was told to hold it."""
LONGEST_LOOKUP = 60.0
"""How many seconds the resolver may take for the address before the read counts as stuck; no deadline ends that."""
LONGEST_RETRY_AFTER = 300.0
"""How many seconds the server may ask us to wait: a slip of a proxy must not silence a source for a day."""

# The first index that makes a query block; a server that says 0 would make it a busy loop.
_LEAST_INDEX = 1


@dataclass(frozen=True)
class Key:
    """The text of one key; the value of its reading is None while there is no such key."""

    key: str

    def __str__(self) -> str:
        return f"key {self.key}"

    @property
    def rule(self) -> str:
        """Return the ACL rule that lets a token read it."""
        return f'key "{self.key}" {{ policy = "read" }}'

    def ask(self, client: consul.Consul, **query: Any) -> tuple[str, Any]:
        """Ask for it; the index and the answer."""
        return cast("tuple[str, Any]", client.kv.get(self.key, **query))

    def value(self, answer: Any) -> Value:
        """Return what the answer means."""
        return None if answer is None else _text(answer["Value"])


@dataclass(frozen=True)
class Prefix:
    """The keys below a folder: a mapping of the rest of their path to their text."""

    folder: str
    """Ends in `/`; empty for all there are."""

    def __str__(self) -> str:
        return f"prefix {self.folder}"

    @property
    def rule(self) -> str:
        """Return the ACL rule that lets a token read them."""
        return f'key_prefix "{self.folder}" {{ policy = "read" }}'

    def ask(self, client: consul.Consul, **query: Any) -> tuple[str, Any]:
        """Ask for them; the index and the answer."""
        return cast("tuple[str, Any]", client.kv.get(self.folder, recurse=True, **query))

    def value(self, answer: Any) -> Value:
        """Return what the answer means; keys that end in `/` are what Consul's UI makes to show a folder."""
        found = ((item["Key"].removeprefix(self.folder), item["Value"]) for item in answer or ())
        return {key: _text(value) for key, value in found if key and not key.endswith("/")}


@dataclass(frozen=True)
class Service:
    """The instances of a service, as `{id, address, port, tags, meta, node}` each."""

    name: str
    passing: bool = True
    tag: str | None = None
    near: str | None = None
    """Sort by the distance to this node instead of by id."""

    def __str__(self) -> str:
        return f"service {self.name}"

    @property
    def rule(self) -> str:
        """Return the ACL rules that let a token read them."""
        return f'service "{self.name}" {{ policy = "read" }} and node_prefix "" {{ policy = "read" }}'

    def ask(self, client: consul.Consul, **query: Any) -> tuple[str, Any]:
        """Ask for them; the index and the answer."""
        return cast("tuple[str, Any]", client.health.service(self.name, passing=self.passing, tag=self.tag, near=self.near, **query))

    def value(self, answer: Any) -> Value:
        """Return what the answer means."""
        instances = [_instance(entry["Node"], entry["Service"]) for entry in answer]
        return instances if self.near else sorted(instances, key=lambda instance: (instance["id"], instance["node"]))


Read = Key | Prefix | Service


class Backend(ReadingBackend):
    """One server and identity; each thread that reads has a connection of its own."""

    def __init__(self, plan: plans.Consul, turns: Turns, world: World) -> None:
        super().__init__(turns, world, longest_read=DEADLINE + LONGEST_LOOKUP)
        self._plan = plan
        self._connections_lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._used: dict[_Connection, Read | None] = {}  # with the read that it waits for news of
        self._closed = False

    def fetch(self, read: Hashable, state: Any, hold: float) -> Fetched:
        """Ask for news since the index in `state`, and deliver what there is."""
        wanted = cast("Read", read)
        index = state if hold else None
        with self._connection(wanted, holding=bool(index)) as connection:
            answered, value = connection.ask(wanted, index, hold)
        now = self._world.clock.now()
        reading = Reading(value=value, at=now, detail=_detail(value, answered))
        return Fetched(reading=reading, due=now + ANSWER_INTERVAL, state=_next_index(state, answered))

    def let_go(self, read: Hashable) -> bool:
        """Cut the connection of a blocking query."""
        with self._connections_lock:
            held = [connection for connection, waiting in self._used.items() if waiting == read and not connection.closed]
            for connection in held:
                connection.close()
        return bool(held)

    def repeatable(self, read: Hashable) -> bool:  # noqa: ARG002 - holds for all
        """Return False: what is watched needs no look."""
        return False

    def free(self) -> None:
        """Close the connections, also under those who read."""
        with self._connections_lock:
            self._closed = True
            for connection in (*self._idle, *self._used):
                connection.close()
            self._idle.clear()

    @contextmanager
    def _connection(self, read: Read, *, holding: bool) -> Iterator["_Connection"]:
        connection = self._take(read, holding=holding)
        try:
            if not self.is_wanted(read):  # let_go came before there was a connection to cut
                raise LetGo
            yield connection
        except ReadFailed:
            if connection.closed:
                raise LetGo from None
            raise
        finally:
            self._give_back(connection)

    def _take(self, read: Read, *, holding: bool) -> "_Connection":
        with self._connections_lock:
            if self._closed:
                raise LetGo
            connection = self._idle.pop() if self._idle else _Connection(self._plan, self._world)
            self._used[connection] = read if holding else None
        return connection

    def _give_back(self, connection: "_Connection") -> None:
        with self._connections_lock:
            del self._used[connection]
            if not connection.closed:
                self._idle.append(connection)


class _Connection:
    """One connection and the client on it, for one thread at a time: neither is safe for more."""

    def __init__(self, plan: plans.Consul, world: World) -> None:
        self.closed = False
        self._plan = plan
        self._clock = world.clock
        self._session = world.session(plan.tls, timeout=DEADLINE)
        self._client = consul.Consul(host="", port=0, scheme="http", verify=True, dc=plan.datacenter)
        self._client.token = None  # it took CONSUL_HTTP_TOKEN, which is the settings' affair

    def ask(self, read: Read, index: int | None, hold: float) -> tuple[int, Value]:
        """Return the index of the answer and its value.

        Raises:
            ReadFailed: there is none.

        """
        sent = self._clock.now()
        transport = _Transport(self._plan.address, self._session, read, DEADLINE + (hold * 17 / 16 if index else 0.0))
        self._client.http = transport
        try:
            answered, answer = read.ask(self._client, index=index, wait=f"{max(1, round(hold * 1000))}ms", token=_token(self._plan))
            return int(answered), read.value(answer)
        except RequestException as error:
            kind, reason = explain(error, "consul")
            known = sent if isinstance(error, Timeout) else None
            raise ReadFailed(kind, transport.where(reason), current_until=known) from None
        except (consul.ConsulException, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # Not from it, and without its text: py-consul puts the whole body there.
            raise transport.stranger("something that Consul does not say") from None

    def close(self) -> None:
        """End a request under way, and free the connection."""
        self.closed = True
        self._session.close()


class _Transport:
    """One request of the Consul client, under the names that it expects; answers that are none do not get through."""

    def __init__(self, address: str, session: Any, read: Read, deadline: float) -> None:
        self._address = address.rstrip("/")
        self._session = session
        self._read = read
        self._deadline = deadline

    def get(self, callback: Callable[[Any], Any], path: str, params: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Return what `callback` makes of the answer.

        Raises:
            ReadFailed: the server said no, or is not a Consul that can say yes.

        """
        url = self._address + quote(path, safe="/")
        response = self._session.get(url, params=params, headers=headers, timeout=self._deadline)
        self._check(response)
        return callback(consul.base.Response(response.status_code, response.headers, response.content))

    def where(self, what: str) -> str:
        """Return a reason that says of whom what was asked."""
        return f"{self._address}: {self._read}: {what}"

    def stranger(self, what: str) -> ReadFailed:
        """Return the failure of an answer that came from something else."""
        reason = self.where(f"answered {what}; check that consul.address is a Consul, and what stands in between")
        return ReadFailed(FailureKind.MISCONFIGURED, reason)

    def _check(self, response: Response) -> None:
        status = response.status_code
        if status == codes.too_many_requests or status >= codes.internal_server_error:
            raise self._busy(response)
        if "html" in response.headers.get("Content-Type", ""):
            raise self.stranger(f"status {status} with a page for people")
        if status in _REFUSALS:
            raise ReadFailed(FailureKind.REFUSED, self.where(_REFUSALS[status].format(rule=self._read.rule)))
        if status not in {codes.ok, codes.not_found} or "X-Consul-Index" not in response.headers:
            raise self.stranger(f"status {status} without an index")
        if response.headers.get("X-Consul-KnownLeader") == "false":
            raise ReadFailed(
                FailureKind.UNREACHABLE, self.where("the cluster has no leader, so this answer may be old; wait for its election")
            )

    def _busy(self, response: Response) -> ReadFailed:
        status = response.status_code
        what = "asked for fewer requests" if status == codes.too_many_requests else "cannot answer, or has no leader; see its log"
        return ReadFailed(FailureKind.UNREACHABLE, self.where(f"status {status}: {what}"), retry_after=_retry_after(response))


_REFUSALS: Mapping[int, str] = {
    codes.bad_request: "refused as a bad request; check consul.datacenter and what the source asks for",
    codes.unauthorized: "does not know the token (ACLs are disabled there); remove consul.token",
    codes.forbidden: "permission denied; the token must be valid (consul.token_file), and its policy must hold: {rule}",
}


def _token(plan: plans.Consul) -> str | None:
    """Return the token to use now; a token file is read each time, so that a rotated one is taken at once.

    Raises:
        ReadFailed: there should be one, and is none.

    """
    if plan.token is not None:
        return _checked(plan, plan.token.reveal(), "consul.token (or CONSUL_HTTP_TOKEN)")
    if plan.token_file is None:
        return None
    try:
        text = Path(plan.token_file).read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        what = f"consul.token_file {plan.token_file}: {error.strerror}; mount the file that holds the token"
        raise ReadFailed(FailureKind.MISCONFIGURED, f"{plan.address}: {what}") from None
    return _checked(plan, text, f"consul.token_file {plan.token_file}")


def _checked(plan: plans.Consul, token: str, where: str) -> str:
    # requests quotes a header that it cannot send in its error, so such a token must not get that far.
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        what = f"{where} holds no token: one line of printable characters was expected"
        raise ReadFailed(FailureKind.MISCONFIGURED, f"{plan.address}: {what}")
    return token


def _next_index(before: int | None, answered: int) -> int:
    """Return the index to wait on; 0, with which a query does not block, when it went backwards: the server was restored."""
    return 0 if answered < (before or 0) else max(_LEAST_INDEX, answered)


def _text(value: bytes | None) -> str | bytes:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        return value or b""


def _instance(node: Mapping[str, Any], service: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": service["ID"],
        "address": service["Address"] or node["Address"],
        "port": service["Port"],
        "tags": list(service["Tags"] or ()),
        "meta": dict(service["Meta"] or {}),
        "node": node["Node"],
    }


def _detail(value: Value, index: int) -> str:
    return f"index {index}, {len(value)} items" if isinstance(value, list | dict) else f"index {index}"


def _retry_after(response: Response) -> float | None:
    """Return the seconds of a Retry-After; its other form, a date, would need the server's clock."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdecimal() else None
