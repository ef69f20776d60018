"""Vault and OpenBao: what is read and issued there, and when it is due again.

Reading costs nothing and is polled. What a read or a write mints (a certificate, a leased credential) is minted again only when its
lifetime nears its end, whoever asks for a look.
"""

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, cast

from requests import codes

from reloader.backends.reads import Fetched, ReadFailed, ReadingBackend
from reloader.backends.turns import Turns
from reloader.backends.vault_client import DEADLINE, Answered, Client
from reloader.plan import Vault
from reloader.schedule import next_poll, reissue
from reloader.snapshot import FailureKind, Reading
from reloader.world import World

LEAST_INTERVAL = 1.0
"""The least seconds between two issues of the same, however short its lifetime: certificates end on whole seconds."""

_REQUESTS_OF_A_READ = 4
"""The mount and the secret, each again with another token."""
_UNSEEN = (
    "permission denied; nothing is mounted there, or the token is not valid, or its policy lacks "
    'path "{versioned}" {{ capabilities = ["read"] }} (KV v2) or path "{path}" {{ capabilities = ["read"] }} (any other engine)'
)


@dataclass(frozen=True)
class Secret:
    """The fields of a secret at `path`, written as for the command line; `poll` in seconds does not hold for what has a lease."""

    path: str
    version: int | None = None
    """A version of a KV v2 secret, the latest unless given."""
    poll: float = 30.0


@dataclass(frozen=True)
class Write:
    """What `path` issues for some parameters."""

    path: str
    parameters: str = field(repr=False)
    """A JSON object, as `parameters_of` writes it."""
    poll: float | None = None
    """Seconds between two writes of what has neither lease nor end; once per run without."""


def parameters_of(parameters: Mapping[str, str | int | bool]) -> str:
    """Return parameters in a form that is equal for equal ones only: in Python, a tuple with 1 equals one with True."""
    return json.dumps(dict(parameters), sort_keys=True)


@dataclass(frozen=True)
class Mount:
    """Where an engine is mounted; mounts never nest, so a path has one ("path is already in use")."""

    path: str
    version: int
    """2 for KV v2, else 1."""

    def api_path(self, path: str) -> str:
        """Return the path of the API: KV v2 has `data/` after the mount, whether it was written or not."""
        inner = path.removeprefix(self.path)
        return path if self.version == 1 or inner.startswith("data/") else f"{self.path}data/{inner}"


class Backend(ReadingBackend):
    """One server and identity."""

    def __init__(self, plan: Vault, turns: Turns, world: World) -> None:
        super().__init__(turns, world, longest_read=_REQUESTS_OF_A_READ * DEADLINE)
        self._client = Client(plan, turns, world)
        self._mounts: dict[str, Mount] = {}

    def fetch(self, read: Hashable, state: Any, hold: float) -> Fetched:  # noqa: ARG002 - Vault holds no request
        """Read or issue; what was issued and is not due stays as it is."""
        began = self._world.clock.now()
        if isinstance(state, Fetched) and began < state.due:
            return replace(state, state=state)
        try:
            return self._issue(read, began) if isinstance(read, Write) else self._read(cast("Secret", read), began)
        except ReadFailed as failed:
            # The last reading was current until this read was due, however long it took to fail.
            failed.current_until = began
            raise

    def repeatable(self, read: Hashable) -> bool:
        """Return whether it only reads."""
        return isinstance(read, Secret)

    def free(self) -> None:
        """Close the connections; the token was not ours to revoke."""
        self._client.close()

    def _read(self, read: Secret, began: float) -> Fetched:
        mount = self._mount(read.path)
        try:
            if mount.version > 1:
                return self._read_versioned(read, mount.api_path(read.path))
            return self._read_plain(read, mount, began)
        except Answered as failed:
            if failed.status in {codes.forbidden, codes.not_found}:  # also what a mount says that was remade with another version
                self._mounts.pop(mount.path, None)
            raise

    def _read_versioned(self, read: Secret, path: str) -> Fetched:
        try:
            answer = self._client.get(path, {"version": read.version} if read.version else None).body
        except Answered as failed:
            raise self._gone(path, failed) or failed from None
        data = self._data(path, answer)
        return self._polled(read, self._data(path, data), f"version {_inner(data, 'metadata').get('version')}")

    def _gone(self, path: str, failed: Answered) -> ReadFailed | None:
        """Return what to say of a version that was there once, None when there was none."""
        metadata = _inner(_inner(failed.body, "data"), "metadata")
        version = metadata.get("version")
        if metadata.get("destroyed"):
            return self._client.failure(FailureKind.REFUSED, path, f"version {version} was destroyed; write a new version")
        if metadata.get("deletion_time"):
            what = f"version {version} was deleted at {metadata['deletion_time']}; undelete it, or write a new version"
            return self._client.failure(FailureKind.REFUSED, path, what)
        return None

    def _read_plain(self, read: Secret, mount: Mount, began: float) -> Fetched:
        if read.version:
            what = f"{mount.path} keeps no versions; remove `version`, or read a KV v2 secret"
            raise self._client.failure(FailureKind.MISCONFIGURED, read.path, what)
        answer = self._client.get(read.path).body
        fields = self._data(read.path, answer)
        lease = _lease(answer)
        if lease is None:
            return self._polled(read, fields)
        return self._issued(fields, began, lease)

    def _issue(self, read: Write, began: float) -> Fetched:
        answer = self._client.post(read.path, json.loads(read.parameters)).body
        fields = self._data(read.path, answer)
        lifetime = _lease(answer) or self._lifetime(fields, read.path, began)
        if lifetime is None:
            return self._kept(fields, read.poll)
        return self._issued(fields, began, lifetime)

    def _polled(self, read: Secret, fields: Mapping[str, Any], detail: str = "") -> Fetched:
        now = self._world.clock.now()
        due = next_poll(now, read.poll, self._world.random)
        # While the next poll is under way, the value is as current as was asked for.
        return Fetched(reading=Reading(value=fields, at=now, current_until=due + DEADLINE, whole=True, detail=detail), due=due, polled=True)

    def _kept(self, fields: Mapping[str, Any], poll: float | None) -> Fetched:
        """Return what has no end of its own."""
        now = self._world.clock.now()
        due = inf if poll is None else next_poll(now, poll, self._world.random)
        return _minted(Reading(value=fields, at=now, current_until=due, whole=True, detail="issued"), due)

    def _issued(self, fields: Mapping[str, Any], began: float, lifetime: float) -> Fetched:
        """Return what ends `lifetime` seconds after it was asked for."""
        due = max(reissue(began, lifetime, self._world.random), began + LEAST_INTERVAL)
        detail = f"issued for {lifetime:.0f} s"
        now = self._world.clock.now()
        return _minted(Reading(value=fields, at=now, current_until=due, whole=True, expires=began + lifetime, detail=detail), due)

    def _lifetime(self, fields: Mapping[str, Any], path: str, began: float) -> float | None:
        """Return the seconds until a certificate ends, None for what has no end; a number or a text, by the server's version."""
        try:
            end = float(fields["expiration"])
        except (KeyError, TypeError, ValueError):
            return None
        left = end - (self._world.clock.wall() - (self._world.clock.now() - began))
        if left <= 0:
            what = "what it issued has ended already; compare the clocks of this machine and the server, and the lifetime that is asked for"
            raise self._client.failure(FailureKind.MISCONFIGURED, path, what)
        return left

    def _data(self, path: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        data = answer.get("data")
        if not isinstance(data, dict):
            raise self._client.failure(FailureKind.MISCONFIGURED, path, "the answer holds no fields; name the path of a secret")
        return data

    def _mount(self, path: str) -> Mount:
        """Return the mount of a path; one is remembered only once the server has told it."""
        mount = next((mount for mount in tuple(self._mounts.values()) if path.startswith(mount.path)), None)
        if mount is None:
            mount = self._find_mount(path)
            self._mounts[mount.path] = mount
        return mount

    def _find_mount(self, path: str) -> Mount:
        try:
            # Every token may ask, and is told about the mounts on which it may do anything at all.
            data = self._data(path, self._client.get(f"sys/internal/ui/mounts/{path}").body)
        except Answered as failed:
            if failed.status == codes.forbidden:
                raise self._client.failure(
                    FailureKind.REFUSED, path, _UNSEEN.format(path=path, versioned="/data/".join(path.split("/", 1)))
                ) from None
            raise
        options = data.get("options") or {}
        mount = Mount(str(data.get("path")), 2 if data.get("type") == "kv" and options.get("version") == "2" else 1)
        if not path.startswith(mount.path):
            raise self._client.failure(
                FailureKind.MISCONFIGURED, path, "the server told another mount than the one asked for; check vault.address"
            )
        return mount


def _minted(reading: Reading, due: float) -> Fetched:
    """Return what must not be had again before it is due."""
    fetched = Fetched(reading=reading, due=due)
    return replace(fetched, state=fetched)


def _lease(answer: Mapping[str, Any]) -> float | None:
    """Return the seconds of a lease that can run out; KV v1 names a duration without one."""
    return float(answer["lease_duration"]) if answer.get("lease_id") and answer.get("lease_duration") else None


def _inner(answer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = answer.get(key)
    return inner if isinstance(inner, dict) else {}
