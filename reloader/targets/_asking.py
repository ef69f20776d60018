"""What takes its time is asked on a thread of its own; the pipeline only looks whether there is an answer."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from reloader.targets import Judgement, Verdict, Verification
from reloader.targets._proofs import Confirmed, pace
from reloader.world.clock import Clock

OVERDUE = 1.0
"""How many seconds an answer may be later than its time: the lookup of a host name knows no deadline."""


class Said(StrEnum):
    """What came of asking."""

    YES = "yes"
    NO = "no"
    NOTHING = "nothing"
    """It could not be asked, or gave no answer at all."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was said, and why that is no yes."""

    said: Said
    reason: str = ""
    asked: bool = True
    """Whether what was asked may have got there."""


Ask = Callable[[float], Answer]
"""Asks once, and returns the answer within that many seconds."""


class Attempt:
    """Asks once, on a thread of its own."""

    def __init__(self, ask: Ask, seconds: float) -> None:
        self.answer: Answer | None = None
        """What was answered, as soon as that is known."""
        try:
            threading.Thread(target=self._run, args=(ask, seconds), name="asking", daemon=True).start()
        except RuntimeError:
            self.answer = Answer(said=Said.NOTHING, reason="this container may start no more threads", asked=False)

    def _run(self, ask: Ask, seconds: float) -> None:
        try:
            self.answer = ask(seconds)
        except Exception as error:  # noqa: BLE001 - who waits for an answer gets one; the text may quote what was received
            self.answer = Answer(said=Said.NOTHING, reason=f"asking failed ({type(error).__name__})")


class Requested:
    """A reload that is asked for by a request or a command, which is asked again until there is an answer."""

    def __init__(self, ask: Ask, clock: Clock, *, timeout: float, proof: Verification | None) -> None:
        self.proves_completion = True
        self._ask = ask
        self._clock = clock
        self._timeout = timeout
        self._proof = proof
        self._taken: Verification | None = None
        self._unanswered = ""
        self._begin()

    @property
    def under_way(self) -> bool:
        """Return whether it may be reloading just now."""
        return self._attempt is not None and self._attempt.answer is None

    def judge(self) -> Judgement:
        """Return what is known now; what got no answer stays unknown until there is one."""
        if self._taken is None:
            if self._attempt is None:
                self._begin()
            elif (answer := self._attempt.answer) is not None:
                return self._judge(answer)
            return self._waiting(self._clock.now())
        judgement = self._taken.judge()
        self.proves_completion = self._taken.proves_completion
        return judgement

    def _begin(self) -> None:
        self.proves_completion = True
        self._since = self._clock.now()
        self._attempt: Attempt | None = Attempt(self._ask, self._timeout)

    def _waiting(self, now: float) -> Judgement:
        if now >= self._since + self._timeout + OVERDUE:
            self.proves_completion = False
            self._unanswered = f"no answer within {self._timeout:g} s"
        if self._unanswered:
            return Judgement(verdict=Verdict.UNKNOWN, reason=self._unanswered)
        return Judgement(verdict=Verdict.PENDING, look_at=now + pace(now - self._since))

    def _judge(self, answer: Answer) -> Judgement:
        if answer.said is Said.NO:
            return Judgement(verdict=Verdict.REFUSED, reason=answer.reason)
        # What may have got there is not repeated where there is another way to learn whether it did.
        if answer.said is Said.YES or (answer.asked and self._proof is not None):
            self._taken = self._proof or Confirmed()
            return self.judge()
        self._attempt = None
        self.proves_completion = False
        self._unanswered = answer.reason
        return Judgement(verdict=Verdict.UNKNOWN, reason=answer.reason)
