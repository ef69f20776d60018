"""Whether a process is ready for its first signal, where its signal mask cannot tell."""

from collections.abc import Iterator

from reloader.plan import Tls
from reloader.targets._asking import Answer, Ask, Attempt, Said
from reloader.targets._probes import file, http, tcp
from reloader.world import World
from reloader.written import HostPort, Url, plain

TIMEOUT = 1.0
"""How many seconds one question may take."""


@plain
class Ready:
    """What it answers once it is ready; exactly one."""

    http: Url | None = None
    """An address that answers with status 200."""
    tls: Tls = Tls()
    tcp: HostPort | None = None
    """A port that takes connections."""
    file: str | None = None
    """A file that it writes when it is ready."""

    def __str__(self) -> str:
        given = {"http": self.http, "tcp": self.tcp, "file": self.file}
        return ", ".join(f"{key} {value!r}" for key, value in given.items() if value is not None)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong between the keys."""
        given = [name for name in ("http", "tcp", "file") if getattr(self, name) is not None]
        if len(given) != 1:
            yield "ready", "expected one of http, tcp and file" + (f", not {' and '.join(given)}" if given else "")
        if self.http is None and self.tls != Tls():
            yield "ready.tls", "expected only beside http, whose server it is about"
        yield from ((f"ready.{key}", message) for key, message in self.tls.mistakes(self.http))


class Readiness:
    """Asks one process until it answered once; from then on it has its handlers."""

    def __init__(self, ready: Ready, world: World, *, started: float) -> None:
        self._ask = _question(ready, world, started)
        self._attempt = Attempt(self._ask, TIMEOUT)
        self._ready = False

    def lacking(self) -> str:
        """Return why it is not known to be ready, or nothing; asks again for the next time."""
        answer = self._attempt.answer
        if self._ready or answer is None:
            return "" if self._ready else "no answer yet"
        self._ready = answer.said is Said.YES
        if not self._ready:
            self._attempt = Attempt(self._ask, TIMEOUT)
        return answer.reason


def _question(ready: Ready, world: World, started: float) -> Ask:
    if ready.http is not None:
        return http(world, ready.http, key="target.ready.http", tls=ready.tls)
    if ready.tcp is not None:
        return tcp(ready.tcp)
    if ready.file is not None:
        return file(ready.file, world.clock, started=started)
    return lambda _seconds: Answer(said=Said.YES)
