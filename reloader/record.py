"""What a volume remembers between runs: plain data, and the form it has in a file.

Times of the boot clock mean something only in the boot that the record names.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

VERSION = 1
REFUSALS = 32
"""How many refused sets are remembered."""


class Damaged(ValueError):
    """The text is not a record of this version; the message says why, and quotes nothing of it."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One whole set on the volume."""

    fingerprint: str
    """Keyed; empty where the record that knew it was lost."""
    at: float | None = None
    """When it was last published, in seconds of the boot clock; None before that."""
    wall: float | None = None
    """The same for people, in seconds since the epoch."""
    confirmed: bool = False
    """Whether a target ever confirmed it."""
    expires: float | None = None
    """When something that sources know of stops being valid (a lease), in seconds since the epoch; a renewal changes that."""
    certified: float | None = None
    """When the first of the certificates in its files ends, in seconds since the epoch."""
    certified_from: float | None = None
    """When that certificate began to be valid."""
    fallback: bool = False
    """Whether it is what the operator wants published while nothing else ever was."""

    def has_expired(self, wall: float) -> bool:
        """Return whether something in it is valid no more, at a time in seconds since the epoch."""
        return any(end is not None and end <= wall for end in (self.expires, self.certified))


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The last generation that was confirmed, and by whom."""

    number: int
    instances: tuple[Mapping[str, Any], ...]
    """The fields of each `targets.Instance` that runs on it; none once the target was given something else."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Content that a check or the target refused."""

    stage: str
    failures: int
    """How often."""
    retry: float | None
    """When it is tried again though nothing changed, in seconds since the epoch; None for never."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """That files are being written in place; what readers see of them may be mixed until that is done."""

    number: int
    """The generation that they are written from."""
    names: tuple[str, ...]
    """All files that may differ from what was published before."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """All of it; each method returns a changed copy."""

    boot: str
    last: int = 0
    """The highest number that a generation of this volume ever had."""
    published: int | None = None
    """The number that was published when this was written; the `..data` link is the truth."""
    generations: Mapping[int, Generation] = field(default_factory=dict)
    confirmed: Confirmation | None = None
    withdrawn: int | None = None
    """The number of an empty generation that is published because nothing else may be."""
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    """By fingerprint of the set."""
    rolled_back: int | None = None
    """The generation that a person put back, and holds."""
    writing: Writing | None = None
    """What was begun in place, and is not known to be done."""
    closed: bool = False
    """Whether what is withdrawn was, because the pipeline closed, and nothing was published since."""
    ages: Mapping[str, float] = field(default_factory=dict)
    """When each source was last known to be current, in seconds since the epoch."""
    current: Mapping[str, float] = field(default_factory=dict)
    """The same in seconds of the boot clock, which a step of the wall clock does not touch."""
    filled: Mapping[str, str] | None = field(default_factory=dict)
    """What was read of each source whose answer had items; None where a record does not say, though a set is published."""

    def stage(self, number: int, fingerprint: str, valid: tuple[float, float] | None = None, **known: Any) -> "Record":
        """Know a whole set that is not published yet: from when until when its certificates are valid, and what else a `Generation` has."""
        begins, ends = valid or (None, None)
        staged = Generation(fingerprint=fingerprint, certified=ends, certified_from=begins, **known)
        generations = {**self.generations, number: staged}
        return replace(self, last=max(self.last, number), generations=generations)

    def publish(self, number: int, at: float, wall: float) -> "Record":
        """Know when a generation was published; one that was unknown counts as such."""
        before = self.generations.get(number, Generation(fingerprint=""))
        generations = {**self.generations, number: replace(before, at=at, wall=wall)}
        writing = None if self.writing is not None and self.writing.number == number else self.writing
        closed = self.closed and number == self.withdrawn
        return replace(self, last=max(self.last, number), published=number, generations=generations, writing=writing, closed=closed)

    def write(self, number: int, names: Collection[str]) -> "Record":
        """Know that these files are about to be written in place, on top of what was begun before."""
        before = self.writing.names if self.writing else ()
        return replace(self, writing=Writing(number=number, names=tuple(sorted({*before, *names}))))

    def confirm(self, number: int, instances: Collection[Mapping[str, Any]]) -> "Record":
        """Know who runs on a generation."""
        generations = dict(self.generations)
        if number in generations:
            generations[number] = replace(generations[number], confirmed=True)
        confirmation = Confirmation(number=number, instances=tuple(dict(instance) for instance in instances))
        return replace(self, generations=generations, confirmed=confirmation)

    def is_fallback(self, number: int) -> bool:
        """Return whether a generation is what the operator wants published while nothing else ever was."""
        return number in self.generations and self.generations[number].fallback

    def with_content(self, number: int) -> "Record":
        """Know that a generation is what the sources say, though it was published as the fallback."""
        if not self.is_fallback(number):
            return self
        return replace(self, generations={**self.generations, number: replace(self.generations[number], fallback=False)})

    def doubt(self) -> "Record":
        """Know that the target was given something else than what it confirmed last."""
        return self if self.confirmed is None else replace(self, confirmed=replace(self.confirmed, instances=()))

    def refuse(self, fingerprint: str, refusal: Refusal) -> "Record":
        """Know that content was refused; the oldest are forgotten."""
        others = {known: each for known, each in self.refused.items() if known != fingerprint}
        kept = dict(list(others.items())[-(REFUSALS - 1) :])
        return replace(self, refused={**kept, fingerprint: refusal})

    def accept(self, fingerprint: str) -> "Record":
        """Know that content is good after all."""
        if fingerprint not in self.refused:
            return self
        return replace(self, refused={known: each for known, each in self.refused.items() if known != fingerprint})

    def without(self, numbers: Collection[int]) -> "Record":
        """Forget generations that are gone."""
        return replace(self, generations={number: known for number, known in self.generations.items() if number not in numbers})

    def enter_boot(self, boot: str, linked: int | None) -> "Record":
        """Translate the times of an earlier boot: what was published in one, was published before this one began.

        Every process that runs now started after that, so time 0 says just what is known: it has read what is published, and needs a
        verification but no signal. An instance of an earlier boot names its boot, so it equals none of this one.
        """
        if boot == self.boot:
            return self
        generations = {number: replace(known, at=0.0) for number, known in self.generations.items()}
        return replace(self, boot=boot, generations=generations, published=linked if linked in generations else None, current={})

    def clocks(self, boot: str) -> tuple[tuple[float, float], ...]:
        """Return how the boot clock and the wall clock stood together in this boot, as far as it is remembered."""
        known = self.generations.values() if boot == self.boot else ()
        return tuple((each.at, each.wall) for each in known if each.at and each.wall is not None)

    def rollback_target(self, published: int | None) -> int | None:
        """Return the generation to go back to from the published one: the last that was confirmed; before that, the fallback.

        A fallback that was refused is not there any more: it was withdrawn, and everything with it.
        """
        if self.confirmed is not None:
            return self.confirmed.number
        fallbacks = (number for number, known in self.generations.items() if known.fallback and known.at is not None)
        return max((number for number in fallbacks if number != published), default=None)

    def superfluous(self, *, published: int | None, keep: int, before: float) -> list[int]:
        """Return the generations that nobody needs any more.

        Never the published one, never the one to go back to; of the others that were published, the newest `keep` stay, and so does
        one that was replaced no earlier than `before` (boot clock), because a slow reader may still be in it.
        """
        needed = {published, self.rollback_target(published)}
        times = {number: known.at for number, known in self.generations.items() if known.at is not None}
        others = sorted((number for number in times if number not in needed), reverse=True)
        return [number for number in others[keep:] if _replaced_at(times, number) < before]

    def to_json(self) -> bytes:
        """Return the form it has in a file."""
        # Without indentation, which would keep json from using its encoder in C, and without copies: it is written several times a change.
        return json.dumps({"version": VERSION, **vars(self)}, default=vars, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> "Record":
        """Return the record that `to_json` wrote.

        Raises:
            Damaged: it did not write this, or another version of it did.

        """
        try:
            plain = json.loads(data)
            version = plain["version"]
            record = _parsed(plain) if version == VERSION else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Damaged("it is not a record") from None
        if record is None:
            raise Damaged("it is of another version")
        return record


def _replaced_at(times: Mapping[int, float], number: int) -> float:
    return min((at for other, at in times.items() if at >= times[number] and other != number), default=times[number])


def _parsed(plain: Mapping[str, Any]) -> Record:
    confirmed = plain["confirmed"]
    return Record(
        boot=str(plain["boot"]),
        last=int(plain["last"]),
        published=None if plain["published"] is None else int(plain["published"]),
        generations={int(number): _generation(known) for number, known in plain["generations"].items()},
        confirmed=None if confirmed is None else _confirmation(confirmed),
        withdrawn=None if plain["withdrawn"] is None else int(plain["withdrawn"]),
        refused={str(fingerprint): _refusal(each) for fingerprint, each in plain["refused"].items()},
        rolled_back=None if plain["rolled_back"] is None else int(plain["rolled_back"]),
        writing=_writing(plain.get("writing")),
        closed=bool(plain.get("closed")),
        ages=_times(plain["ages"]),
        current=_times(plain.get("current", {})),
        filled=_filled(plain.get("filled")),
    )


def _confirmation(plain: Mapping[str, Any]) -> Confirmation:
    return Confirmation(number=int(plain["number"]), instances=tuple(dict(instance) for instance in plain["instances"]))


def _writing(plain: Mapping[str, Any] | None) -> Writing | None:
    return None if plain is None else Writing(number=int(plain["number"]), names=tuple(str(name) for name in plain["names"]))


def _times(plain: Mapping[str, Any]) -> Mapping[str, float]:
    return {str(name): float(at) for name, at in plain.items()}


def _filled(plain: Mapping[str, Any] | None) -> Mapping[str, str] | None:
    return None if plain is None else {str(name): str(read) for name, read in plain.items()}


def _refusal(plain: Mapping[str, Any]) -> Refusal:
    retry = None if plain["retry"] is None else float(plain["retry"])
    return Refusal(stage=str(plain["stage"]), failures=int(plain["failures"]), retry=retry)


def _generation(plain: Mapping[str, Any]) -> Generation:
    return Generation(
        fingerprint=str(plain["fingerprint"]),
        at=None if plain["at"] is None else float(plain["at"]),
        wall=None if plain["wall"] is None else float(plain["wall"]),
        confirmed=bool(plain["confirmed"]),
        expires=None if plain["expires"] is None else float(plain["expires"]),
        certified=None if plain.get("certified") is None else float(plain["certified"]),
        certified_from=None if plain.get("certified_from") is None else float(plain["certified_from"]),
        fallback=bool(plain.get("fallback")),
    )
