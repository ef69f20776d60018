"""What a source of kind `files` asks for, and what it makes of the answer."""

from pathlib import Path

import pytest

from reloader.backends.directory import Scan
from reloader.plan import Connections, Directory
from reloader.snapshot import Failure, FailureKind, Reading
from reloader.sources.files import Settings, Source
from tests.kubelet import KubeletVolume
from tests.unit.directories import Inbox, looking


def source(path: object) -> Source:
    return Source(Settings(path=str(path)), Connections())


def asked(path: object) -> tuple[str, frozenset[str] | None]:
    made = source(path)
    return made.backend.path, made.read.names


def file(directory: Path, name: str) -> tuple[str, frozenset[str]]:
    return str(directory), frozenset({name})


def test_a_directory_is_all_that_is_below_it(tmp_path):
    assert asked(tmp_path) == (str(tmp_path), None)
    assert source(tmp_path).read == Scan()


def test_a_file_is_read_from_its_directory(tmp_path):
    (tmp_path / "app.yaml").touch()
    (tmp_path / "plain").touch()
    assert asked(tmp_path / "app.yaml") == file(tmp_path, "app.yaml")
    assert asked(tmp_path / "plain") == file(tmp_path, "plain")


def test_files_and_the_directory_that_they_are_in_share_one_backend(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    assert {source(path).backend for path in (tmp_path, f"{tmp_path}/", tmp_path / "a", f"{tmp_path}//b")} == {
        Directory(path=str(tmp_path))
    }


def test_a_file_in_a_folder_of_a_volume_is_read_from_the_volume(tmp_path):
    KubeletVolume(tmp_path / "volume").swap({"sub/app.yaml": "1"})
    assert asked(tmp_path / "volume" / "sub" / "app.yaml") == file(tmp_path / "volume", "sub/app.yaml")


@pytest.mark.parametrize("name", ["app.yaml", ".env.production", "tls.key"])
def test_what_is_not_there_yet_is_a_file_if_it_has_an_extension(tmp_path, name):
    assert asked(tmp_path / name) == file(tmp_path, name)


@pytest.mark.parametrize("name", ["config", "conf.d", "app.yaml/"])
def test_what_is_not_there_yet_is_a_directory_otherwise_or_if_it_ends_with_a_slash(tmp_path, name):
    assert asked(f"{tmp_path}/{name}") == (str(tmp_path / name.rstrip("/")), None)


def test_what_is_not_in_a_volume_yet_is_a_file(tmp_path):
    KubeletVolume(tmp_path / "volume").swap({"other": "1"})
    assert asked(tmp_path / "volume" / "password") == file(tmp_path / "volume", "password")


def test_a_directory_is_a_mapping_as_it_was_read(tmp_path):
    reading = Reading(value={"a": "1", "b": b"\xff"}, at=1.0)
    assert source(tmp_path).interpret(reading) is reading


@pytest.mark.parametrize("value", ["text", b"\xff", ""])
def test_a_file_is_its_content_and_keeps_what_else_is_known_of_it(tmp_path, value):
    reading = Reading(value={"app.yaml": value, "other": "x"}, at=1.0, whole=True, changed=0.5, secret=True, detail="1 file")
    outcome = source(tmp_path / "app.yaml").interpret(reading)
    assert outcome == Reading(value=value, at=1.0, whole=True, changed=0.5, secret=True, detail="1 file")


def test_a_missing_file_is_refused_by_name(tmp_path):
    outcome = source(tmp_path / "app.yaml").interpret(Reading(value={}, at=7.0))
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.at) == (FailureKind.REFUSED, 7.0)
    assert outcome.reason.startswith(f"{tmp_path}/app.yaml: no such file")


def test_a_directory_that_turns_out_to_be_a_file_is_a_mistake(tmp_path):
    made = source(tmp_path / "config")
    (tmp_path / "config").write_text("x")
    with looking(Path(made.backend.path)) as backend:
        inbox = Inbox()
        backend.watch(made.read, inbox, "it")
        assert "restart reloader" in inbox.failure(FailureKind.MISCONFIGURED)


def test_a_file_that_turns_out_to_be_a_directory_is_a_mistake(tmp_path):
    made = source(tmp_path / "app.yaml")
    (tmp_path / "app.yaml").mkdir()
    with looking(Path(made.backend.path)) as backend:
        inbox = Inbox()
        backend.watch(made.read, inbox, "it")
        assert "end the path with /" in inbox.failure(FailureKind.MISCONFIGURED)


@pytest.mark.parametrize(("path", "keys"), [("/etc/app", []), ("etc/app", ["path"]), ("", ["path"]), ("./app.yaml", ["path"])])
def test_a_path_is_absolute(path, keys):
    assert [key for key, _message in Settings(path=path).mistakes()] == keys


def test_a_path_that_may_not_be_looked_at_is_left_to_the_backend(monkeypatch):
    def denied(_path: Path, **_options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "stat", denied)
    monkeypatch.setattr(Path, "lstat", denied)
    assert asked("/locked/app.yaml") == ("/locked", frozenset({"app.yaml"}))
