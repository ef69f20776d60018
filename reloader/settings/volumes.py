"""What must hold for a volume, and between the files of several pipelines."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from reloader import plan
from reloader.render import examine
from reloader.settings.mistakes import Mistake
from reloader.settings.model import Document
from reloader.settings.tree import Problem, Tree

_CONTENTS = ("template", "content", "copy")
PROCESS_WIDE = (("server", "listen"), ("server", "details"), ("state", "path"), ("log", "level"), ("log", "format"))
"""The keys that hold for all pipelines of a process."""


def in_volume(document: Document, tree: Tree) -> Iterator[Problem]:
    """Yield what is wrong with the volume of one file."""
    volume = document.volume
    if volume is None:
        return
    names = tuple(tree.keys("sources"))
    if not tree.has("volume", "files") and volume.copy is None:
        yield ("volume",), "expected files or copy: the volume would stay empty"
    if volume.target_path is not None and not volume.target_path.startswith("/"):
        yield ("volume", "target_path"), "expected an absolute path, as the target sees it"
    if volume.check is not None:
        yield from _check(volume.check)
        yield from _syntaxes(volume, volume.check)
    yield from _copied_whole(volume, document, names)
    for name, file in volume.files.items():
        yield from _file(name, file, names)
    yield from ((("volume", *key), message) for key, message in examine(volume, names))


def _check(check: plan.Check) -> Iterator[Problem]:
    if check.command == ():
        yield ("volume", "check", "command"), "expected a program and its arguments, such as [nginx, -t]"
    elif check.command is None and not check.builtin:
        yield ("volume", "check"), "expected command or builtin"


def _syntaxes(volume: plan.Volume, check: plan.Check) -> Iterator[Problem]:
    """Yield the checks of syntax that would find no file; with a copied source the names are known only later."""
    for index, each in enumerate(check.builtin):
        endings = plan.SYNTAXES.get(each, ()) if isinstance(each, str) else ()
        if endings and volume.copy is None and not any(name.endswith(endings) for name in volume.files):
            yield ("volume", "check", "builtin", index), f"no file of the volume has a name that ends in {' or '.join(endings)}"


def _copied_whole(volume: plan.Volume, document: Document, names: Sequence[str]) -> Iterator[Problem]:
    if volume.copy is None:
        return
    if volume.copy not in names:
        yield ("volume", "copy"), _no_source(names)
        return
    source = document.sources.get(volume.copy)
    if source is not None and (source.kind == "env" or (source.kind == "consul" and source.settings.prefix is None)):
        yield ("volume", "copy"), "expected a source of several files: of kind files or vault, or of kind consul with prefix"


def _no_source(names: Sequence[str]) -> str:
    return f"expected one of the sources: {', '.join(sorted(names)) or 'there are none'}"


def _file(name: str, file: plan.File, names: Sequence[str]) -> Iterator[Problem]:
    loc = ("volume", "files", name)
    given = [key for key in _CONTENTS if getattr(file, key) is not None]
    if len(given) != 1:
        yield loc, "expected one of template, content and copy" + (f", not {' and '.join(given)}" if given else "")
    if file.copy is not None and file.copy not in names:
        yield (*loc, "copy"), _no_source(names)


@dataclass(frozen=True)
class Configured:
    """A file, and what was made of it."""

    tree: Tree
    document: Document


def between_files(files: Sequence[Configured]) -> Iterator[Mistake]:
    """Yield what cannot be in one process together, mostly at the place of the later file."""
    for first, second in combinations(files, 2):
        there = first.tree.place(()).where
        if first.document.name == second.document.name:
            yield _mistake(second, ("name",), f"{there} has a pipeline of this name already")
        if _nested(first.document.volume, second.document.volume):
            yield _mistake(second, ("volume", "path"), f"{there} has a volume in the same directory, or within one another")
        for one, other in ((first, second), (second, first)):
            state, volume = one.document.state.path, other.document.volume
            if state is not None and volume is not None and is_within(state, volume.path):
                message = f"expected a directory that no target mounts, and {other.tree.place(()).where} has its volume there"
                yield _mistake(one, ("state", "path"), message)
        if _runs(first) and _runs(second):
            yield _mistake(second, ("target", "kind"), f"{there} has a target of kind exec already, and one process runs one program")
        for section, key in PROCESS_WIDE:
            if first.tree.has(section, key) and second.tree.has(section, key) and _differ(first, second, section, key):
                yield _mistake(second, (section, key), f"{there} says otherwise, and this holds for the whole process")


def _mistake(file: Configured, loc: tuple[str, ...], message: str) -> Mistake:
    return file.tree.place(loc).mistake(loc, message)


def _runs(file: Configured) -> bool:
    return file.document.target is not None and file.document.target.kind == "exec"


def _nested(first: plan.Volume | None, second: plan.Volume | None) -> bool:
    if first is None or second is None:
        return False
    return is_within(first.path, second.path) or is_within(second.path, first.path)


def is_within(path: str, directory: str) -> bool:
    """Return whether a path is a directory or below it, by whatever links it goes."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def _differ(first: Configured, second: Configured, section: str, key: str) -> bool:
    one, other = (getattr(getattr(file.document, section), key) for file in (first, second))
    return bool(one != other)
