"""The thread that holds all together, where something goes wrong in itself."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from reloader import own, settings
from reloader.supervisor import Supervisor
from reloader.world import World
from tests.bad_configs import CANARY
from tests.waiting import eventually


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """One that a test leads; its `state.path` is where a file is in the way."""
    (tmp_path / "state").touch()
    file = tmp_path / "app.yaml"
    file.write_text(
        f"sources: {{site: {{kind: files, path: {tmp_path}}}}}\ntarget: {{kind: none}}\n"
        f"server: {{listen: 'off'}}\nstate: {{path: {tmp_path}/state}}\n"
    )
    supervisor = Supervisor(settings.load([file], {}), (file,), lambda: settings.load([file], {}), World())
    yield supervisor
    supervisor._leave()


def test_a_mistake_of_ours_heals_by_itself(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """What it may have kept from being taken is looked at again, and is what runs."""
    monkeypatch.setattr(own, "AGAIN", 0.1)

    def breaks() -> None:
        raise KeyError(CANARY)

    with monkeypatch.context() as broken:
        broken.setattr(supervisor._crew, "converge", breaks)
        supervisor._guarded_attend()
    assert not supervisor.status.config_successful
    assert "internal error: KeyError" in supervisor.status.config_mistakes[0]
    assert CANARY not in caplog.text

    eventually(lambda: (supervisor._guarded_attend(), supervisor.status.config_successful)[1], what="the healing")


def test_a_socket_that_cannot_be_made_is_told_once_for_each_reason(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    """However often it is tried again; and it is made when it can be."""

    def told() -> list[str]:
        return [record.fields["reason"] for record in caplog.records if record.message == "no control socket"]

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            supervisor._attend()
        assert told() == ["File exists"]
        (tmp_path / "state").unlink()
        (tmp_path / "state" / "control.sock").mkdir(parents=True)
        for _ in range(3):
            supervisor._attend()
        assert told()[1:] == ["something that is no socket has its name; remove it"]
    (tmp_path / "state" / "control.sock").rmdir()
    supervisor._attend()
    assert supervisor._control.is_open
