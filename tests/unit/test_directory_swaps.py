"""The directory backend on a volume that the kubelet changes."""

import time
from pathlib import Path

import pytest

from reloader.backends.directory import Scan
from reloader.snapshot import FailureKind, Mailbox, Reading
from reloader.world import World
from tests.kubelet import KubeletVolume
from tests.unit.directories import ALL, Inbox, looking, program, settled, succeeds, watching
from tests.waiting import eventually

SWAPS = 100


@pytest.fixture
def volume(tmp_path: Path) -> KubeletVolume:
    return KubeletVolume(tmp_path / "volume")


def swap_quickly(path: str) -> None:
    volume = KubeletVolume(Path(path))
    for number in range(1, SWAPS + 1):
        volume.swap({"a": str(number), "b": str(number), **{f"more-{n}/c": str(number) for n in range(number % 3)}})


def test_a_swap_is_one_whole_change(volume):
    volume.swap({"a.yaml": "1", "b.yaml": "1"})
    with watching(volume.path) as (backend, inbox):
        first = inbox.reading({"a.yaml": "1", "b.yaml": "1"})
        settled(backend)
        volume.swap({"a.yaml": "2", "c.yaml": "2"})
        second = inbox.reading({"a.yaml": "2", "c.yaml": "2"})
    assert first.whole
    assert second.whole
    assert len(inbox.puts) == 2


def test_a_hundred_quick_swaps_end_with_the_last_and_are_never_torn(volume):
    volume.swap({"a": "0", "b": "0"})
    with watching(volume.path) as (backend, inbox):
        settled(backend)
        succeeds(program(swap_quickly, volume.path))
        inbox.reading({"a": str(SWAPS), "b": str(SWAPS), "more-0/c": str(SWAPS)})
    assert all(isinstance(outcome, Reading) for outcome in inbox.outcomes())
    torn = [
        outcome.value for outcome in inbox.outcomes() if len(set(outcome.value.values())) != 1 or not {"a", "b"} <= outcome.value.keys()
    ]
    assert torn == []


def test_quick_swaps_are_never_torn_for_one_who_reads_some_of_the_files(volume):
    volume.swap({"a": "0", "b": "0", "more-0/c": "0"})
    with watching(volume.path, Scan(names=frozenset({"a", "b"}))) as (backend, inbox):
        settled(backend)
        succeeds(program(swap_quickly, volume.path))
        inbox.reading({"a": str(SWAPS), "b": str(SWAPS)})
    assert [outcome.value for outcome in inbox.outcomes() if len(set(outcome.value.values())) != 1] == []


def test_the_change_is_dated_by_the_rename(volume):
    volume.swap({"a": "1"})
    clock = World().clock
    with watching(volume.path) as (_, inbox):
        inbox.reading({"a": "1"})
        before = clock.now()
        volume.swap({"a": "2"})
        after = clock.now()
        changed = inbox.reading({"a": "2"}).changed
    tick = 0.02  # file systems date with the tick of the kernel
    assert before - tick <= changed <= after + tick


def test_what_happens_to_a_file_after_its_swap_does_not_date_the_change(volume):
    volume.swap({"a": "1"})
    swapped = (volume.path / "..data").lstat().st_ctime
    eventually(lambda: time.time() > swapped + 0.2)
    (volume.path / "a").chmod(0o600)
    with watching(volume.path) as (backend, inbox):
        changed = inbox.reading({"a": "1"}).changed
        assert abs(changed - backend._clock.now() + time.time() - swapped) < 0.1


def test_an_unchanged_swap_delivers_nothing(volume):
    volume.swap({"a": "1"})
    with watching(volume.path) as (backend, inbox):
        inbox.reading({"a": "1"})
        settled(backend)
        volume.swap({"a": "1"})
        volume.swap({"a": "2"})
        inbox.reading({"a": "2"})
    assert len(inbox.puts) == 2


def test_two_names_of_one_inbox_come_in_one_put_and_another_inbox_gets_its_own(volume):
    volume.swap({"a": "1", "b": "1"})
    one, other = Inbox(), Inbox()
    with looking(volume.path) as backend:
        backend.watch(Scan(names=frozenset({"a"})), one, "first")
        backend.watch(ALL, one, "second")
        backend.watch(ALL, other, "third")
        for inbox, name in ((one, "first"), (one, "second"), (other, "third")):
            eventually(lambda inbox=inbox, name=name: inbox.outcomes(name))
        settled(backend)
        one.puts.clear()
        other.puts.clear()
        volume.swap({"a": "2", "b": "2"})
        one.reading({"a": "2"}, "first")
        other.reading({"a": "2", "b": "2"}, "third")
    assert [sorted(put) for put in one.puts] == [["first", "second"]]
    assert [sorted(put) for put in other.puts] == [["third"]]


def test_a_real_mailbox_takes_a_swap_as_one_whole_change(volume):
    volume.swap({"a": "1", "b": "1"})
    mailbox = Mailbox(["a", "b"])
    with looking(volume.path) as backend:
        for name in ("a", "b"):
            backend.watch(Scan(names=frozenset({name})), mailbox, name)
        eventually(lambda: not mailbox.take().missing)
        mailbox.taken(mailbox.take())
        settled(backend)
        volume.swap({"a": "2", "b": "2"})
        snapshot = eventually(lambda: (now := mailbox.take()).first_change is not None and now)
    assert snapshot.values == {"a": {"a": "2"}, "b": {"b": "2"}}
    assert snapshot.whole


def test_what_has_not_changed_for_a_read_is_not_delivered_to_it(volume):
    volume.swap({"a": "1", "b": "1"})
    with watching(volume.path, Scan(names=frozenset({"a"}))) as (backend, inbox):
        inbox.reading({"a": "1"})
        settled(backend)
        volume.swap({"a": "1", "b": "2"})
        volume.swap({"a": "3", "b": "3"})
        inbox.reading({"a": "3"})
    assert len(inbox.puts) == 2


def test_a_later_subscriber_gets_the_latest_at_once(volume):
    volume.swap({"a": "1"})
    with watching(volume.path) as (backend, inbox):
        inbox.reading({"a": "1"})
        later = Inbox()
        backend.watch(ALL, later, "late")
        assert [put["late"].value for put in later.puts] == [{"a": "1"}]


def test_who_has_left_gets_nothing_more(volume):
    volume.swap({"a": "1"})
    with watching(volume.path) as (backend, inbox):
        gone = Inbox()
        leave = backend.watch(ALL, gone, "gone")
        eventually(lambda: gone.puts)
        leave()
        leave()
        volume.swap({"a": "2"})
        inbox.reading({"a": "2"})
        assert len(gone.puts) == 1


def test_the_links_may_come_after_the_generation(volume):
    volume.swap({"a": "1", "b": "1"})
    (volume.path / "b").unlink()
    with watching(volume.path) as (_, inbox):
        inbox.reading({"a": "1", "b": "1"})


def test_folders_and_files_beside_the_generation_are_read_too(volume):
    volume.swap({"a": "1", "sub/b": "1"})
    (volume.path / "plain").write_text("p")
    (volume.path / "..hidden").write_text("no")
    with watching(volume.path) as (_, inbox):
        inbox.reading({"a": "1", "plain": "p", "sub/b": "1"})


def test_a_volume_below_a_plain_directory_is_seen_at_once_and_never_torn(tmp_path):
    volume = KubeletVolume(tmp_path / "plain" / "volume")
    volume.swap({"a": "1", "b": "1"})
    with watching(tmp_path / "plain") as (backend, inbox):
        inbox.reading({"volume/a": "1", "volume/b": "1"})
        settled(backend)
        succeeds(program(swap_quickly, volume.path))
        inbox.reading({"volume/a": str(SWAPS), "volume/b": str(SWAPS), "volume/more-0/c": str(SWAPS)})
    assert [outcome.value for outcome in inbox.outcomes() if len(set(outcome.value.values())) != 1] == []


def test_a_generation_that_is_missing_is_no_empty_directory(volume):
    volume.swap({"a": "1"})
    with watching(volume.path) as (_, inbox):
        inbox.reading({"a": "1"})
        (volume.path / "..data_tmp").symlink_to("..gone")
        (volume.path / "..data_tmp").rename(volume.path / "..data")
        assert "..gone does not exist" in inbox.failure(FailureKind.REFUSED)
