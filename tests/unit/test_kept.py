"""The private file in which a backend keeps what the next run needs."""

import json
import logging
import stat
from pathlib import Path

import pytest

from reloader.backends.kept import Kept
from reloader.world import World
from reloader.world.disk import Disk


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


def kept(directory: Path, world: World | None = None) -> Kept:
    return Kept(directory, "vault-1", world or World())


def test_what_is_saved_is_there_for_the_next_run_and_for_nobody_else(directory):
    first = kept(directory)
    first.save({"issued": [1]})
    first.close()

    assert kept(directory).load() == {"version": 1, "issued": [1]}
    assert stat.S_IMODE((directory / "vault-1.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_what_comes_after_the_end_keeps_the_file_from_nobody(directory):
    """A request under way may end later than its backend."""
    mine, theirs = kept(directory), kept(directory)
    mine.save({"whose": "mine"})
    mine.close()
    mine.save({"whose": "mine still"})
    theirs.save({"whose": "theirs"})

    assert json.loads((directory / "vault-1.json").read_text())["whose"] == "theirs"


def test_nothing_kept_is_nothing(directory):
    assert kept(directory).load() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 99}', '{"version": 1', "\x00"])
def test_a_damaged_file_is_set_aside_and_the_next_one_is_good(directory, text, caplog):
    directory.mkdir()
    (directory / "vault-1.json").write_text(text)
    mine = kept(directory)

    assert mine.load() is None
    assert (directory / "vault-1.damaged").read_text() == text
    assert "set aside" in caplog.text
    mine.save({"issued": []})
    mine.close()
    assert kept(directory).load() == {"version": 1, "issued": []}


def test_a_file_that_another_process_has_is_left_alone_and_said_once(directory, caplog):
    theirs, mine = kept(directory), kept(directory)
    theirs.save({"whose": "theirs"})

    assert mine.load() is None
    mine.save({"whose": "mine"})
    mine.save({"whose": "mine still"})

    assert json.loads((directory / "vault-1.json").read_text())["whose"] == "theirs"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_file_that_another_process_lets_go_of_is_taken(directory):
    theirs, mine = kept(directory), kept(directory)
    theirs.save({"whose": "theirs"})
    mine.save({"whose": "mine"})
    theirs.close()
    mine.save({"whose": "mine"})

    assert json.loads((directory / "vault-1.json").read_text())["whose"] == "mine"


class Full(Disk):
    full = True

    def write_file(self, path: Path, data: bytes, mode: int, uid: int = -1, gid: int = -1) -> None:
        if self.full:
            raise OSError(28, "No space left on device", str(path))
        super().write_file(path, data, mode, uid, gid)


def test_what_cannot_be_written_is_said_once_and_written_when_there_is_room(directory, caplog):
    disk = Full()
    mine = kept(directory, World(disk=disk))
    for number in range(3):
        mine.save({"number": number})
    assert caplog.text.count("leases are not kept for the next run") == 1
    disk.full = False
    mine.save({"number": 3})

    assert json.loads((directory / "vault-1.json").read_text())["number"] == 3


def test_a_directory_that_cannot_be_made_stops_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    mine = kept(tmp_path / "file" / "state")

    assert mine.load() is None
    mine.save({"issued": []})
    assert "leases are not kept" in caplog.text
