"""An inbox that keeps what backends deliver."""

from collections.abc import Callable, Mapping
from typing import Any

from reloader.snapshot import Outcome, Reading
from tests.waiting import eventually


class Recorder:
    """Keeps every outcome in order; chokes on the value that it is told to."""

    def __init__(self, chokes_on: Any = None, error: Exception | None = None) -> None:
        self.got: list[tuple[str, Outcome]] = []
        self._chokes_on = chokes_on
        self._error = error

    def put(self, outcomes: Mapping[str, Outcome]) -> None:
        for name, outcome in outcomes.items():
            if self._error is not None and isinstance(outcome, Reading) and outcome.value == self._chokes_on:
                raise self._error
            self.got.append((name, outcome))

    @property
    def latest(self) -> Any:
        """The last value, or the last failure itself."""
        outcome = self.got[-1][1]
        return outcome.value if isinstance(outcome, Reading) else outcome

    @property
    def readings(self) -> list[Reading]:
        return [outcome for _, outcome in self.got if isinstance(outcome, Reading)]

    @property
    def values(self) -> list[Any]:
        return [reading.value for reading in self.readings]

    @property
    def failures(self) -> list[Any]:
        return [outcome for _, outcome in self.got if not isinstance(outcome, Reading)]

    def reading(self, holds: Callable[[Reading], object] = lambda _reading: True) -> Reading:
        """Return the latest outcome once it is a reading for which that holds."""
        return eventually(lambda: isinstance(latest := self.got[-1][1], Reading) and holds(latest) and latest, within=20, what="a reading")
