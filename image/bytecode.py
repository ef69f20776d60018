"""Compiles what `reloader` loads, its own modules and those of others: nobody can write bytecode where the image runs.

The official images come without the bytecode of the standard library. `python bytecode.py FOLDER` leaves that below FOLDER, at its path
from the root, and all other next to its source. It is never compared with the source, so times may change on the way into a layer.
"""

import ast
import importlib.util
import pkgutil
import py_compile
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

UNSEEN = ("encodings.ascii", "urllib3.contrib.socks")
"""Loaded too: by name, and by `requests` at each start, though what it needs is not there."""


def load(package: ModuleType) -> None:
    """Import each module of the package and each name that one of them imports, also those imported late."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        specification = importlib.import_module(found.name).__spec__
        if specification and specification.origin:
            for name in imported(Path(specification.origin)):
                with suppress(ImportError):  # a name that is no module, or one of an extra that the image is without
                    importlib.import_module(name)


def imported(source: Path) -> Iterator[str]:
    """Yield what may be a module in the import statements of a file."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def compile_into(folder: Path, specification: ModuleSpec) -> None:
    """Compile one module: next to its source in our own environment, else below the folder."""
    source, cached = str(specification.origin), Path(str(specification.cached))
    place = cached if cached.is_relative_to(sys.prefix) else folder / cached.relative_to("/")
    py_compile.compile(source, str(place), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


def main() -> None:
    """Compile all that is loaded."""
    sys.dont_write_bytecode = True
    load(importlib.import_module("reloader"))
    loaded = [module.__spec__ for module in sys.modules.values()]
    for specification in (*loaded, *map(importlib.util.find_spec, UNSEEN)):
        if specification and str(specification.origin).endswith(".py") and specification.cached:
            compile_into(Path(sys.argv[1]), specification)


if __name__ == "__main__":
    main()
