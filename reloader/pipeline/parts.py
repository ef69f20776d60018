"""What a pipeline is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from reloader.pipeline.intake import Intake
from reloader.pipeline.turnstile import Turnstile
from reloader.plan import Pipeline as Plan
from reloader.snapshot import Mailbox
from reloader.status import Metrics, Status
from reloader.targets import Target
from reloader.traces import Take
from reloader.volume import Mounted, Volume
from reloader.world import World


@dataclass(frozen=True)
class Parts:
    """All of it; what has a default is shared with others, or told to them."""

    plan: Plan
    mailbox: Mailbox
    volume: Volume | Mounted
    target: Target
    status: Status
    metrics: Metrics
    world: World
    look: Callable[[], None] = lambda: None
    """Ask the directories for a look."""
    turnstile: Turnstile = field(default_factory=Turnstile)
    intake: Intake | None = None
    """Where the readings come in, if any of them is guarded."""
    confirmed: Callable[[Mapping[str, float]], None] = lambda _at: None
    """Told, by source, when the reading came on which the target runs."""
    trace: Take | None = None
    """Takes each change when it has ended; None where nobody wants to see them."""
    leave: Callable[[], None] = lambda: None
    """Have the whole process leave with status 1, as `exit` in `when_closed` says."""
