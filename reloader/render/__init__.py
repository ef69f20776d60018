"""A snapshot into file contents: all that a template sees is handed in, so equal input gives an equal set."""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from posixpath import basename, dirname
from typing import Any, TypeVar

from jinja2 import TemplateError, meta, nodes

from reloader.fileset import Rendered, RenderedFile, RenderFailed
from reloader.plan import File, Volume
from reloader.render.bounds import OUTPUT_LIMIT, room
from reloader.render.examine import examine
from reloader.render.failures import Unfit, told
from reloader.render.filters import FILTERS
from reloader.render.plain import content_of, files_of, plain, utf8
from reloader.render.sandbox import GENERATION, RESERVED_NAMES, Inline, Loader, Sandbox

__all__ = ["FILTERS", "OUTPUT_LIMIT", "RESERVED_NAMES", "RenderFailed", "Rendered", "RenderedFile", "Renderer", "Templates", "examine"]

Made = TypeVar("Made")

Templates = Mapping[str, Mapping[str, str | bytes]]
"""The content of each template directory: its path, then each file by its name relative to it."""


class Renderer:
    """Renders the set of one volume; compiled templates are kept from one render to the next."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._sandbox = Sandbox()
        self._mentions: tuple[Templates, bool] | None = None
        """Whether templates mention `generation`, and which; to parse them with each change would take as long as to render them."""

    @property
    def template_directories(self) -> tuple[str, ...]:
        """Return the directories whose whole content `render` is to be given."""
        return self._volume.template_directories

    def render(self, values: Mapping[str, Any], templates: Templates, generation: str) -> Rendered:
        """Return the set; `generation` is its directory as the target will see it.

        Raises:
            RenderFailed: why, and where.

        """
        seen = {name: _telling(f"source {name}", partial(plain, value)) for name, value in values.items()}
        run = _Run(self._sandbox, templates, seen | {GENERATION: generation})
        files: dict[str, RenderedFile] = {}
        for name, file in self._volume.files.items():
            data = run.data(name, file)
            files[name] = RenderedFile(data=data, mode=file.mode, owner=file.owner, group=file.group)
        files |= _telling("volume.copy", partial(self._laid_out, seen, files))
        _telling("volume", partial(_fit, files))
        return dict(sorted(files.items()))

    def uses_generation(self, templates: Templates) -> bool:
        """Return whether any template mentions `generation`, itself or by what it includes."""
        if self._mentions is None or self._mentions[0] != templates:
            run = _Run(self._sandbox, templates, {})
            answer = any(run.mentions_generation(name, file) for name, file in self._volume.files.items() if not file.copy)
            self._mentions = templates, answer
        return self._mentions[1]

    def _laid_out(self, values: Mapping[str, Any], files: Mapping[str, RenderedFile]) -> dict[str, RenderedFile]:
        """Return the files of `volume.copy`."""
        source = self._volume.copy
        if source is None:
            return {}
        copied = dict(files_of(source, _value(values, source)))
        both = sorted(copied.keys() & files.keys())
        if both:
            raise Unfit(f"{source} brings {both[0]!r}, which volume.files has too; rename one of them")
        return {name: RenderedFile(data=data) for name, data in copied.items()}


class _Run:
    """One render: the templates and values that go into it."""

    def __init__(self, sandbox: Sandbox, templates: Templates, values: Mapping[str, Any]) -> None:
        self._sandbox = sandbox
        self._templates = templates
        self._values = dict(values)
        self._size = 0

    def data(self, name: str, file: File) -> bytes:
        """Return the content of one file."""
        loader, template = self._loader(name, file)
        return _telling(name, lambda: _decoded(self._content(loader, template, file), file), loader.texts, self._values)

    def mentions_generation(self, name: str, file: File) -> bool:
        """Return whether a template, or one it includes, mentions `generation`."""
        loader, template = self._loader(name, file)
        environment = self._sandbox.at(loader)
        every = tuple(self._templates.get(dirname(file.template), {})) if file.template else ()
        seen, rest = set[str](), [template]
        while rest:
            one = rest.pop()
            if one in seen:
                continue
            seen.add(one)
            try:
                tree = environment.parse(loader.get_source(environment, one)[0])
            except (TemplateError, Unfit):
                continue  # it is not there or not a template: what needs it does not render
            if any(node.name == GENERATION for node in tree.find_all(nodes.Name)):
                return True
            for asked in meta.find_referenced_templates(tree):
                rest.extend(every if asked is None else (asked,))
        return False

    def _loader(self, name: str, file: File) -> tuple[Loader, str]:
        """Return where the template of a file is found, and under which name."""
        if file.template is None:
            return Inline({name: file.content or ""}.get), name
        directory = dirname(file.template)
        return Loader(self._templates.get(directory, {}).get, directory), basename(file.template)

    def _content(self, loader: Loader, template: str, file: File) -> bytes:
        if file.copy is not None:
            return content_of(file.copy, _value(self._values, file.copy))
        if file.template is not None and template not in self._templates.get(dirname(file.template), {}):
            raise Unfit(f"{file.template} is not there, or is a link that leads out of its directory")
        return utf8(self._text(loader, template))

    def _text(self, loader: Loader, template: str) -> str:
        parts = []
        for part in self._sandbox.at(loader).get_template(template, globals=self._values).generate():
            self._size += len(part)
            room(self._size)
            parts.append(part)
        return "".join(parts)


def _telling(name: str, make: Callable[[], Made], texts: Mapping[str, str] | None = None, known: Iterable[str] = ()) -> Made:
    """Return what is made; whatever goes wrong becomes a `RenderFailed` that holds nothing of it: neither its text nor itself."""
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - a template can raise anything
        reason = told(error, texts or {}, known)
    raise RenderFailed(f"{name}: {reason}")


def _value(values: Mapping[str, Any], source: str) -> Any:
    if source not in values:
        raise Unfit(f"copy: there is no source {source!r}")
    return values[source]


def _decoded(data: bytes, file: File) -> bytes:
    if file.decode is None:
        return data
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error:
        pass
    raise Unfit("decode: what was rendered is not base64")


def _fit(files: Mapping[str, RenderedFile]) -> None:
    """Refuse a set that no directory can hold."""
    room(sum(len(file.data) for file in files.values()))
    for name in files:
        parent = dirname(name)
        while parent:
            if parent in files:
                raise Unfit(f"{parent!r} is a file, and a folder for {name!r}; rename one of them")
            parent = dirname(parent)
