"""A volume that fails under a whole sidecar: what is served stays whole, what is wrong is told, and the last state arrives by itself."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.faults.checker import Checker
from tests.faults.conftest import MakePod
from tests.faults.pod import Mounts, Pod
from tests.targets.reading import FILES, read
from tests.waiting import eventually

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (mounts)")
Reading = Callable[[Path], Mapping[str, str] | None]


def kept(pod: Pod, *texts: str) -> None:
    """Set 1 is served and confirmed, the sidecar is ready, and it tells that a newer one waits, where and for what."""
    state = pod.told(str(pod.path), *texts)

    numbers = state["generations"]
    assert numbers["desired"] > numbers["published"] == numbers["confirmed"] == 1
    assert pod.sidecar.metric("reloader_generation", state="desired") > pod.sidecar.metric("reloader_generation", state="published") == 1
    assert (state["owed"], pod.sidecar.metric("reloader_reload_owed")) == (None, 0)
    assert all(text in state["rejected"] for text in texts)
    assert (pod.served(), pod.signals) == (1, 1)


@contextlib.contextmanager
def checked(pod: Pod, reading: Reading = read, times: int = 10) -> Iterator[None]:
    """Read the set all the time, so many times at least, and be sure that it was never torn."""
    checker = Checker(pod.live, reading)
    checker.start()
    try:
        yield
    finally:
        checker.stop()
    assert checker.torn == []
    assert checker.reads >= times


def tidy(pod: Pod) -> None:
    """Nothing is on the volume that nothing needs."""
    generations = {f"..{number}" for number in pod.record()["generations"]}
    assert {path.name for path in pod.live.iterdir()} == {*FILES, "..data", "..reloader", *generations}
    assert {path.name for path in (pod.live / "..reloader").iterdir()} == {"lock", "key", "record.json"}


INJECTED = {
    "quota": ({"calls": ["write_file"], "path": "", "error": "EDQUOT"}, "the quota of the volume is used up: raise it"),
    "write": ({"calls": ["write_file"], "path": "", "error": "EIO"}, "the disk failed (input/output error): look at the kernel's log"),
    "rename": ({"calls": ["rename"], "path": r"\.\.data_tmp$", "error": "EIO"}, "the disk failed"),
    "sync": ({"calls": ["sync_directory"], "path": "", "error": "EIO"}, "the disk failed"),
    "record": ({"calls": ["write_file"], "path": r"/record\.json", "error": "ENOSPC"}, "the volume is full: give it more room"),
    "stage": ({"calls": ["make_directory"], "path": "", "error": "ENOSPC"}, "the volume is full: give it more room"),
}


@pytest.mark.parametrize("fault", INJECTED)
def test_while_the_disk_fails_the_old_set_is_served_and_the_new_one_arrives_after_it(fault: str, make_pod: MakePod) -> None:
    """Told once in the log, however often it is tried; newer content takes the place of what waits."""
    rule, mend = INJECTED[fault]
    pod = make_pod().start()
    with checked(pod):
        pod.control(rule)
        pod.swap(2)
        kept(pod, mend)
        attempts = pod.sidecar.metric("reloader_stage_duration_seconds_count", stage="stage")
        eventually(lambda: pod.sidecar.metric("reloader_stage_duration_seconds_count", stage="stage") > attempts + 1, what="two retries")
        failed = [line for line in pod.sidecar.lines() if line.get("outcome") == "failed" and mend in line["reason"]]
        pod.swap(3)
        pod.control()
        pod.arrived(3)

    assert len(failed) == 1
    assert pod.signals == 2
    tidy(pod)


def test_what_fails_after_the_switch_is_published_all_the_same_and_signalled_once(make_pod: MakePod) -> None:
    """The directory cannot be synced once the link has moved: readers have the new set, so the target is asked for it."""
    pod = make_pod().start()
    with checked(pod):
        pod.control({"calls": ["sync_directory"], "path": "live$", "error": "EIO"})
        pod.swap(2)
        pod.arrived(2)
        pod.control()
        pod.swap(3)
        pod.arrived(3)

    assert pod.signals == 3
    assert [line for line in pod.sidecar.lines() if line["message"] == "publish" and "the disk failed" in line.get("reason", "")]
    tidy(pod)


def test_a_record_that_cannot_be_written_is_told_until_it_is_though_the_set_was_delivered(make_pod: MakePod) -> None:
    """There is room for the set, and none for the record after it: a restart now would signal twice."""
    pod = make_pod().start()
    pod.control({"calls": ["write_file"], "path": r"/record\.json", "error": "ENOSPC", "skip": 1})
    pod.swap(2)
    eventually(lambda: pod.signals == 2 and pod.sidecar.settled(), what="the set to be delivered")
    state = pod.told(str(pod.path / "..reloader/record.json"), "the volume is full: give it more room")
    before = pod.record()
    pod.control()
    pod.arrived(2)
    pod.sidecar.stop(kill=True)
    pod.sidecar.start()
    pod.arrived(2)

    assert state["rejected"] is None
    assert before["confirmed"]["number"] == 1
    assert pod.signals == 2


def test_a_fail_closed_pipeline_is_closed_while_its_volume_cannot_be_written_for_long(make_pod: MakePod) -> None:
    """Not before `max_staleness`, and it opens by itself."""
    pod = make_pod(failure="{mode: closed, max_staleness: 1s}").start()
    pod.control({"calls": ["write_file"], "path": "", "error": "EDQUOT"})
    pod.swap(2)
    kept(pod, "the quota of the volume is used up")
    pod.told("the quota of the volume is used up", ready=False)
    closed = pod.sidecar.pipeline()["closed"], pod.sidecar.metric("reloader_closed"), pod.served()
    pod.control()
    pod.arrived(2)

    assert closed == (True, 1, 1)
    assert pod.sidecar.metric("reloader_closed") == 0


@NEEDS_ROOT
def test_a_full_volume_takes_the_last_set_once_there_is_room(mounts: Mounts, make_pod: MakePod) -> None:
    """Another program filled it; also over a restart of the sidecar meanwhile."""
    pod = make_pod(mounts).start()
    filler = pod.live / "filler"
    with checked(pod):
        fill(filler)
        pod.swap(2)
        kept(pod, "the volume is full: give it more room (`sizeLimit`)")
        pod.sidecar.stop(kill=True)
        fill(filler)
        pod.sidecar.start()
        kept(pod, "the volume is full: give it more room (`sizeLimit`)")
        filler.unlink()
        pod.arrived(2)

    assert pod.signals == 2
    tidy(pod)


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 512):
            pass


@NEEDS_ROOT
def test_a_volume_that_becomes_read_only_takes_the_last_set_once_it_is_writable(mounts: Mounts, make_pod: MakePod) -> None:
    pod = make_pod(mounts).start()
    with checked(pod):
        with read_only(mounts, pod):
            pod.swap(2)
            kept(pod, "the volume is read-only: mount it without `readOnly` in this container")
        pod.arrived(2)

    assert pod.signals == 2
    tidy(pod)


@contextlib.contextmanager
def read_only(mounts: Mounts, pod: Pod) -> Iterator[None]:
    """Mount the volume once more over itself, read-only: a mount that somebody writes on cannot become read-only."""
    mounts.run("mount", "--bind", pod.path, pod.path)
    mounts.run("mount", "-o", "remount,bind,ro", pod.path)
    yield
    mounts.run("umount", "--lazy", pod.path)


@NEEDS_ROOT
@pytest.mark.parametrize("earlier", [True, False], ids=["with a set of an earlier run", "empty"])
def test_a_volume_that_is_read_only_at_the_start_is_not_ready_until_it_can_be_taken(
    earlier: bool, mounts: Mounts, make_pod: MakePod
) -> None:
    """What an earlier run published is served on, but nobody can know what is owed; it is tried again with each resync."""
    pod = make_pod(mounts, resync="1s")
    signals = 1
    if earlier:
        pod.start().sidecar.stop()
        signals = 2
    else:
        pod.start_application()
    with read_only(mounts, pod):
        pod.swap(2)
        pod.sidecar.start()
        pod.told(str(pod.path), "the volume is read-only: mount it without `readOnly`", ready=False)
        assert pod.served() == (1 if earlier else None)
        assert pod.sidecar.running
    pod.arrived(2)

    assert pod.signals == signals


def test_a_directory_that_is_replaced_gets_the_last_set(make_pod: MakePod) -> None:
    """By an empty one; what was renamed away stays as it is, and numbers go on."""
    pod = make_pod().start()
    pod.swap(2)
    pod.arrived(2)
    before = pod.sidecar.pipeline()["generations"]["published"]
    pod.path.rename(pod.folder / "away")
    pod.path.mkdir()
    pod.swap(3)
    pod.arrived(3)

    assert pod.signals == 3
    assert pod.sidecar.pipeline()["generations"]["published"] > before
    assert [line["path"] for line in pod.sidecar.lines() if line["message"] == "volume replaced"] == [str(pod.path)]
    assert read(pod.folder / "away") == dict.fromkeys(FILES, "2")
    tidy(pod)


def test_a_directory_that_is_removed_is_made_again(make_pod: MakePod) -> None:
    pod = make_pod().start()
    shutil.rmtree(pod.path)
    pod.swap(2)
    pod.arrived(2)

    assert pod.signals == 2
    tidy(pod)


@NEEDS_ROOT
def test_a_volume_that_is_unmounted_and_mounted_again_is_taken_anew(mounts: Mounts, make_pod: MakePod) -> None:
    """Without any change of the sources: with the next resync."""
    pod = make_pod(mounts, resync="1s").start()
    mounts.run("umount", "--lazy", pod.path)
    mounts.run("mount", "-t", "tmpfs", "-o", "size=400k,mode=0755", "volume", pod.path)
    eventually(lambda: pod.served() == 1, what="the set on the new volume")
    pod.arrived(1)
    pod.swap(2)
    pod.arrived(2)

    assert pod.signals == 3


FOREIGN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a file for a user link": (
        "one.conf",
        lambda path: path.write_text("2 of mine"),
        "one.conf is in the way: a file, not made by reloader",
    ),
    "a user link elsewhere": (
        "two.conf",
        lambda path: path.symlink_to("/elsewhere"),
        "two.conf is in the way: a link to '/elsewhere', not made by reloader",
    ),
    "a directory for the temporary link": (
        "..data_tmp",
        lambda path: path.mkdir(),
        "..data_tmp: something of another program is in the way",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_something_foreign_in_the_way_is_left_alone_and_named_until_it_is_gone(case: str, make_pod: MakePod) -> None:
    name, make, text = FOREIGN[case]
    pod = make_pod().start()
    path = pod.path / name
    with checked(pod):
        path.unlink(missing_ok=True)
        make(path)
        pod.swap(2)
        kept(pod, text)
        path.rename(pod.folder / "kept")
        pod.arrived(2)

    assert pod.signals == 2
    assert os.path.lexists(pod.folder / "kept")
    tidy(pod)


@pytest.mark.parametrize(
    "make", [lambda path: path.write_text("mine"), lambda path: path.mkdir(), lambda path: path.symlink_to("/elsewhere")]
)
def test_what_takes_the_place_of_the_link_of_the_set_is_left_alone_and_named(make: Callable[[Path], object], make_pod: MakePod) -> None:
    """Nobody reads a set then, so the sidecar says that nothing is published."""
    pod = make_pod().start()
    path = pod.path / "..data"
    path.unlink()
    make(path)
    pod.swap(2)
    state = pod.told_nothing_is_published(str(path), "another program fills this directory")
    kind = path.lstat().st_mode
    path.rename(pod.folder / "kept")
    pod.arrived(2)

    assert state["generations"]["published"] == 0
    assert (pod.folder / "kept").lstat().st_mode == kind
    assert pod.signals == 2
    tidy(pod)


@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), lambda path: (path / "mine").mkdir(parents=True)])
def test_the_name_of_the_next_generation_is_passed_over_when_it_is_taken(make: Callable[[Path], object], make_pod: MakePod) -> None:
    """By what no run of ours staged: names of two dots and a number are the sidecar's own."""
    pod = make_pod().start()
    path = pod.path / f"..{pod.record()['last'] + 1}"
    with checked(pod):
        make(path)
        pod.swap(2)
        pod.arrived(2)

    assert pod.signals == 2
    assert not path.is_symlink()


def thousand(number: int) -> dict[str, str]:
    """Return a set of 1,000 files of 64 KiB."""
    return dict.fromkeys((*FILES, *(f"part-{part}" for part in range(998))), f"{number:7} " * 8192)


def read_thousand(live: Path) -> dict[str, str]:
    """Return the word that each file of the set repeats, or more of it where it does not; below the directory that is published now."""
    directory = os.open(live / "..data", os.O_RDONLY | os.O_DIRECTORY)
    try:
        data = {path.name: path.read_bytes() for path in Path(f"/proc/self/fd/{directory}").iterdir()}
    finally:
        os.close(directory)
    words = {name: (each[:8] if each == each[:8] * 8192 else each).decode() for name, each in data.items()}
    return words if len(words) == 1000 else {**words, "missing": "some"}


def test_a_thousand_files_appear_at_once_also_when_the_sidecar_is_killed_amid_them(make_pod: MakePod) -> None:
    pod = make_pod()
    pod.set_of = thousand
    pod.start()
    with checked(pod, read_thousand, times=2):
        pod.swap(2)
        staged = pod.path / f"..{pod.record()['last'] + 1}"
        eventually(lambda: len(list(staged.iterdir())) > 100, every=0.001, what="a part of the set")
        pod.sidecar.stop(kill=True)
        written = len(list(staged.iterdir()))
        assert pod.served() == 1
        pod.sidecar.start()
        pod.arrived(2)

    assert written < 1000
    assert pod.signals == 2
    assert read_thousand(pod.path) == dict.fromkeys(thousand(2), f"{2:7} ")
