"""The page for people, as a browser is given it; how it looks is tests/e2e/test_page.py's."""

import base64
import re
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from reloader.status import Page
from reloader.status.page import GLANCE, REFRESH
from tests.unit.reports import CLOSED, EVERY, GOOD, NASTY, OWED, document_of

VOID = {"meta", "link", "br"}


class Reader(HTMLParser):
    """Reads a page, and knows what belongs to what."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page.decode())
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for each, attributes in self.tags if each == tag]


def page(*reports, whole=None, still=False, **more) -> Reader:
    return Reader(Page().html(document_of(*reports, **more), whole=whole, still=still))


def test_a_pipeline_is_a_line_from_sources_through_volume_to_target():
    text = page(GOOD).text
    places = [
        text.index(word) for word in ("✓ Ready", "web ✓ ready fail-open", "Sources", "site files ✓ current", "Volume", "Target process")
    ]

    assert places == sorted(places)
    assert "generation 7 confirmed pid 42 reloaded 3 min ago" in text
    assert "2027-01-15 08:00:00 UTC" in text
    assert "reloader 1.2.3" in text


def test_what_is_owed_rejected_closed_and_refused_is_told_with_what_to_do():
    text = page(OWED, CLOSED, mistakes=("web.yaml:3:1: taget: unknown key",), stuck=("pipeline web",)).text

    for told in (
        "✕ Not ready: 1 of 2 pipelines",
        "web.yaml:3:1: taget: unknown key",
        "Thread pipeline web is stuck.",
        "✕ reload owed",
        "troubled: pid 42 runs as uid 101",
        "check: nginx.conf:3:1: the key is not its certificate's",
        "What to do mend the value or the template",
        "reloader doctor says what is between this and the target",
        "signal 7 14 times ✕ failed",
        "closed not_ready, withdraw, stop_target",
        "✕ withdrawn",
    ):
        assert told in text


def test_ten_events_and_the_masked_change_are_there():
    read = page(OWED)

    assert len([each for each in read.attributes("li") if each == {}]) >= 10
    assert "Generation 7, 3 min ago: +1 -1 lines. Secrets are masked." in read.text
    assert "+ listen 8080; password ********;" in read.text


def test_it_has_no_script_and_asks_for_nothing_else():
    read = page(*EVERY)

    assert not {"script", "img", "link", "iframe", "form", "object", "svg"} & {tag for tag, _ in read.tags}
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on") or name == "style"]
    assert {each["href"].partition("#")[0] for each in read.attributes("a")} <= {"", "/?still", "/status", "/metrics"}


def test_its_policy_allows_its_own_style_alone():
    made = Page()
    style = re.search(rb"<style>(.*)</style>", made.html(document_of(GOOD)), re.DOTALL).group(1)

    assert f"style-src 'sha256-{base64.b64encode(sha256(style).digest()).decode()}';" in made.policy
    assert made.policy.startswith("default-src 'none';")


def test_hostile_texts_are_text():
    read = page(NASTY)

    assert {tag for tag, _ in read.tags} == {tag for tag, _ in page(OWED).tags}
    assert "<script>alert('x')</script> \"quoted\" & `ticked` \\x1b[2J" in read.text
    assert "\\u202eereh\\u2069 שלום \\ud800 \\x00\\r\\n" in read.text


def test_it_is_loaded_again_by_itself_unless_told_to_stand_still():
    (refresh,) = [each for each in page(GOOD).attributes("meta") if each.get("http-equiv") == "refresh"]

    assert refresh["content"] == str(REFRESH)
    assert not [each for each in page(GOOD, still=True).attributes("meta") if "http-equiv" in each]


def test_a_long_change_is_shown_whole_on_demand_and_that_is_in_the_address():
    """The page loads itself again: what is not in the address would be lost."""
    lines = "".join(f"+line {number} of many\n" for number in range(100))
    long = replace(GOOD, change=replace(GOOD.change, diff=lines))
    at_a_glance, whole = page(long), page(long, whole="web")
    hrefs = [each["href"] for each in at_a_glance.attributes("a")]

    assert f"line {GLANCE - 1} of many" in at_a_glance.text
    assert f"line {GLANCE} of many" not in at_a_glance.text
    assert "/?whole=web#pipeline-1" in hrefs
    assert "line 99 of many" in whole.text
    assert {"/?whole=web&still", "/#pipeline-1"} <= {each["href"] for each in whole.attributes("a")}
    assert {"/?whole=web", "/?still#pipeline-1"} <= {each["href"] for each in page(long, whole="web", still=True).attributes("a")}


def test_several_pipelines_are_told_at_a_glance_first():
    text = page(GOOD, OWED, CLOSED).text

    assert text.index("app ! ready, degraded db ✕ closed web ✓ ready") < text.index("Sources")


@pytest.mark.parametrize("report", EVERY, ids=lambda report: report.name)
def test_it_is_accessible(report):
    read = page(report)
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h\d", tag)]
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]

    assert read.attributes("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in read.attributes("meta")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), "no level is left out"
    assert len(ids) == len(set(ids))
    assert {attributes["aria-labelledby"] for _, attributes in read.tags if "aria-labelledby" in attributes} <= set(ids)
    assert len(read.attributes("main")) == 1
    assert read.attributes("title")
