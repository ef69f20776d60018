"""How one thing is had from a Vault server: the secret that is there, or what the path issues."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from requests import codes

from reloader.backends.reads import Fetched, ReadFailed
from reloader.backends.vault.client import DEADLINE, Answer, Answered, Client
from reloader.backends.vault.issued import Issued, Read, Secret, Write
from reloader.backends.vault.mounts import Mount, Mounts
from reloader.backends.vault.terms import NotNow, OverAlready, Terms, terms_of
from reloader.schedule import next_poll
from reloader.snapshot import FailureKind, Reading
from reloader.world import World

_CAPABILITIES, _REVOKE = "sys/capabilities-self", "sys/leases/revoke"


@dataclass(frozen=True)
class _Seen:
    """A version of a secret, by which an unchanged one is known without reading it."""

    stamp: tuple[Any, ...]
    value: Mapping[str, Any] = field(repr=False)
    detail: str


class Reader:
    """One server; used by several threads at once."""

    def __init__(self, client: Client, world: World) -> None:
        self._client = client
        self._world = world
        self._mounts = Mounts(client)
        self._sighted: dict[str, tuple[str, bool]] = {}
        """By path: a token's serial, and whether it may read the metadata there."""

    def had(self, read: Read, state: Any) -> Fetched | Issued:
        """Return the secret, or what the server made for us; `state` is that of the last success.

        Raises:
            ReadFailed: there is no answer.

        """
        if isinstance(read, Write):
            return self.issued(read)
        mount = self._mounts.of(read.path)
        try:
            if mount.version > 1:
                return self._versioned(read, mount, state if isinstance(state, _Seen) else None)
            return self._plain(read, mount)
        except Answered as failed:
            if failed.status in {codes.forbidden, codes.not_found}:  # also what a mount says that was remade with another version
                self._mounts.forget(mount)
            raise

    def issued(self, read: Read) -> Issued:
        """Return what the server makes for us, with the time when that is due again.

        Raises:
            ReadFailed: there is no answer.

        """
        began = self._world.clock.now()
        parameters = json.loads(read.parameters) if isinstance(read, Write) else None
        answer = self._client.get(read.path) if parameters is None else self._client.post(read.path, parameters)
        return self._issued(read, answer, self._terms(read.path, answer, began), began)

    def _issued(self, read: Read, answer: Answer, terms: Terms, began: float) -> Issued:
        rng, now, value = self._world.random, self._world.clock.now(), self._data(read.path, answer.body)
        if terms.lasts is None:
            anew = inf if read.poll is None else next_poll(now, read.poll, rng)
            return Issued(read=read, token=answer.token, value=value, at=now, anew=terms.due(began, rng) if terms.rotates else anew)
        return Issued(
            read=read,
            token=answer.token,
            value=value,
            at=now,
            ends=began + terms.lasts,
            term=terms.lasts,
            lease=terms.lease,
            renew=terms.due(began, rng) if terms.renewable else inf,
            anew=terms.anew(began, rng),
        )

    def _terms(self, path: str, answer: Answer, began: float) -> Terms:
        try:
            with self._client.understanding(path):
                return terms_of(answer.body, self._world.clock.wall() - (self._world.clock.now() - began))
        except NotNow:
            raise self._client.failure(FailureKind.UNREACHABLE, path, "the server is about to rotate it; it is read again soon") from None
        except OverAlready:
            what = "what it issued has ended already; compare the clocks of this machine and the server, and the lifetime that is asked for"
            raise self._client.failure(FailureKind.MISCONFIGURED, path, what) from None

    def _plain(self, read: Secret, mount: Mount) -> Fetched | Issued:
        if read.version:
            what = f"{mount.path} keeps no versions; remove `version`, or read a KV v2 secret"
            raise self._client.failure(FailureKind.MISCONFIGURED, read.path, what)
        began = self._world.clock.now()
        answer = self._client.get(read.path)
        fields = self._data(read.path, answer.body)
        terms = Terms() if mount.kind == "kv" else self._terms(read.path, answer, began)
        if terms.lasts is not None and terms.lease:
            return self._issued(read, answer, terms, began)
        if terms.rotates is not None:
            return _until(terms.due(began, self._world.random), fields, self._world.clock.now(), f"rotated in {terms.rotates:.0f} s")
        return self._polled(read, fields)

    def _versioned(self, read: Secret, mount: Mount, seen: _Seen | None) -> Fetched:
        path = mount.api_path(read.path)
        if seen is not None and self._is_unchanged(read, mount.metadata_path(read.path), seen):
            return self._polled(read, seen.value, seen.detail, seen)
        try:
            answer = self._client.get(path, {"version": read.version} if read.version else None).body
        except Answered as failed:
            raise self._gone(path, failed) or failed from None
        data = self._data(path, answer)
        version = _inner(data, "metadata")
        detail, value = f"version {version.get('version')}", self._data(path, data)
        return self._polled(read, value, detail, _Seen(_stamp(version.get("version"), version), value, detail))

    def _is_unchanged(self, read: Secret, path: str, seen: _Seen) -> bool:
        """Return whether the metadata say that the version is still the one that was read; not, where they may not be read."""
        if not self._may_see(path):
            return False
        try:
            data = _inner(self._client.get(path).body, "data")
        except Answered as failed:
            if failed.status == codes.forbidden:
                self._sighted.pop(path, None)
            elif failed.status != codes.not_found:
                raise
            return False
        number = read.version or data.get("current_version")
        stamp = _stamp(number, _inner(_inner(data, "versions"), str(number)))
        return stamp == seen.stamp and not stamp[-2]  # a time of deletion may have come since

    def rehearsed(self, read: Read, *, issue: bool) -> str | None:
        """Return what the token may do where a read would leave something behind; None where it leaves nothing, or what may be revoked.

        Raises:
            ReadFailed: it may not do that.

        """
        if isinstance(read, Secret):
            kind = self._mounts.of(read.path).kind
            if kind == "kv" or (issue and (self._client.identity.token().revocable or self._may(_REVOKE, "update"))):
                return None
        capability = "update" if isinstance(read, Write) else "read"
        if not self._may(read.path, capability):
            what = f'permission denied; the policy of the token must hold: path "{read.path}" {{ capabilities = ["{capability}"] }}'
            raise self._client.failure(FailureKind.REFUSED, read.path, what)
        if isinstance(read, Write) or not issue:
            return f"the token may {'write' if isinstance(read, Write) else 'read'} there; nothing was issued"
        return f"the token may read there; nothing was issued, since it may not revoke that ({_REVOKE})"

    def _may(self, path: str, capability: str) -> bool:
        """Return what the server says of the token's policies."""
        told = _inner(self._client.post(_CAPABILITIES, {"paths": [path]}).body, "data").get(path)
        return isinstance(told, list) and bool({capability, "root"} & set(map(str, told)))

    def _may_see(self, path: str) -> bool:
        """Return whether the token may read the metadata; asked once for each token, so that no read of them is denied again and again."""
        token = self._client.identity.token()
        serial, may = self._sighted.get(path, ("", False))
        if serial != token.serial:
            try:
                told = _inner(self._client.post(_CAPABILITIES, {"paths": [path]}, token=token).body, "data").get(path)
            except ReadFailed as failed:
                if failed.everywhere:
                    raise
                if failed.kind is not FailureKind.REFUSED:  # the read of the secret itself finds out what is wrong
                    return False
                told = None
            may = isinstance(told, list) and bool({"read", "root"} & set(map(str, told)))
            self._sighted[path] = (token.serial, may)
        return may

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

    def _polled(self, read: Secret, fields: Mapping[str, Any], detail: str = "", state: Any = None) -> Fetched:
        now = self._world.clock.now()
        due = next_poll(now, read.poll, self._world.random)
        # While the next poll is under way, the value is as current as was asked for.
        reading = Reading(value=fields, at=now, current_until=due + DEADLINE, whole=True, detail=detail)
        return Fetched(reading=reading, due=due, polled=True, state=state)

    def _data(self, path: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        data = answer.get("data")
        if not isinstance(data, dict):
            raise self._client.failure(FailureKind.MISCONFIGURED, path, "the answer holds no fields; name the path of a secret")
        return data


def _until(due: float, fields: Mapping[str, Any], now: float, detail: str) -> Fetched:
    """Return what is read again at a time that the server told."""
    return Fetched(reading=Reading(value=fields, at=now, current_until=due + DEADLINE, whole=True, detail=detail), due=due)


def _stamp(number: Any, version: Mapping[str, Any]) -> tuple[Any, ...]:
    return number, version.get("created_time"), version.get("deletion_time"), version.get("destroyed")


def _inner(answer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = answer.get(key)
    return inner if isinstance(inner, dict) else {}
