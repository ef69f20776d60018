"""What becomes of the readings that backends deliver, before the pipeline takes them."""

import logging
from typing import Any

import pytest

from reloader.pipeline.intake import Intake
from reloader.snapshot import Failure, FailureKind, Mailbox, Reading
from reloader.status import Metrics, Status
from reloader.world import World


class Plain:
    """A source that means what it reads."""

    def interpret(self, reading: Reading) -> Reading:
        return reading


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="reloader")
    return lambda: [(record.levelname, record.fields) for record in caplog.records]


@pytest.fixture
def mailbox():
    mailbox = Mailbox(["db", "/templates"])
    yield mailbox
    mailbox.close()


def intake(mailbox: Mailbox, parse: str | None = None) -> Intake:
    metrics = Metrics(Status(World().clock), "0")
    return Intake("web", {"db": (Plain(), parse)}, mailbox, metrics)


def failed(reason: str = "no route to it") -> Failure:
    return Failure(kind=FailureKind.UNREACHABLE, reason=reason, at=1.0)


def read(value: Any = "a") -> Reading:
    return Reading(value=value, at=1.0)


def test_a_source_that_fails_is_logged_once_and_so_is_its_recovery(mailbox, lines):
    """Each retry is counted, and none but the first is a line; another reason is."""
    taken = intake(mailbox)
    for outcome in (read(), failed(), failed(), failed("it says no"), read(), read()):
        taken.put({"db": outcome})
    about = {"pipeline": "web", "source": "db"}
    assert lines() == [
        ("WARNING", about | {"outcome": "failed", "kind": "unreachable", "reason": "no route to it"}),
        ("WARNING", about | {"outcome": "failed", "kind": "unreachable", "reason": "it says no"}),
        ("INFO", about | {"outcome": "ok"}),
    ]


def test_templates_that_cannot_be_read_are_logged_too(mailbox, lines):
    intake(mailbox).put({"/templates": failed()})
    ((level, fields),) = lines()
    assert (level, fields["source"]) == ("WARNING", "/templates")


def test_what_does_not_parse_is_logged_without_being_quoted(mailbox, lines, caplog):
    intake(mailbox, "json").put({"db": read({"password": '{"canary'})})
    ((level, fields),) = lines()
    assert (level, fields["reason"]) == ("WARNING", "password is not json, as `parse` says")
    assert "canary" not in caplog.text
