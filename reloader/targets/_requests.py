"""What targets share that are no process: the answer to a request, or the status of a command, is what confirms."""

from reloader.plan import Verify
from reloader.targets import Held, Instance, Trouble, Verification
from reloader.targets._asking import Ask, Requested
from reloader.targets._probing import Probed, probe_of
from reloader.targets._proofs import Confirmed
from reloader.world import World


class Asked:
    """Always the same one; a reload is asked for until there is an answer."""

    def __init__(self, ask: Ask, timeout: float, verify: Verify, world: World) -> None:
        self._ask = ask
        self._timeout = timeout
        self._within = verify.within
        self._probe = probe_of(verify, world)
        self._clock = world.clock
        self._requested: Requested | None = None

    def instances(self) -> tuple[Instance, ...]:
        """Return always the same one."""
        return (Instance(),)

    def reload(self, _instance: Instance) -> Verification:
        """Ask for a reload, one at a time."""
        if self._requested is not None and self._requested.under_way:
            raise Held(Trouble.NOT_READY, "the reload before this one has not answered yet")
        self._requested = Requested(self._ask, self._clock, timeout=self._timeout, proof=self._proof("the request"))
        return self._requested

    def verify(self, _instance: Instance) -> Verification:
        """Return the operator's proof, where there is one."""
        return self._proof("the first look") or Confirmed()

    def descriptors(self) -> tuple[int, ...]:
        """Return none."""
        return ()

    def close(self) -> None:
        """Free nothing: what is under way ends in its time."""

    def _proof(self, after: str) -> Probed | None:
        return self._probe and Probed(self._probe, self._clock, within=self._within, after=after)
