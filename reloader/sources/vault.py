"""Secrets of a Vault or OpenBao server: the fields of a secret, or what a path issues."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from reloader.plan import Connections
from reloader.snapshot import Outcome, Reading
from reloader.written import Duration, plain

if TYPE_CHECKING:
    from reloader.backends.vault.issued import Read

DEFAULT_POLL = 30.0


@plain
class Settings:
    """What a source of kind `vault` is told."""

    path: str
    """As for the command line: `secret/app/db`, whether KV v1 or v2."""
    write: Mapping[str, str | int | bool] | None = None
    """The parameters with which `path` issues; without it, `path` is read."""
    version: int | None = None
    """The version of a KV v2 secret; the latest unless given."""
    poll: Duration | None = None
    """How often a secret is read; with `write`, how often it is issued if it has no lifetime of its own."""

    @property
    def effective_poll(self) -> float | None:
        """Return the seconds between two reads, None where the server's answer decides."""
        return DEFAULT_POLL if self.poll is None and self.write is None else self.poll

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield each key whose value cannot work, with what was expected."""
        if {"", ".", ".."} & set(self.path.split("/")):
            yield "path", "expected a path as for the command line, such as secret/app/db, without a slash at either end"
        if self.version is not None and self.write is not None:
            yield "version", "expected only for a secret that is read; remove it, or `write`"
        if self.version is not None and self.version < 1:
            yield "version", "expected the number of a version, 1 or more"
        if self.poll == 0:
            yield "poll", "expected a duration longer than 0s"


class Source:
    """A mapping of the secret's fields."""

    def __init__(self, settings: Settings, connections: Connections) -> None:
        if connections.vault is None or not connections.vault.address:
            raise ValueError("needs a Vault server: set vault.address, or VAULT_ADDR in the environment")
        self.backend = replace(connections.vault, revoke_on_exit=False)
        self._settings = settings

    @cached_property
    def read(self) -> "Read":
        """Return what is asked; the libraries that ask come with it, and a configuration is checked without them."""
        from reloader.backends.vault import Secret, Write, parameters_of  # noqa: PLC0415

        settings = self._settings
        if settings.write is not None:
            return Write(settings.path, parameters_of(settings.write), settings.poll)
        return Secret(settings.path, settings.version, settings.effective_poll or DEFAULT_POLL)

    def interpret(self, reading: Reading) -> Outcome:
        """Return the reading, marked as secret."""
        return replace(reading, secret=True)
