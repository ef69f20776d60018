"""A target that is asked by HTTP: what it refuses is taken back, and what it cannot be asked stays owed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.sidecar import Sidecar
from tests.kubelet import KubeletVolume
from tests.servers.misbehaving import Exchange, Misbehaving, cut, misbehaving
from tests.waiting import eventually

CONFIGURATION = """
sources:
  site: {{kind: files, path: {site}}}
volume:
  path: {live}
  files:
    app.conf: {{content: "{{{{ site.text }}}}"}}
target: {{kind: http, url: '{address}/-/reload'}}
timing: {{min_interval: 0s}}
failure: {{retry_refused: never}}
"""


class Pod:
    """A mounted directory, a server that takes no content with `bad` in it, and the sidecar."""

    def __init__(self, folder: Path, server: Misbehaving) -> None:
        self.live, self.site, self.server = folder / "live", KubeletVolume(folder / "site"), server
        self.site.swap({"text": "good-1"})
        server.behave = self.take
        self.taken: list[str] = []
        configuration = folder / "app.yaml"
        configuration.write_text(CONFIGURATION.format(site=self.site.path, live=self.live, address=server.address))
        self.sidecar = Sidecar(folder / "sidecar", configuration)

    def take(self, exchange: Exchange) -> None:
        self.taken.append(self.published())
        exchange.answer("", status=500 if "bad" in self.taken[-1] else 200)

    def published(self) -> str:
        return (self.live / "app.conf").read_text()


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with misbehaving(cut) as server:
        pod = Pod(tmp_path, server)
        pod.sidecar.start()
        yield pod
        pod.sidecar.stop()


def test_a_refused_set_is_taken_back_and_the_next_one_goes_through(pod):
    eventually(pod.sidecar.settled)
    pod.site.swap({"text": "bad"})
    eventually(lambda: pod.taken == ["good-1", "bad", "good-1"], what="the set before is asked for again")
    assert pod.published() == "good-1"

    pod.site.swap({"text": "good-2"})

    eventually(lambda: pod.published() == "good-2" and pod.sidecar.settled())
    assert pod.taken == ["good-1", "bad", "good-1", "good-2"]


def test_while_it_gives_no_answer_the_newest_set_is_published_and_owed(pod):
    eventually(pod.sidecar.settled)
    pod.server.behave = cut
    pod.site.swap({"text": "good-2"})
    eventually(lambda: "target.url" in str(pod.sidecar.pipeline()), what="why it is owed")
    pod.site.swap({"text": "good-3"})
    eventually(lambda: pod.published() == "good-3", what="it waits for no answer")
    assert not pod.sidecar.settled()

    pod.server.behave = pod.take

    eventually(pod.sidecar.settled)
    assert pod.taken == ["good-1", "good-3"]
