"""Turns what backends deliver into the readings of one pipeline."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import yaml

from reloader.snapshot import Failure, FailureKind, Mailbox, Outcome, Reading, Value
from reloader.sources import Source
from reloader.status import Metrics

log = logging.getLogger("reloader")


def _toml(text: str) -> Any:
    import tomllib  # noqa: PLC0415 - only when a source asks for it

    return tomllib.loads(text)


_PARSERS: Mapping[str, Callable[[str], Any]] = {"json": json.loads, "yaml": yaml.safe_load, "toml": _toml}


class Intake:
    """The inbox of one pipeline: interprets, parses, and puts into the mailbox what came in together."""

    def __init__(self, pipeline: str, sources: Mapping[str, tuple[Source, str | None]], mailbox: Mailbox, metrics: Metrics) -> None:
        self._pipeline = pipeline
        self._sources = sources
        self._mailbox = mailbox
        self._metrics = metrics
        self._failing: dict[str, tuple[FailureKind, str]] = {}

    def put(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take outcomes from a backend; names without a source (template directories) are taken as they are."""
        taken = {name: self._interpret(name, outcome) for name, outcome in outcomes.items()}
        for name, outcome in taken.items():
            self._log(name, outcome)
        for name, outcome in taken.items():
            if isinstance(outcome, Failure):
                self._metrics.count("source_errors", self._pipeline, source=_label(name), reason=outcome.kind.value)
        self._mailbox.put(taken)

    def _log(self, name: str, outcome: Outcome) -> None:
        """Log that a source fails, once for each reason, and that it does no more."""
        about = {"pipeline": self._pipeline, "source": name}
        before = self._failing.pop(name, None)
        if isinstance(outcome, Failure):
            self._failing[name] = now = (outcome.kind, outcome.reason)
            if now != before:
                fields = {**about, "outcome": "failed", "kind": outcome.kind.value, "reason": outcome.reason}
                log.warning("source", extra={"fields": fields})
        elif before is not None:
            log.info("source", extra={"fields": {**about, "outcome": "ok"}})

    def _interpret(self, name: str, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Failure) or name not in self._sources:
            return outcome
        source, parser = self._sources[name]
        meant = source.interpret(outcome)
        return meant if parser is None or isinstance(meant, Failure) else _parsed(meant, parser)


def _label(name: str) -> str:
    """Return a label for a source's name; a template directory is one, whichever path it has."""
    return "templates" if name.startswith("/") else name


def _parsed(reading: Reading, parser: str) -> Outcome:
    """Parse each value of a reading; what does not parse is refused by name, and nothing of it is quoted."""
    parse = _PARSERS[parser]
    try:
        if isinstance(reading.value, Mapping):
            return replace(reading, value={key: _parse(parse, text, key) for key, text in reading.value.items()})
        return replace(reading, value=_parse(parse, reading.value, "the value"))
    except ValueError as error:
        return Failure(kind=FailureKind.REFUSED, reason=f"{error} is not {parser}, as `parse` says", at=reading.at)


def _parse(parse: Callable[[str], Any], text: Value, what: str) -> Value:
    if not isinstance(text, str):
        raise ValueError(what)  # noqa: TRY004 - both kinds of mistake are one to the caller
    try:
        return parse(text)
    except (ValueError, yaml.YAMLError):
        raise ValueError(what) from None


class Waking:
    """An inbox that only wakes."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def put(self, _outcomes: Mapping[str, Outcome]) -> None:
        """Wake the pipeline."""
        self._mailbox.nudge()
