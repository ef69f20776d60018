"""What is wrong with templates before anything is read from a backend."""

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from posixpath import basename, dirname

from jinja2 import TemplateSyntaxError, meta, nodes

from reloader.fileset import published_paths
from reloader.plan import File, Volume
from reloader.render.failures import Unfit, near
from reloader.render.sandbox import GENERATION, Inline, Loader, Sandbox

Mistake = tuple[tuple[str, ...], str]
"""The path of a key below `volume`, and what is wrong with its value."""
_LARGEST = 4 * 1024 * 1024


def examine(volume: Volume, sources: Collection[str]) -> Iterator[Mistake]:
    """Yield every mistake in the templates and contents of a volume, reading template files from disk."""
    examination = _Examination(volume, sources)
    for name, file in volume.files.items():
        if file.copy is None:
            key = ("files", name, "template" if file.template else "content")
            for message in dict.fromkeys(examination.mistakes(name, file)):
                yield key, message


class _Examination:
    def __init__(self, volume: Volume, sources: Collection[str]) -> None:
        self._known = {GENERATION, *sources}
        self._sandbox = Sandbox()
        roots = (volume.path, volume.target_path or volume.path)
        checked = volume.check is not None and volume.check.command is not None
        self._published = published_paths(roots, volume.files) if checked else None
        self._generation = _no_generation(volume) if checked else None
        self._in_place = volume.in_place

    def mistakes(self, name: str, file: File) -> Iterator[str]:
        """Yield what is wrong with the template of one file and with those that it includes."""
        loader, template = _loader(name, file)
        trees = {}
        rest = [(template, "")]
        while rest:
            one, asked_by = rest.pop()
            if one in trees:
                continue
            tree = self._parsed(loader, loader.sibling if asked_by else str, one)
            if isinstance(tree, str):
                yield f"{asked_by}{tree}"
                continue
            trees[one] = tree
            rest.extend(_asked(loader, one, tree))
            yield from self._paths(loader.told(one), tree)
        if template in trees:
            yield from self._names(loader.told(template), trees[template])

    def _parsed(self, loader: Loader, found_as: Callable[[str], str], template: str) -> nodes.Template | str:
        """Return the template, or why there is none."""
        environment = self._sandbox.at(loader)
        try:
            text, told, _ = loader.get_source(environment, found_as(template))
            tree = environment.parse(text, template, told)
            meta.find_undeclared_variables(tree)  # for its look at the names of filters and tests
        except TemplateSyntaxError as error:
            return f"{loader.told(template)}, line {error.lineno}: {error.message}"
        except Unfit as error:
            return str(error)
        except OSError as error:
            return f"{loader.told(template)} cannot be read: {error.strerror}"
        return tree

    def _names(self, told: str, tree: nodes.Template) -> Iterator[str]:
        known = {*self._known, *self._sandbox.globals, *_asked_after(tree)}
        for name in sorted(meta.find_undeclared_variables(tree) - known):
            line = min(node.lineno for node in tree.find_all(nodes.Name) if node.name == name)
            yield f"{told}, line {line}: no source is called {name!r}{near(name, self._known)}"

    def _paths(self, told: str, tree: nodes.Template) -> Iterator[str]:
        """Yield where the operator's check would read another set than the one it is asked about."""
        for found, line in _published(self._published, tree):
            absolute = "" if self._in_place else f"{{{{ generation }}}}/{basename(found)}, or "
            yield (
                f"{told}, line {line}: {found} is in the published set, so check.command would read the old one; "
                f"write {absolute}a path relative to this file"
            )
        if self._generation and any(node.name == GENERATION for node in tree.find_all(nodes.Name)):
            yield f"{told}: {{{{ generation }}}} {self._generation}"


def _no_generation(volume: Volume) -> str | None:
    """Return why a check command cannot follow `generation`; None where it can."""
    if volume.in_place:
        return "is the volume itself (volume.in_place), where check.command would read the old set; write a path relative to this file"
    if volume.target_path not in (None, volume.path):
        return (
            "is a directory as the target sees it (volume.target_path), where check.command cannot look; "
            "mount the volume at the same path in both containers, or do without one of the two"
        )
    return None


def _loader(name: str, file: File) -> tuple[Loader, str]:
    if file.template is None:
        return Inline({name: file.content or ""}.get), name
    directory = Path(dirname(file.template))
    return Loader(lambda template: _read(directory, template), str(directory)), basename(file.template)


def _read(directory: Path, template: str) -> bytes:
    if ".." in Path(template).parts or Path(template).is_absolute():
        raise Unfit(f"{template} is not in the directory of the template that asks for it")
    with (directory / template).open("rb") as file:
        real = Path(f"/proc/self/fd/{file.fileno()}").readlink()
        data = file.read(_LARGEST + 1)
    if not real.is_relative_to(directory.resolve()):
        raise Unfit(f"{directory}/{template} is a link that leads out of its directory; put the template itself there")
    if len(data) > _LARGEST:
        raise Unfit(f"{directory}/{template} is larger than {_LARGEST // 1024**2} MiB, which no template is")
    return data


def _asked(loader: Loader, template: str, tree: nodes.Template) -> Iterator[tuple[str, str]]:
    """Yield the templates that one certainly needs, each with how to tell who needs it."""
    for node in tree.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
        asked = getattr(node, "template", None)
        if isinstance(asked, nodes.Const) and isinstance(asked.value, str) and not getattr(node, "ignore_missing", False):
            yield asked.value, f"{loader.told(template)}, line {node.lineno}: "


def _asked_after(tree: nodes.Template) -> set[str]:
    """Return the names that a template is prepared to do without: `NAME is defined`, `NAME | default(...)`."""
    tests = [test for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    filters = [each for each in tree.find_all(nodes.Filter) if each.name in ("default", "d")]
    return {each.node.name for each in (*tests, *filters) if isinstance(each.node, nodes.Name)}


def _published(published: re.Pattern[str] | None, tree: nodes.Template) -> Iterator[tuple[str, int]]:
    if published is None:
        return
    for data in tree.find_all(nodes.TemplateData):
        for found in published.finditer(data.data):
            yield found[0], data.lineno + data.data.count("\n", 0, found.start())
    for const in tree.find_all(nodes.Const):
        if isinstance(const.value, str) and (hit := published.search(const.value)):
            yield hit[0], const.lineno
