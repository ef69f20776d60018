"""A pipeline that lays out one file, and sidecars that end with the test."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.sidecar import Sidecar
from tests.kubelet import KubeletVolume
from tests.targets.started import Started


class Starts:
    """Starts sidecars that end with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.started: list[Sidecar] = []

    def __call__(self, *arguments: Path | str, **env: str) -> Sidecar:
        sidecar = Sidecar(self._folder / f"sidecar{len(self.started)}", *arguments, env=env)
        self.started.append(sidecar)
        return sidecar.start()


@contextlib.contextmanager
def starting(folder: Path) -> Iterator[Starts]:
    """Give what starts sidecars, and end them all."""
    starts = Starts(folder)
    try:
        yield starts
    finally:
        for each in starts.started:
            each.stop()


class App:
    """One pipeline that lays out one file, with the text that a mounted directory has."""

    def __init__(self, folder: Path, name: str = "app") -> None:
        self.site = KubeletVolume(folder / f"{name}-site")
        self.live = folder / f"{name}-live"
        self.file = folder / f"{name}.yaml"
        self.say("one")
        self.write()

    def say(self, text: str) -> None:
        self.site.swap({"text": text})

    def write(self, **changes: str) -> None:
        """Write the configuration; `changes` are keys of it, or `reads` and `content` in place of what is usual."""
        reads = changes.pop("reads", f"{{kind: files, path: {self.site.path}}}")
        content = json.dumps(changes.pop("content", "{{ site['text'] }}"))
        keys = {
            "sources": f"{{site: {reads}}}",
            "volume": f"{{path: {self.live}, files: {{app.conf: {{content: {content}}}}}}}",
            "target": "{kind: none}",
            "timing": "{min_interval: 0s}",
        } | changes
        self.file.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))

    def published(self) -> str | None:
        file = self.live / "app.conf"
        return file.read_text() if file.exists() else None


def process(name: str, **more: str) -> str:
    """Return the configuration of a target that is the process of that name."""
    given = {"match": f"{{name: {name}}}", "verify": "{alive: true, within: 100ms}"} | more
    return "{" + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}"


def heard(target: Started) -> str:
    """Return what a target said next."""
    return " ".join(target.hear(""))
