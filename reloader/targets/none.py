"""No target: whoever reads the volume looks for itself."""

from reloader.plan import Verify, plain
from reloader.targets import Instance, Judgement, Verdict
from reloader.world import World


@plain
class Settings:
    """Nothing to set."""


class Confirmed:
    """What nobody has to prove."""

    proves_completion = True

    def judge(self) -> Judgement:
        """Return that it is so."""
        return Judgement(verdict=Verdict.CONFIRMED)


class Target:
    """Takes every set at once."""

    def __init__(self, _settings: Settings, _verify: Verify, _world: World) -> None:
        pass

    def instances(self) -> tuple[Instance, ...]:
        """Return always the same one."""
        return (Instance(),)

    def reload(self, _instance: Instance) -> Confirmed:
        """Ask nobody."""
        return Confirmed()

    def verify(self, _instance: Instance) -> Confirmed:
        """Ask nobody."""
        return Confirmed()

    def descriptors(self) -> tuple[int, ...]:
        """Return none."""
        return ()

    def close(self) -> None:
        """Free nothing."""
