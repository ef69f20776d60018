"""Which engine of a Vault server is mounted where: KV v2 has other paths than the rest."""

from dataclasses import dataclass
from typing import Any

from requests import codes

from reloader.backends.vault.client import Answered, Client
from reloader.snapshot import FailureKind

_UNSEEN = (
    "permission denied; nothing is mounted there, or the token is not valid, or its policy lacks "
    'path "{versioned}" {{ capabilities = ["read"] }} (KV v2) or path "{path}" {{ capabilities = ["read"] }} (any other engine)'
)


@dataclass(frozen=True)
class Mount:
    """Where an engine is mounted; mounts never nest, so a path has one ("path is already in use")."""

    path: str
    kind: str
    version: int
    """2 for KV v2, else 1."""

    def api_path(self, path: str) -> str:
        """Return the path of the API: KV v2 has `data/` after the mount, whether it was written or not."""
        return path if self.version == 1 else f"{self.path}data/{self._inner(path)}"

    def metadata_path(self, path: str) -> str:
        """Return where KV v2 tells which versions there are."""
        return f"{self.path}metadata/{self._inner(path)}"

    def _inner(self, path: str) -> str:
        return path.removeprefix(self.path).removeprefix("data/")


class Mounts:
    """The mounts of one server; each is asked for until the server has told it, and remembered from then on."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Mount] = {}

    def of(self, path: str) -> Mount:
        """Return the mount of a path.

        Raises:
            ReadFailed: the server did not tell it.

        """
        mount = next((mount for mount in tuple(self._known.values()) if path.startswith(mount.path)), None)
        if mount is None:
            mount = self._find(path)
            self._known[mount.path] = mount
        return mount

    def forget(self, mount: Mount) -> None:
        """Ask for a mount again: it may have been made anew with another version."""
        self._known.pop(mount.path, None)

    def _find(self, path: str) -> Mount:
        data = self._told(path)
        with self._client.understanding(path):
            is_versioned = data.get("type") == "kv" and (data.get("options") or {}).get("version") == "2"
        mount = Mount(str(data.get("path")), str(data.get("type")), 2 if is_versioned else 1)
        if not path.startswith(mount.path):
            what = "the server told another mount than the one asked for; check vault.address"
            raise self._client.failure(FailureKind.MISCONFIGURED, path, what)
        return mount

    def _told(self, path: str) -> dict[str, Any]:
        try:
            # Every token may ask, and is told about the mounts on which it may do anything at all.
            answer = self._client.get(f"sys/internal/ui/mounts/{path}").body
        except Answered as failed:
            if failed.refused(codes.forbidden):
                mend = _UNSEEN.format(path=path, versioned="/data/".join(path.split("/", 1)))
                raise self._client.failure(FailureKind.REFUSED, path, mend) from None
            raise
        data = answer.get("data")
        if not isinstance(data, dict):
            raise self._client.failure(FailureKind.MISCONFIGURED, path, "the server told no mount; check vault.address")
        return data
