"""What proves a reload by being asked, over and over until it says yes."""

from reloader.plan import Verify
from reloader.targets import Judgement, Verdict
from reloader.targets._asking import Ask, Attempt, Said
from reloader.targets._probes import command, http
from reloader.targets._proofs import Life, ended, pace
from reloader.world import World
from reloader.world.clock import Clock

_PAUSE = (0.02, 0.5)
"""How long after an answer it is asked again, at least and at most: densely at first."""


def probe_of(verify: Verify, world: World) -> Ask | None:
    """Return what asks for the operator's proof; None where it is none that is asked."""
    if verify.http is not None:
        url, key = verify.http, "target.verify.http"
        return http(world, url, key=key, tls=verify.tls, status=verify.status, body=verify.body, json=verify.json)
    if verify.command is not None:
        return command(world.children, verify.command, key="target.verify.command")
    return None


class Probed:
    """It says so itself, or a command says it. Of a process, it has to live as well."""

    def __init__(self, ask: Ask, clock: Clock, *, within: float, after: str, life: Life | None = None) -> None:
        self.proves_completion = True
        self._ask = ask
        self._clock = clock
        self._within = within
        self._life = life
        self._after = after
        self._attempt: Attempt | None = None
        self._since: float | None = None
        self._again = 0.0
        self._no = ""
        self._nothing = ""
        self._unanswered = ""

    def judge(self) -> Judgement:
        """Return what is known now; what got no answer stays unknown until there is one, and newer content does not wait for it."""
        if self._life is not None and self._life.ended:
            return Judgement(verdict=Verdict.ENDED, reason=ended(self._life, self._within, self._after))
        now = self._clock.now()
        if self._since is None:
            self._since, self._no, self._nothing = now, "", ""
        if self._says_yes(now, now - self._since):
            return Judgement(verdict=Verdict.CONFIRMED)
        if now >= self._since + self._within:
            return self._over()
        if self._attempt is None and now >= self._again:
            self._attempt = Attempt(self._ask, self._since + self._within - now)
        if self._unanswered:
            return Judgement(verdict=Verdict.UNKNOWN, reason=self._unanswered)
        return Judgement(verdict=Verdict.PENDING, look_at=min(self._since + self._within, now + pace(now - self._since)))

    def _says_yes(self, now: float, after: float) -> bool:
        answer = self._attempt.answer if self._attempt else None
        if answer is None:
            return False
        self._attempt = None
        least, most = _PAUSE
        self._again = now + min(most, max(least, after / 4))
        if answer.said is Said.NO:
            if self._unanswered:  # from its first answer on it has its whole time
                self._since, self._unanswered = now, ""
            self._no = answer.reason
        elif answer.said is Said.NOTHING:
            self._nothing = answer.reason
        return answer.said is Said.YES

    def _over(self) -> Judgement:
        """Return the verdict at the end of the time; without any answer it begins anew with the next look."""
        if self._no:
            return Judgement(verdict=Verdict.REFUSED, reason=f"{self._no}, {self._within:g} s after {self._after}")
        self.proves_completion = False
        self._since = None
        self._unanswered = self._nothing or f"no answer within {self._within:g} s"
        return Judgement(verdict=Verdict.UNKNOWN, reason=self._unanswered)
