"""Turns what backends deliver into the readings of one pipeline."""

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any

from reloader.pipeline.guard import Guard
from reloader.snapshot import Failure, FailureKind, Mailbox, Outcome, Reading, Value
from reloader.sources import Source
from reloader.status import Metrics

log = logging.getLogger("reloader")


def _yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415 - only when a source asks for it

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError("not YAML") from None


def _toml(text: str) -> Any:
    import tomllib  # noqa: PLC0415 - only when a source asks for it

    return tomllib.loads(text)


_PARSERS: Mapping[str, Callable[[str], Any]] = {"json": json.loads, "yaml": _yaml, "toml": _toml}


class Intake:
    """The inbox of one pipeline: interprets, parses, judges, and puts into the mailbox what came in together."""

    def __init__(
        self,
        pipeline: str,
        sources: Mapping[str, tuple[Source, str | None]],
        mailbox: Mailbox,
        metrics: Metrics,
        guards: Mapping[str, Guard] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._sources = sources
        self._mailbox = mailbox
        self._metrics = metrics
        self._guards = guards or {}
        self._lock = threading.Lock()
        """What a guard let through is in the mailbox before it judges the next."""
        self._failing: dict[str, tuple[FailureKind, str]] = {}

    def put(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take outcomes from a backend; names without a source (template directories) are taken as they are."""
        with self._lock:
            self._take({name: self._judge(name, self._interpret(name, outcome)) for name, outcome in outcomes.items()})

    @property
    def look_at(self) -> float:
        """Return when `release` has something to do, on the boot clock."""
        with self._lock:
            return min((guard.look_at for guard in self._guards.values()), default=inf)

    def release(self, now: float) -> None:
        """Put in what had to last for a while, and did."""
        with self._lock:
            ripe = {name: guard.ripe(now) for name, guard in self._guards.items()}
            self._take({name: reading for name, reading in ripe.items() if reading is not None})

    @property
    def filled(self) -> dict[str, str]:
        """Return what was read of each source that had items, for the record."""
        with self._lock:
            return {name: guard.filled for name, guard in self._guards.items() if guard.filled is not None}

    def remember(self, filled: Mapping[str, str] | None) -> None:
        """Take what earlier runs read that had items, None where nobody knows; judge by that what came in meanwhile."""
        with self._lock:
            judged = {name: guard.remember(filled, name) for name, guard in self._guards.items()}
            self._take({name: outcome for name, outcome in judged.items() if outcome is not None})

    def _judge(self, name: str, outcome: Outcome) -> Outcome:
        return self._guards[name].judge(outcome) if name in self._guards else outcome

    def _take(self, taken: Mapping[str, Outcome]) -> None:
        if not taken:
            return
        for name, outcome in taken.items():
            self._log(name, outcome)
        for name, outcome in taken.items():
            if isinstance(outcome, Failure):
                self._metrics.count("source_errors", self._pipeline, source=name, reason=outcome.kind.value)
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
        return interpreted(outcome, *self._sources[name]) if name in self._sources else outcome


def interpreted(outcome: Outcome, source: Source, parser: str | None) -> Outcome:
    """Return what an outcome means to a source, parsed as its `parse` says."""
    meant = outcome if isinstance(outcome, Failure) else source.interpret(outcome)
    return meant if parser is None or isinstance(meant, Failure) else _parsed(meant, parser)


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
    except ValueError:
        raise ValueError(what) from None


class Waking:
    """An inbox that only wakes."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def put(self, _outcomes: Mapping[str, Outcome]) -> None:
        """Wake the pipeline."""
        self._mailbox.nudge()
