"""A target that a command makes reload."""

from collections.abc import Iterator

from reloader.plan import Verify
from reloader.targets import _probes
from reloader.targets._requests import Asked
from reloader.world import World
from reloader.written import Duration, plain


@plain
class Settings:
    """What is run, and how long it may take."""

    command: tuple[str, ...]
    timeout: Duration = 30.0

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a key."""
        if not self.command:
            yield "command", "expected a program and its arguments, such as [rabbitmqctl, reload]"
        if self.timeout <= 0:
            yield "timeout", "expected a duration longer than 0s"


class Target(Asked):
    """Reloads by a command."""

    def __init__(self, settings: Settings, verify: Verify, world: World) -> None:
        super().__init__(_probes.command(world.children, settings.command, key="target.command"), settings.timeout, verify, world)
