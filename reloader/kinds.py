"""Finds the module of a kind by its name: ours in a package of the house, others through an entry point."""

from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


class UnknownKind(LookupError):
    """No module of that kind; the message lists the kinds there are."""


class BrokenKind(ImportError):
    """The module of that kind is there but cannot be imported; the message says why and what to install."""


@dataclass(frozen=True)
class Kinds:
    """The kinds of one part; a module is imported only when its kind is loaded."""

    package: str
    """The package with a module per kind, and the entry point group for kinds that others bring."""
    path: list[str]
    noun: str

    def names(self) -> tuple[str, ...]:
        """Return the names of all kinds there are, imported or not."""
        return tuple(sorted(self._own() | set(self._others())))

    def load(self, kind: str) -> ModuleType:
        """Return the module of a kind.

        Raises:
            UnknownKind: there is none.
            BrokenKind: importing it failed.

        """
        try:
            return import_module(self._module_name(kind))
        except ImportError as error:
            raise BrokenKind(f"{self.noun} kind {kind!r} cannot be loaded ({error}); install the package that brings it") from error

    def _module_name(self, kind: str) -> str:
        if kind in self._own():
            return f"{self.package}.{kind}"
        if kind in (others := self._others()):
            return others[kind]
        raise UnknownKind(f"unknown {self.noun} kind {kind!r}; known: {', '.join(self.names())}")

    def _others(self) -> dict[str, str]:
        """Return the modules of the kinds that others bring, by the names of the kinds."""
        from importlib.metadata import entry_points  # noqa: PLC0415 - 2 MiB, only where a kind is not ours

        return {point.name: point.value for point in reversed(entry_points(group=self.package))}

    def _own(self) -> set[str]:
        return {module.name for module in iter_modules(self.path) if not module.name.startswith("_")}
