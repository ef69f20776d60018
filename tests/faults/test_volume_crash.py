"""SIGKILL at every call of the disk, before, after and in the middle of it: readers see one whole set, and the next run goes on."""

import multiprocessing
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import volumes
from tests.volumes import NEW, OLD

HIGHEST = 3
"""The number of the newest generation before the update."""


def prepare(path: Path, scenario: str) -> Mapping[str, bytes]:
    """Bring a volume into the state before the crash; return what readers see then."""
    if scenario == "first":
        return {}
    volume = volumes.make(path, keep=3)
    for contents in (NEW, {**OLD, "app.conf": b"older"}, OLD):
        volumes.cycle(volume, contents)
    volume.close()
    return OLD


def calls(tmp_path: Path, scenario: str) -> list[str]:
    """Return the calls of a cycle that nothing disturbs."""
    names: list[str] = []
    prepare(tmp_path / "recorded", scenario)
    volumes.cycle(volumes.make(tmp_path / "recorded", volumes.recording(names), keep=0), NEW)
    return names


def kill(path: Path, at: int, when: str) -> None:
    """Run a cycle in a process of its own that is killed at that call."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.volumes"])
    child = context.Process(target=volumes.cycle_until_killed, args=(str(path), NEW, at, when))
    child.start()
    child.join(30)

    assert child.exitcode == -signal.SIGKILL


def resume(path: Path, before: Mapping[str, bytes], *, spawned: float) -> None:
    """Be sure that a crash left one whole set, that it is known which and since when, and that the next cycle works."""
    seen = volumes.seen(path)
    assert seen in (before, NEW)

    found = volumes.make(path, keep=0)
    found.open()
    assert volumes.seen(path) == seen
    assert volumes.strangers(path, found) == set()
    published = found.published
    if published is None:
        assert seen == {}
    else:
        assert published.fingerprint == found.fingerprint(volumes.rendered(seen))
        assert (published.at > spawned) == (seen == NEW)
    number = found.next_number()
    found.close()

    following = {**NEW, "app.conf": b"following"}
    volumes.cycle(found, following)
    assert volumes.seen(path) == following
    assert volumes.strangers(path, found) == set()
    assert found.published is not None
    assert found.published.number == number
    found.close()


@pytest.mark.parametrize("scenario", ["first", "update"])
@pytest.mark.parametrize("when", ["before", "after", "amid"])
def test_after_a_kill_at_any_call_one_whole_set_is_published_and_the_next_run_goes_on(scenario: str, when: str, tmp_path: Path) -> None:
    """The calls are those of a recorded run, so a new step is covered by itself."""
    names = calls(tmp_path, scenario)
    before = prepare(tmp_path / "template", scenario)
    assert {"make_directory", "write_file", "make_link", "rename", "sync_directory", "lock"} <= set(names)
    for at, name in enumerate(names):
        if when == "amid" and name not in volumes.AMID:
            continue
        path = tmp_path / f"{at}-{name}"
        if before:
            shutil.copytree(tmp_path / "template", path, symlinks=True)
        spawned = volumes.os_time()
        kill(path, at, when)
        resume(path, before, spawned=spawned)


def test_numbers_never_come_back_after_a_crash(tmp_path: Path) -> None:
    """A generation that was staged, killed and swept has used up its number."""
    prepare(tmp_path / "volume", "update")
    names = calls(tmp_path, "update")
    kill(tmp_path / "volume", names.index("write_file"), "after")
    assert (tmp_path / "volume" / f"..{HIGHEST + 1}").is_dir()
    volume = volumes.make(tmp_path / "volume")
    volume.open()

    assert not (tmp_path / "volume" / f"..{HIGHEST + 1}").exists()
    assert volume.next_number() == HIGHEST + 2
    volume.close()
