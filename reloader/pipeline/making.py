"""Makes a set of files from the values of the sources."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reloader.fileset import Rendered
from reloader.plan import Pipeline as Plan, Volume as VolumePlan
from reloader.snapshot import Value
from reloader.volume import Mounted, Volume

if TYPE_CHECKING:
    from reloader.render import Renderer

Values = Mapping[str, Value]

GENERATION_OPEN = "/..generation"
"""What stands for `{{ generation }}` while sets are compared, so that the name of its directory is not a change."""


class Making:
    """Renders the sets of one pipeline; without a volume a set is what the sources say."""

    def __init__(self, plan: Plan, volume: Volume | Mounted) -> None:
        self._plan = plan
        self._volume = volume
        self._renderer = _renderer(plan.volume) if plan.volume else None

    @property
    def needed(self) -> tuple[str, ...]:
        """Return the names of all values that a set is made of: the sources', and the directories of templates."""
        return (*self._plan.sources, *(self._renderer.template_directories if self._renderer else ()))

    def compared(self, values: Values) -> tuple[Rendered, str]:
        """Return the set with `generation` left open, and its fingerprint.

        Raises:
            RenderFailed: it cannot be rendered.
            VolumeError: the volume, which has the key of the fingerprint, cannot be used now.

        """
        if self._renderer is None or isinstance(self._volume, Mounted):
            return {}, self._volume.fingerprint({name: values[name] for name in self._plan.sources})
        rendered = self._render(self._renderer, values, GENERATION_OPEN)
        return rendered, self._volume.fingerprint(rendered)

    def previewed(self, values: Values, number: int) -> Rendered:
        """Return the set as it would be in a generation; nothing without a volume.

        Raises:
            RenderFailed: it cannot be rendered.

        """
        if self._renderer is None or isinstance(self._volume, Mounted):
            return {}
        return self._render(self._renderer, values, self._volume.target_directory(number))

    def final(self, values: Values, rendered: Rendered, number: int) -> Rendered:
        """Return the set with the directory of a generation in it."""
        if self._renderer is None or isinstance(self._volume, Mounted) or not self._renderer.uses_generation(self._templates(values)):
            return rendered
        return self._render(self._renderer, values, self._volume.target_directory(number))

    def _render(self, renderer: "Renderer", values: Values, generation: str) -> Rendered:
        return renderer.render({name: values[name] for name in self._plan.sources}, self._templates(values), generation)

    def _templates(self, values: Values) -> dict[str, Mapping[str, Value]]:
        return {directory: values[directory] for directory in (self._renderer.template_directories if self._renderer else ())}


def _renderer(volume: VolumePlan) -> "Renderer":
    from reloader.render import Renderer  # noqa: PLC0415 - Jinja2: 5 MiB, only where there is a volume

    return Renderer(volume)
