"""The links by which readers see a generation: `..data` to its directory, and one for each name in it through `..data`."""

from collections.abc import Iterable
from pathlib import Path

from reloader.volume import layout
from reloader.world.disk import Disk


class Links:
    """The links of one volume; see `layout` for their form."""

    def __init__(self, volume: Path, disk: Disk) -> None:
        self._volume = volume
        self._disk = disk

    def refuse_in_the_way(self, names: Iterable[str]) -> None:
        """Raise VolumeError where something that is not ours has a name that the set needs."""
        layout.missing_links(self._volume, layout.first_components(names))

    def show(self, number: int) -> None:
        """Make the user links that a generation needs: before it is published, so that all of it appears at once."""
        for name in layout.missing_links(self._volume, self._names(number)):
            self._disk.make_link(self._volume / name, layout.user_link(name))

    def switch(self, number: int) -> None:
        """Have `..data` lead to a generation, by one rename."""
        self.clear()  # of a switch that failed
        temporary = self._volume / layout.DATA_TEMPORARY
        self._disk.make_link(temporary, layout.generation_name(number))
        self._disk.rename(temporary, self._volume / layout.DATA)

    def clear(self) -> None:
        """Remove what a switch left that did not end."""
        self._disk.remove_file(self._volume / layout.DATA_TEMPORARY)

    def tidy(self) -> None:
        """Remove the user links of files that left the configuration."""
        number = layout.linked(self._volume)
        published = set() if number is None else set(self._names(number))
        for name in sorted(layout.links(self._volume) - published):
            self._disk.remove_file(self._volume / name)

    def _names(self, number: int) -> list[str]:
        return [path.name for path in (self._volume / layout.generation_name(number)).iterdir()]
