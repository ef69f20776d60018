"""A fleet against one Vault, in virtual time and with the product's own schedule: what it asks for, and what docs/scale.md says of that."""

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.fleet.house import Fleet, Size
from benchmarks.fleet.scenarios import ALL, DAY, POLL, ROLLOUT, SPLAY, outage
from benchmarks.fleet.server import NOBODY
from reloader.backends.vault import Secret
from reloader.schedule import PATIENCE, Backoff
from tests.scale import rounds
from tests.unit.test_docs import ROOT, rows, section

pytestmark = pytest.mark.timeout(1800)

OF_THE_PAGE = 10_000
SIDECARS = rounds(500, OF_THE_PAGE)
STEADY = "steady, requests a second"
PAGE = "docs/scale.md"


def figures_of(name: str) -> Mapping[str, float]:
    """Run a scenario, see that the page tells its figures, and return them."""
    figures = ALL[name](Size(sidecars=SIDECARS, seed=1)).figures
    told = {what: float(value.replace(",", "")) for scenario, what, value in rows(section(PAGE, "The figures")) if scenario == f"`{name}`"}
    assert told.keys() <= figures.keys()
    assert figures.keys() - told.keys() <= {STEADY}
    if SIDECARS == OF_THE_PAGE:
        assert told == pytest.approx({what: figures[what] for what in told}, rel=0.15, abs=0.1)
    return figures


def promised_after_an_outage(figures: Mapping[str, float]) -> bool:
    """Return whether the peak is twice the steady load at most, and everybody has what changed within three intervals."""
    return (
        figures["peak once it is back, x steady"] <= 2
        and figures["have the change, %"] == 100
        and figures["the last has it after, intervals"] <= 3
        and figures["requests without an answer in 10 s"] == 0
    )


def test_after_an_outage_the_load_is_at_most_doubled_and_all_are_back_within_three_intervals():
    """And before it the fleet is spread evenly."""
    figures = figures_of("outage")
    assert promised_after_an_outage(figures), figures
    assert figures["peak in quiet times, x steady"] <= 1.25


@pytest.mark.parametrize(("sidecars", "poll", "secrets"), [(400, 30.0, 3), (300, 300.0, 1)])
def test_so_it_is_whatever_is_polled(sidecars, poll, secrets):
    """After an outage of several intervals; small fleets against a server that is quick all the same."""
    size = Size(sidecars=rounds(sidecars, 10 * sidecars), seed=2, capacity=100)
    figures = outage(size, poll=poll, secrets=secrets, lasts=max(300.0, 4 * poll), lifetime=DAY).figures
    assert promised_after_an_outage(figures), figures


def test_the_promise_needs_patience(monkeypatch):
    """With the same longest wait for all, those who poll rarely come back as a herd: the simulation would tell."""
    monkeypatch.setattr("reloader.schedule.PATIENCE", 0.0)
    run = outage(Size(sidecars=100, seed=2, capacity=100), poll=300.0, lasts=1200.0, lifetime=DAY)
    assert run.figures["peak once it is back, x steady"] > 4


def test_a_short_outage_ends_more_sharply_and_everybody_is_answered():
    figures = figures_of("restart")
    assert figures["peak once it is back, x steady"] <= 6
    assert figures["requests without an answer in 10 s"] == 0


def test_a_rollout_is_no_herd():
    """Each sidecar has its value right after its start, and polls anywhere in the interval from then on."""
    figures = figures_of("rollout")
    assert figures["peak, x steady"] <= 2
    assert figures["peak one interval after the last start or later, x steady"] <= 1.25
    assert figures["have their value, %"] == 100
    assert figures["the last has it after the last start, s"] < 1
    assert figures["requests without an answer in 10 s"] == 0


def test_even_a_crowd_is_served_in_the_end():
    """Though a server that is asked for far more than it can do in the deadline of a request does most of it in vain."""
    figures = figures_of("crowd")
    assert figures["requests without an answer in 10 s"] > 0
    assert figures["have their value, %"] == 100


def test_a_change_for_all_is_asked_for_within_an_interval_and_reloads_are_splayed():
    figures = figures_of("change")
    assert figures["peak of requests, x steady"] <= 2.4  # twice on average: each poll that finds a new version reads it
    assert figures["the last sees it after, s"] <= 1.1 * POLL + 1
    assert figures["the last reloads after, s"] <= 1.1 * POLL + SPLAY + 1
    assert figures["peak of reloads, a second"] <= 1.5 * SIDECARS / SPLAY
    assert figures["peak of reloads, a second"] < figures["peak of reloads without splay, a second"]


def test_what_was_issued_together_drifts_apart():
    """Over a tenth of its life at first, and more each time."""
    figures = figures_of("certificates")
    for kind in ("certificate issued", "lease renewed", "token renewed"):
        first, *later = (figures[f"{kind}, peak of round {number}, a minute"] for number in (1, 2, 3))
        assert first <= 1.25 * SIDECARS / (0.1 * DAY) * 60
        assert first <= figures["first issues, a minute"] / 10
        assert all(after <= before for before, after in pairwise([first, *later]))


def test_while_the_server_is_down_it_is_asked_less_than_on_a_quiet_day():
    """Once the first half minute is over, in which each tries a few times."""
    fleet = Fleet(Size(sidecars=50, seed=3), [Secret("secret/app/0", poll=POLL)], lifetime=DAY)
    fleet.start(6 * POLL)
    began = fleet.clock.now()
    fleet.server.down = True
    fleet.run(began + 3600)
    rate = sum(at > began + 300 for at in fleet.server.asked[NOBODY]) / 3300
    assert rate == pytest.approx(50 / (0.55 * PATIENCE * POLL), rel=0.05)
    assert rate < fleet.steady


def test_a_server_that_answers_nobody_in_time_is_left_alone_too():
    """Then each read has a backoff of its own."""
    fleet = Fleet(Size(sidecars=1, seed=4, capacity=1e-6), [Secret("secret/app/0", poll=300.0)])
    fleet.start(1.0)
    fleet.run(5_000)
    asked = sorted(at for times in fleet.server.asked.values() for at in times)
    backoff = Backoff()  # for as long as there never was an answer
    waits = [later - earlier - 10 for earlier, later in pairwise(asked)]
    assert len(waits) > 100
    assert all(backoff.floor(n) - 1e-6 <= wait <= backoff.ceiling(n) + 1e-6 for n, wait in enumerate(waits, 1))


def test_the_same_seed_gives_the_same_run():
    one, same, other = (outage(Size(sidecars=30, seed=seed)).chart.svg() for seed in (5, 5, 6))
    assert one == same
    assert one != other


def test_every_picture_is_on_the_page_and_follows_light_and_dark():
    shown = re.findall(r"!\[[^\]]+\]\((img/[\w-]+\.svg)\)", (ROOT / PAGE).read_text(encoding="utf-8"))
    assert sorted(shown) == [f"img/fleet-{name}.svg" for name in sorted(ALL)]
    for name in shown:
        picture = Path(ROOT / "docs" / name).read_text(encoding="utf-8")
        assert ET.fromstring(picture).tag.endswith("svg")
        assert "prefers-color-scheme: dark" in picture


def test_the_rollout_of_the_page_is_the_one_of_the_simulation():
    assert ROLLOUT == 300
    assert "five minutes" in section(PAGE, "A rollout")
