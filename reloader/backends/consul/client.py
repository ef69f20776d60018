"""One question to Consul and its answer, through py-consul on a session of ours: what is an answer, what is none, and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import quote

from requests import RequestException, Response, Timeout, codes

from reloader import plan as plans
from reloader.backends.consul.reads import Read
from reloader.backends.reads import ReadFailed
from reloader.backends.transport import concerns_all, explain, fits_header, retry_after
from reloader.snapshot import FailureKind, Value
from reloader.world import World
from reloader.world.connections import Connections


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
LONGEST_LAG = 2.0
"""How many seconds a server may have been without its leader for its answer to count; the leader is asked then."""

# The first index that makes a query block; a server that says 0 would make it a busy loop.
_LEAST_INDEX = 1
_NO_LEADER = b"leader"
_NO_PATH = b"No path to datacenter"


@dataclass(frozen=True)
class Answer:
    """What Consul said."""

    index: int
    """What the next query waits on."""
    value: Value
    took: int = 1
    """How many answers it took to have this one."""


class Connection:
    """One connection and the client on it, for one thread at a time: neither is safe for more."""

    def __init__(self, plan: plans.Consul, among: Connections, world: World) -> None:
        self.closed = False
        self._plan = plan
        self._clock = world.clock
        self._session = world.session(plan.tls, timeout=DEADLINE, among=among)
        self._client = consul.Consul(host="", port=0, scheme="http", verify=True, dc=plan.datacenter)
        self._client.token = None  # it took CONSUL_HTTP_TOKEN, which is the settings' affair

    def ask(self, read: Read, token: str | None, seen: int | None, hold: float) -> Answer:
        """Return what there is; where there was an answer with the index `seen`, the server may wait `hold` seconds for another one.

        The first answer is the leader's: a server that follows may not have what was written a moment ago. Later ones may be any server's.

        Raises:
            ReadFailed: there is no answer.

        """
        sent = self._clock.now()
        answer, lag = self._ask(read, token, seen if hold else None, hold, stale=seen is not None)
        # Before the wait is over, a server answers with the same index only when it was restored (its blockingQuery, "bail out").
        cut_short = bool(hold) and answer.index == seen and self._clock.now() - sent < hold
        if cut_short or lag > LONGEST_LAG or answer.index < (seen or 0):
            # Restored, or behind: the leader knows.
            leaders, _ = self._ask(read, token, None, 0.0, stale=False)
            answer = replace(leaders, took=2)
        return replace(answer, index=max(_LEAST_INDEX, answer.index))

    def close(self) -> None:
        """End a request under way, and free the connection."""
        self.closed = True
        self._session.close()

    def _ask(self, read: Read, token: str | None, index: int | None, hold: float, *, stale: bool) -> tuple[Answer, float]:
        """Return the answer, and for how many seconds whoever gave it was without its leader."""
        sent = self._clock.now()
        deadline = DEADLINE + (hold * 17 / 16 if index else 0.0)
        transport = _Transport(self._plan, self._session, read, deadline, stale=stale)
        self._client.http = transport
        try:
            wait = f"{max(1, round(hold * 1000))}ms"
            answered, answer = read.ask(self._client, index=index, wait=wait, token=token)
            return Answer(int(answered), read.value(answer)), transport.lag
        except _NoLeader as lost:
            raise ReadFailed(FailureKind.UNREACHABLE, str(lost), current_until=self._clock.now() - lost.since, everywhere=True) from None
        except RequestException as error:
            kind, reason = explain(error, "consul")
            known = sent if isinstance(error, Timeout) else None
            raise ReadFailed(kind, transport.where(reason), current_until=known, everywhere=concerns_all(error)) from None
        except (consul.ConsulException, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            # Not from it, and without its text: py-consul puts the whole body there.
            raise transport.stranger("something that Consul does not say") from None


class _NoLeader(Exception):
    """Who answered knows no leader, so the answer may be older than anybody can say."""

    def __init__(self, reason: str, since: float) -> None:
        super().__init__(reason)
        self.since = since
        """How many seconds ago it last heard of one."""


class _Transport:
    """One request of the Consul client, under the names that it expects; answers that are none do not get through."""

    def __init__(self, plan: plans.Consul, session: Any, read: Read, deadline: float, *, stale: bool) -> None:
        self.lag = 0.0
        """For how many seconds whoever answered was without its leader."""
        self._address = plan.address.rstrip("/")
        self._datacenter = plan.datacenter
        self._headers = {"X-Consul-Namespace": plan.namespace, "X-Consul-Partition": plan.partition}
        self._session = session
        self._read = read
        self._deadline = deadline
        self._consistency = [("stale", "1")] if stale else []  # py-consul cannot ask for it of every endpoint

    def get(self, callback: Callable[[Any], Any], path: str, params: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Return what `callback` makes of the answer.

        Raises:
            ReadFailed: the server said no, or is not a Consul that can say yes.

        """
        url = self._address + quote(path, safe="/")
        sent = {name: value for name, value in {**self._headers, **(headers or {})}.items() if value is not None}
        response = self._session.get(url, params=[*(params or ()), *self._consistency], headers=sent, timeout=self._deadline)
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
        self.lag = float(response.headers.get("X-Consul-LastContact", "0")) / 1000
        if response.headers.get("X-Consul-KnownLeader") == "false":
            raise _NoLeader(self.where("the cluster has no leader, so this answer may be old; wait for its election"), self.lag)

    def _busy(self, response: Response) -> ReadFailed:
        status = response.status_code
        what = "cannot answer, or has no leader; see its log"
        if status == codes.too_many_requests:
            what = "asked for fewer requests; raise its limits"
        elif _NO_PATH in response.content:
            what = f"knows no way to the datacenter {self._datacenter}; check consul.datacenter, and that its servers reach that one"
        after = retry_after(response.headers)
        all_alike = after is not None or status == codes.service_unavailable or _NO_LEADER in response.content
        return ReadFailed(FailureKind.UNREACHABLE, self.where(f"status {status}: {what}"), retry_after=after, everywhere=all_alike)


_REFUSALS: Mapping[int, str] = {
    codes.bad_request: "refused as a bad request; check consul.datacenter, consul.namespace, consul.partition and what the source asks for",
    codes.unauthorized: "does not know the token (ACLs are disabled there); remove consul.token",
    codes.forbidden: "permission denied; the token must be valid (consul.token_file), and its policy must hold: {rule}",
}


def token_of(plan: plans.Consul) -> str | None:
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
        raise ReadFailed(FailureKind.MISCONFIGURED, f"{plan.address}: {what}", everywhere=True) from None
    return _checked(plan, text, f"consul.token_file {plan.token_file}")


def _checked(plan: plans.Consul, token: str, where: str) -> str:
    if not fits_header(token):
        what = f"{where} holds no token: one line of printable characters was expected"
        raise ReadFailed(FailureKind.MISCONFIGURED, f"{plan.address}: {what}", everywhere=True)
    return token
