"""The image that the repository's Dockerfile makes, in a container of its own, with all taken from it that it can do without."""

import json
import os
import stat
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

import reloader
from tests.servers.podman import Podman
from tests.unit.test_requirements import pins
from tests.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]
BARE = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--init=false")
NO_SHELL = tuple(f"--volume=/dev/null:/usr/bin/{shell}:ro" for shell in ("dash", "bash"))
OURS, ANOTHER = 10001, 54321
CONFIGURATION = """
    sources:
      site: {kind: files, path: /site}
    volume:
      path: /live
      files:
        greeting: {content: "{{ site.greeting }}"}
    target: {kind: none}
    state: {path: /state}
"""


class Files:
    """The directories of one Pod: the configuration, a source, the volume and `state.path`."""

    def __init__(self, folder: Path, user: int) -> None:
        self._folder = folder
        self._user = user
        self.make("site", {"greeting": "hello"})
        self.make("live", {})
        self.make("state", {}, stat.S_IRWXU)
        self.configure(CONFIGURATION)

    def configure(self, text: str) -> None:
        """Have this configuration."""
        self.make("config", {"web.yaml": textwrap.dedent(text)})

    def make(self, name: str, files: dict[str, str], mode: int = 0o755) -> None:
        """Have a directory of the container's user with these files."""
        folder = self._folder / name
        folder.mkdir(mode=mode, exist_ok=True)
        os.chown(folder, self._user, self._user)
        for each, text in files.items():
            (folder / each).write_text(text)

    def mounts(self) -> Sequence[str]:
        """Return the options that mount them."""
        places = {"config": "/etc/reloader:ro", "site": "/site:ro", "live": "/live", "state": "/state"}
        return [f"--volume={self._folder / name}:{place}" for name, place in places.items()]

    def published(self) -> str:
        """Return what readers of the volume see."""
        return (self._folder / "live/greeting").read_text()

    def generation(self) -> str:
        """Return which generation that is."""
        return str((self._folder / "live/..data").readlink())


@pytest.fixture(params=[OURS, ANOTHER], ids=["its own user", "another user"])
def user(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def files(tmp_path: Path, user: int) -> Files:
    return Files(tmp_path, user)


def test_it_says_what_it_is_and_how_it_is_run(engine: Podman, reloader_image: str, base_image: str):
    """The command itself is the entry point, by a user that is not root, ended by SIGTERM; and its labels say what is in it."""
    config = engine.facts(reloader_image)["Config"]

    assert (config["Entrypoint"], config["Cmd"], config["User"]) == (["/opt/reloader/bin/reloader"], ["run"], "10001:10001")
    assert config["StopSignal"] in {"SIGTERM", "15"}
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert {"title", "description", "licenses", "version", "revision", "created"} <= labels.keys()
    assert (labels["title"], labels["base.name"]) == ("reloader", base_image)


def test_it_is_small(engine: Podman, reloader_image: str, base_image: str):
    """At most 45 MiB above its base."""
    sizes = [engine.facts(image)["Size"] for image in (reloader_image, base_image)]

    assert sizes[0] - sizes[1] <= 45 * 2**20


def test_what_is_in_it_is_what_is_pinned(engine: Podman, reloader_image: str):
    """Each package says that it is there, for whoever lists them; there is no other, and no pip."""
    code = "from importlib.metadata import distributions as all; print(*(f'{one.name}=={one.version}' for one in all()))"
    found = engine.run("--rm", "--entrypoint=/opt/reloader/bin/python", reloader_image, "-I", "-c", code)

    here = {tuple(line.split("==")) for line in found.split()}
    assert {(name.lower().replace("_", "-"), version) for name, version in here} == {
        *pins({"python_version": "3.13", "python_full_version": "3.13.0"}).items(),
        ("config-reloader", reloader.__version__),
    }


def test_once_and_run_need_nothing_but_their_volumes(engine: Podman, reloader_image: str, user: int, files: Files):
    """Without a shell, a writable root, capabilities or an init: the init form publishes, the sidecar goes on, and SIGTERM ends it."""
    options = (*BARE, *NO_SHELL, f"--user={user}:{user}", *files.mounts())
    engine.run("--rm", *options, reloader_image, "once")
    first = files.generation()
    assert files.published() == "hello"

    sidecar = engine.run("--detach", *options, reloader_image)
    eventually(lambda: not engine.tried("exec", sidecar, "reloader", "status").returncode, what="the sidecar being well")
    assert files.generation() == first
    files.make("site", {"greeting": "good morning"})
    eventually(lambda: files.published() == "good morning", what="the change being published")

    engine("stop", "--time=5", sidecar)
    assert engine("inspect", "--format={{.State.ExitCode}}", sidecar) == "0"


def failing(document: str) -> set[str]:
    """Return the sources that a status document tells a failure of."""
    (pipeline,) = json.loads(document)["pipelines"]
    return {source["name"] for source in pipeline["sources"] if source["failure"]}


EVERYTHING = """
    sources:
      site: {kind: files, path: /site}
      keys: {kind: consul, key: greeting}
      secret: {kind: vault, path: kv/data/app}
      home: {kind: env, names: [HOME]}
    vault: {address: "https://127.0.0.1:9", auth: {token: none}}
    consul: {address: "https://127.0.0.1:9"}
    volume:
      path: /live
      files:
        greeting: {content: "{{ site.greeting }} {{ keys }} {{ secret }} {{ home }}"}
    failure: {startup_grace: 1s}
    target: {kind: process, match: {name: nginx}, signal: HUP}
"""


@pytest.mark.parametrize("user", [0])
def test_nothing_of_it_is_compiled_when_it_starts(engine: Podman, reloader_image: str, user: int, files: Files):
    """As root, and free to write: no bytecode of any module is lacking, also none of what Vault, Consul and directories need."""
    files.configure(EVERYTHING)
    sidecar = engine.run("--detach", f"--user={user}", *files.mounts(), reloader_image)
    eventually(
        lambda: failing(engine("exec", sidecar, "reloader", "status", "--json")) == {"keys", "secret"}, what="every source being read"
    )
    engine("stop", sidecar)

    written = engine("diff", sidecar).splitlines()
    assert [line for line in written if line.endswith(".pyc")] == []
