"""What happens to the fleet: each scenario is one run, with what was measured and the picture of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.fleet.drawing import Chart, Line
from benchmarks.fleet.house import Fleet, Size, rates
from benchmarks.fleet.server import NOBODY
from reloader.backends.vault import Secret, Write
from reloader.plan import Timing

POLL = 30.0
"""Seconds: the default of `sources.NAME.poll`."""
OUTAGE, RESTART = 300.0, 15.0
ROLLOUT, CROWD = 300.0, 1.0
SPLAY = 60.0
DAYS, DAY, HOUR, MINUTE = 4, 86400.0, 3600.0, 60.0
TOGETHER = 600.0
"""Within how many seconds certificates are issued for the first time."""
STARTS = ("login", "mount", "secret", "rights")
"""What a start asks for, beside polls."""


@dataclass(frozen=True)
class Measured:
    """One run."""

    about: str
    figures: Mapping[str, float]
    chart: Chart


def outage(size: Size, *, poll: float = POLL, secrets: int = 1, lasts: float = OUTAGE, lifetime: float = HOUR) -> Measured:
    """Every secret changes while the server is away for five minutes."""
    fleet = Fleet(size, [Secret(f"secret/app/{number}", poll=poll) for number in range(secrets)], lifetime=lifetime)
    _settle(fleet, poll)
    down, up = fleet.clock.now(), fleet.clock.now() + lasts
    end = up + 6 * poll
    fleet.server.version = 2
    _without_server(fleet, until=up)
    fleet.run(end)
    seen = fleet.arrivals[2].seen
    figures = {
        **_peaks(fleet, down - 3 * poll, down, up, end),
        "have the change, %": 100 * len(seen) / size.sidecars,
        "the last has it after, intervals": (max(seen) - up) / poll,
        **_answers(fleet),
    }
    come = [(at, share * fleet.steady) for at, share in _come(seen, up, end, fleet.window, size.sidecars)]
    lines = [*_requests(fleet, down - 2 * poll, end), Line("sidecars that have the change, all of them at 1 x steady", come)]
    about = f"the server is away for {lasts / MINUTE:g} min, and every secret changes meanwhile"
    return Measured(about, figures, _outage_chart(fleet, lines, down, up))


def restart(size: Size) -> Measured:
    """The server is away for a quarter of a minute."""
    fleet = Fleet(size, [Secret("secret/app/0", poll=POLL)])
    _settle(fleet)
    down, up = fleet.clock.now(), fleet.clock.now() + RESTART
    end = up + 3 * POLL
    _without_server(fleet, until=up)
    fleet.run(end)
    lines = _requests(fleet, down - POLL, end)
    about = f"the server is away for {RESTART:g} s, and nothing changes"
    return Measured(about, {**_peaks(fleet, down - 3 * POLL, down, up, end), **_answers(fleet)}, _outage_chart(fleet, lines, down, up))


def rollout(size: Size) -> Measured:
    """All sidecars start within five minutes."""
    return _starts(size, ROLLOUT, end=ROLLOUT + 6 * POLL)


def crowd(size: Size) -> Measured:
    """All sidecars start in one second, as after a power cut."""
    return _starts(size, CROWD, end=16 * POLL)


def change(size: Size) -> Measured:
    """A secret that all sidecars read changes."""
    fleet = Fleet(size, [Secret("secret/app/0", poll=POLL)], timing=Timing(splay=SPLAY))
    _settle(fleet)
    at = fleet.clock.now()
    begin, end = at - POLL, at + 4 * POLL
    fleet.server.version = 2
    fleet.run(end)
    arrivals = fleet.arrivals[2]
    reloads, at_once = (rates(times, begin, end, fleet.window) for times in (arrivals.reloads, arrivals.seen))
    figures = {
        "steady, requests a second": fleet.steady,
        "peak of requests, x steady": fleet.peak(at, end) / fleet.steady,
        "the last sees it after, s": max(arrivals.seen) - at,
        "the last reloads after, s": max(arrivals.reloads) - at,
        "peak of reloads, a second": max(rate for _, rate in reloads),
        "peak of reloads without splay, a second": max(rate for _, rate in at_once),
    }
    lines = [Line("requests", fleet.rates(begin, end)), Line(f"reloads, splay: {SPLAY:g}s", reloads), Line("reloads, splay: 0s", at_once)]
    chart = Chart("One change for all", "a second", lines, levels=_levels(fleet), zero=at)
    return Measured("a secret that all read changes", figures, chart)


def certificates(size: Size) -> Measured:
    """Certificates, database users and tokens, each for a day, all had within ten minutes; four days."""
    fleet = Fleet(size, [Write("pki/issue/web", "{}"), Secret("database/creds/app")], lifetime=DAY)
    fleet.start(TOGETHER)
    fleet.run(DAYS * DAY)
    kinds = {"certificate issued": 0.9, "lease renewed": 0.65, "token renewed": 0.65}
    figures = {"first issues, a minute": size.sidecars / TOGETHER * MINUTE}
    lines = []
    for kind, share in kinds.items():
        points = [(at, rate * MINUTE) for at, rate in fleet.rates(TOGETHER, DAYS * DAY, kind, window=HOUR / 3)]
        lines.append(Line(kind, points))
        for number in (1, 2, 3):
            begin, finish = (number - 0.5) * share * DAY, (number + 0.5) * share * DAY
            figures[f"{kind}, peak of round {number}, a minute"] = max(rate for at, rate in points if begin <= at < finish)
        figures[f"{kind}, mean, a minute"] = size.sidecars / (share * DAY) * MINUTE
    chart = Chart("Had within ten minutes, each good for a day", "a minute", lines, hours=True)
    return Measured("certificates, database users and tokens for a day each, had within ten minutes", figures, chart)


def _settle(fleet: Fleet, poll: float = POLL) -> None:
    """Start a fleet, and let it be at rest for a while."""
    fleet.start(6 * poll)
    fleet.run(10 * poll)


def _without_server(fleet: Fleet, *, until: float) -> None:
    fleet.server.down = True
    fleet.run(until)
    fleet.server.down = False


def _peaks(fleet: Fleet, quiet: float, down: float, up: float, end: float) -> dict[str, float]:
    return {
        "steady, requests a second": fleet.steady,
        "peak in quiet times, x steady": fleet.peak(quiet, down) / fleet.steady,
        "peak of requests that find nobody, x steady": fleet.peak(down, up) / fleet.steady,
        "peak once it is back, x steady": fleet.peak(up, end) / fleet.steady,
    }


def _requests(fleet: Fleet, begin: float, end: float) -> list[Line]:
    answered = [kind for kind in fleet.server.asked if kind != NOBODY]
    return [Line("requests", fleet.rates(begin, end, *answered)), Line("requests that find nobody", fleet.rates(begin, end, NOBODY))]


def _answers(fleet: Fleet) -> dict[str, float]:
    return {"longest wait for an answer, s": fleet.server.longest_wait, "requests without an answer in 10 s": fleet.server.given_up}


def _outage_chart(fleet: Fleet, lines: Sequence[Line], down: float, up: float) -> Chart:
    title = f"{(up - down) / MINUTE:g} min without the server"
    return Chart(title, "requests a second", lines, shaded=[(down, up, "no server")], levels=_levels(fleet), zero=up)


def _starts(size: Size, over: float, *, end: float) -> Measured:
    fleet = Fleet(size, [Secret("secret/app/0", poll=POLL)])
    fleet.start(over)
    fleet.run(end)
    seen = fleet.arrivals[1].seen
    figures = {
        "steady, requests a second": fleet.steady,
        "peak, x steady": fleet.peak(0, end) / fleet.steady,
        "peak one interval after the last start or later, x steady": fleet.peak(over + POLL, end) / fleet.steady,
        "have their value, %": 100 * len(seen) / size.sidecars,
        "the last has it after the last start, s": max(seen) - over,
        **_answers(fleet),
    }
    lines = [Line("requests", fleet.rates(0, end)), Line("of these what a start costs beside its polls", fleet.rates(0, end, *STARTS))]
    chart = Chart(f"All start within {over:g} s", "requests a second", lines, shaded=[(0, over, "starts")], levels=_levels(fleet))
    return Measured(f"all sidecars start within {over:g} s", figures, chart)


def _levels(fleet: Fleet) -> list[tuple[float, str]]:
    return [(fleet.steady, "steady"), (2 * fleet.steady, "2 x steady")]


def _come(times: Sequence[float], begin: float, end: float, window: float, of: int) -> list[tuple[float, float]]:
    """Return which share had come by when."""
    come, shares = 0.0, []
    for at, rate in rates(times, begin, end, window):
        come += rate * window
        shares.append((at + window / 2, come / of))
    return shares


ALL: Mapping[str, Callable[[Size], Measured]] = {
    "outage": outage,
    "restart": restart,
    "rollout": rollout,
    "crowd": crowd,
    "change": change,
    "certificates": certificates,
}
