"""The page of a running sidecar in a real browser: on a phone and on a desk, by day and by night.

With `PICTURES=DIR` in the environment each test leaves its screenshots there, for a person to look at.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reloader.plan import Server as Plan
from reloader.server import Endpoints, Server
from reloader.status import Metrics, Status
from tests.e2e.sidecar import Sidecar
from tests.servers.browser import Browser
from tests.unit.reports import EVERY, status_of
from tests.waiting import eventually

pytestmark = pytest.mark.servers

SIZES = {"phone": (390, 844), "desk": (1280, 800)}
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'<!--" + "x" * 150

# Of each text its contrast with what is behind it, as WCAG 2 counts it; transparent grounds are looked through.
CONTRAST = """(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    const found = parts(getComputedStyle(element).backgroundColor);
    return found.length < 4 || found[3] > 0 ? found : ground(element.parentElement);
  };
  const poor = [];
  for (const element of document.body.querySelectorAll("*")) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${element.className} ${element.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()"""

# What sticks out of the window to the side, though the window itself may cut it off.
OUTSIDE = """[...document.body.querySelectorAll("*")].filter(element => {
  const { left, right } = element.getBoundingClientRect();
  const hides = element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline";
  return left < -0.5 || right > innerWidth + 0.5 || hides;
}).map(element => `${element.tagName} ${element.className} ${element.textContent.slice(0, 30)}`)"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes the configuration of a pipeline without a target."""

    def write(name: str, path: object, **more: str) -> Path:
        file = tmp_path / f"{name}.yaml"
        keys = {"sources": f"{{site: {{kind: files, path: {json.dumps(str(path))}}}}}", "target": "{kind: none}", **more}
        file.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
        return file

    return write


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "app.conf").write_text("greeting = hello\n")
    return tmp_path / "site"


@pytest.fixture
def sidecar(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Sidecar]:
    def start(*files: Path) -> Sidecar:
        running = Sidecar(tmp_path, *files)
        request.addfinalizer(running.stop)
        return running.start()

    return start


@pytest.fixture
def look(browser: Browser, request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Looks at the page on a port at every size and in both schemes, and judges what holds for whatever it shows."""

    def look(port: int) -> None:
        for name, (width, height) in SIZES.items():
            for dark in (False, True):
                where = f"{request.node.name}-{name}-{'dark' if dark else 'light'}"
                assert browser.show(f"http://127.0.0.1:{port}/", width=width, height=height, dark=dark) == 200, where
                picture(browser, where)
                assert browser.look("document.documentElement.scrollWidth") == width, where
                assert browser.look(OUTSIDE) == [], where
                assert browser.look(CONTRAST) == [], where
                assert browser.complaints() == [], "its own policy lets it be drawn as it is meant to"

    return look


def picture(browser: Browser, name: str) -> None:
    folder = os.environ.get("PICTURES")
    if folder:
        browser.photograph(Path(folder) / f"{name.replace('/', '-')}.png")


def test_a_healthy_pipeline_is_seen_at_a_glance(browser, look, sidecar, write, site, tmp_path):
    """On a phone the verdict and the whole line fit the first window."""
    files = "{path: %s, files: {app.conf: {copy: site}}}" % (tmp_path / "live")
    running = sidecar(write("app", site / "app.conf", volume=files))
    eventually(running.settled, what="the first publish")
    look(running.port)

    browser.show(f"http://127.0.0.1:{running.port}/", width=390, height=844)
    told = browser.look("document.body.innerText")
    assert [told.find(word) >= 0 for word in ("Ready", "app", "Sources", "current", "Volume", "generation 1", "Target")] == [True] * 7
    assert browser.look("document.querySelector('.flow').getBoundingClientRect().bottom <= innerHeight")
    assert browser.look("document.title") == "Ready - reloader"


def test_what_is_wrong_is_seen_at_a_glance(browser, look, sidecar, write, site):
    """A source that is not there, a closed pipeline, a refused configuration; the first window has the verdict of each."""
    app = write("app", site)
    closed = write("shut", "/nowhere", failure="{mode: closed, startup_grace: 0s}")
    running = sidecar(app, closed)
    eventually(lambda: running.pipeline("shut")["closed"], what="the pipeline to close")
    app.write_text(app.read_text() + "taget: {kind: none}\n")
    eventually(lambda: running.get("/status").json()["configuration"]["mistakes"], what="the configuration to be refused")
    look(running.port)

    browser.show(f"http://127.0.0.1:{running.port}/", width=390, height=844)
    first = "[...document.querySelectorAll('h1, h2, nav li')].filter(each => each.getBoundingClientRect().bottom < innerHeight)"
    seen = browser.look(f"{first}.map(each => each.innerText).join()")
    for told in ("Not ready: 1 of 2 pipelines", "configuration refused", "app", "shut", "closed"):
        assert told in seen
    whole = browser.look("document.body.innerText")
    assert "taget: unknown key" in whole
    assert "/nowhere does not exist" in whole


def test_it_is_read_aloud_without_its_marks(browser, sidecar, write, site):
    running = sidecar(write("app", site))
    eventually(running.ready, what="readiness")
    browser.show(f"http://127.0.0.1:{running.port}/", width=390, height=844)
    heard = browser.heard()
    for heading in ("Ready", "app ready fail-open", "Sources", "site files", "Volume", "Target none"):
        assert f"heading: {heading}" in heard
    assert not [each for each in heard if any(mark in each for mark in "✓✕↓→")]


def test_what_somebody_wrote_into_a_path_is_text(browser, look, sidecar, write, tmp_path):
    running = sidecar(write("app", tmp_path / HOSTILE))
    eventually(lambda: running.pipeline()["sources"][0]["failure"], what="the failure")
    look(running.port)

    assert browser.look("document.title") == "Not ready - reloader"
    assert HOSTILE in browser.look("document.body.innerText")


def test_it_loads_itself_again_shows_what_is_new_and_stays_where_it_is(browser, sidecar, write, site):
    running = sidecar(write("app", site))
    eventually(running.settled, what="the first generation")
    browser.show(f"http://127.0.0.1:{running.port}/", width=390, height=300)
    browser.look("scrollTo(0, 200)")
    assert browser.look("[scrollY, document.body.innerText.includes('generation 2')]") == [200, False]

    (site / "app.conf").write_text("greeting = good morning\n")
    eventually(lambda: running.settled() and running.pipeline()["generations"]["published"] == 2, what="the second generation")

    seen = "[scrollY, document.body.innerText.includes('generation 2')]"
    eventually(lambda: browser.look(seen) == [200, True], what="the page to show it, where it was scrolled to")


@pytest.fixture
def serving(status: Status) -> Iterator[Server]:
    server = Server(Plan(listen="127.0.0.1:0"), Endpoints(status, Metrics(status, "1"), "loopback"))
    server.start()
    yield server
    server.close()


@pytest.fixture
def status() -> Status:
    return status_of(*EVERY, mistakes=("/etc/reloader/web.yaml:12:3: target.mtach: unknown key 'mtach'",), stuck=("pipeline web",))


def test_everything_that_can_be_told_fits(look, serving):
    """All at once, also what takes hours or several servers to come about."""
    look(serving.port)
