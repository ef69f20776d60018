"""What a person may see of texts that hold secrets."""

import base64
import html
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from itertools import chain, groupby
from urllib.parse import quote, quote_plus

from reloader.snapshot import Reading, Value

MASK = "********"
SHORTEST = 4
"""Characters from which on a secret is found anywhere in a text; a shorter one only where it stands as a word, and one alone never."""
_CONTEXT = 3
"""Lines shown around a change."""
_NEAR = 3
"""How many lines of the new text, on either side, may stand for a removed one."""

_LONGEST = 1000
"""Characters of a removed line from which on it is masked whole: comparing it costs the square of its length."""
_NO_END = "\\ No newline at end of file"

_PRIVATE_KEY = re.compile(r"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_REST_OF_KEY = re.compile(r"\A(?:(?!-----BEGIN ).)*?-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----", re.DOTALL)
"""A text that was cut in the middle of a key."""
_TOKEN = re.compile(r"\*{8}|\w+|\s+|[^\w\s]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

Span = tuple[int, int]


class Mask:
    """Hides what the secret readings hold, and private keys in PEM whoever brought them.

    A secret is every text and number in a secret reading, and each line of a longer text; found as it is, in JSON, in a URL, in HTML, and
    in base64, also inside of something longer in base64 (`user:password`). What a template makes of a secret otherwise (upper case, a
    part of it) is not recognised. Names of fields are no secrets.
    """

    def __init__(self, readings: Mapping[str, Reading]) -> None:
        leaves = {leaf for reading in readings.values() if reading.secret for leaf in _leaves(reading.value)}
        self.knows_secrets = any(reading.secret for reading in readings.values())
        """Whether there are secret readings, and so earlier values of them that nobody remembers."""
        forms = {form for leaf in leaves for form in _forms(leaf)}
        self._anywhere = tuple(sorted(form for form in forms if len(form) >= SHORTEST))
        words = sorted({leaf.strip() for leaf in leaves if 1 < len(leaf.strip()) < SHORTEST}, key=len, reverse=True)
        self._words = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)") if words else None

    def text(self, text: str) -> str:
        """Return the text with each secret replaced by eight asterisks; overlapping and adjoining ones by one mask."""
        return _replaced(text, self._spans(text))

    def lines(self, text: str) -> list[str]:
        """Return the lines of the text, masked, without their ends; a secret that goes over several lines is masked in each."""
        spans = self._spans(text)
        shown, start, first = [], 0, 0
        for line in _split(text):
            end = start + len(line)
            while first < len(spans) and spans[first][1] <= start:
                first += 1
            shown.append(_replaced(line, _within(spans, first, start, end)))
            start = end + 1
        return shown

    def _spans(self, text: str) -> list[Span]:
        """Return where secrets are, in order and apart."""
        found = chain.from_iterable(_occurrences(text, secret) for secret in self._anywhere)
        words = (match.span() for match in (self._words.finditer(text) if self._words else ()))
        keys = (match.span() for pattern in (_PRIVATE_KEY, _REST_OF_KEY) for match in pattern.finditer(text))
        merged: list[Span] = []
        for start, end in sorted(chain(found, words, keys)):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged


def masked_diff(old: Mapping[str, bytes], new: Mapping[str, bytes], mask: Mask) -> str:
    """Return a unified diff of two sets that shows no secret of either; empty when they are equal.

    Lines are compared as they are and masked afterwards, so that a changed secret shows as a changed line. Added and unchanged lines are
    text of the new set, whose secrets `mask` knows. A removed line may hold an earlier secret that nobody knows any more, so while there
    are secret readings it is never shown by itself: of each removed line only those words and signs appear that also stand, unmasked and
    in this order, in one added or neighbouring line of the new text; all else in it is masked. A line that holds a secret now is preferred
    for this, so that `password=OLD` shows as `password=********` even where OLD is a word that stands nearby. Without any secret reading
    a removed line is shown as it was, private keys excepted.
    """
    return "".join(chain.from_iterable(_file_diff(name, old.get(name), new.get(name), mask) for name in sorted({*old, *new})))


def _file_diff(name: str, old: bytes | None, new: bytes | None, mask: Mask) -> Iterator[str]:
    if old == new:
        return
    before, after = _text(old), _text(new)
    if before is None or after is None:
        yield f"Binary file {_visible(name)} {'added' if old is None else 'removed' if new is None else 'differs'}\n"
        return
    yield f"--- {'/dev/null' if old is None else 'a/' + _visible(name)}\n"
    yield f"+++ {'/dev/null' if new is None else 'b/' + _visible(name)}\n"
    for line, _ in groupby(_Diff(before, after, mask).lines()):  # a key of thirty masked lines is shown as one
        yield f"{_visible(line)}\n"


class _Diff:
    """The difference between two texts."""

    def __init__(self, old: str, new: str, mask: Mask) -> None:
        self._old, self._new = _split(old) + _end(old), _split(new) + _end(new)
        self._old_shown, self._new_shown = mask.lines(old) + _end(old), mask.lines(new) + _end(new)
        self._guarded = mask.knows_secrets

    def lines(self) -> Iterator[str]:
        """Yield the hunks."""
        for hunk in SequenceMatcher(None, self._old, self._new).get_grouped_opcodes(_CONTEXT):
            (_, i1, _, j1, _), (_, _, i2, _, j2) = hunk[0], hunk[-1]
            yield f"@@ -{_range(i1, i2)} +{_range(j1, j2)} @@"
            for tag, *places in hunk:
                yield from self._shown(tag, *places)

    def _shown(self, tag: str, i1: int, i2: int, j1: int, j2: int) -> Iterator[str]:
        if tag == "equal":
            yield from (f" {line}" for line in self._new_shown[j1:j2])
            return
        for index in range(i1, i2):
            # Where many lines changed, the line that stands as far into the added ones as this one into the removed.
            near = j1 + (index - i1) * (j2 - j1) // (i2 - i1)
            yield f"-{self._removed(self._old_shown[index], self._new_shown[max(0, near - _NEAR) : near + _NEAR + 1])}"
        yield from (f"+{line}" for line in self._new_shown[j1:j2])

    def _removed(self, line: str, models: list[str]) -> str:
        if not self._guarded or line in ("", _NO_END):
            return line
        if len(line) > _LONGEST:
            return MASK
        return max((_as_far_as(line, model[:_LONGEST]) for model in models), default=(False, 0, MASK))[2]


def _as_far_as(line: str, model: str) -> tuple[bool, int, str]:
    """Return the line with all masked but what stands in the model, in this order, unmasked; before it, how well the model fits."""
    ours, theirs = _TOKEN.findall(line), _TOKEN.findall(model)
    shown, done, told = [], 0, 0
    for start, _, size in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        if start > done:
            shown.append(MASK)
        same = ours[start : start + size]
        shown.extend(same)
        told += sum(len(token) for token in same if token.isalnum())
        done = start + size
    return MASK in theirs and told > 0, told, re.sub(r"\*{8,}", MASK, "".join(shown))


def _leaves(value: Value) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, bytes):
        yield value.decode("utf-8", errors="surrogateescape")
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _forms(leaf: str) -> Iterator[str]:
    """Yield every text by which a secret is recognised."""
    for part in {leaf, leaf.strip(), *(line.strip() for line in leaf.splitlines())}:
        if len(part) < SHORTEST:
            continue
        data = part.encode("utf-8", errors="surrogateescape")
        yield part
        yield from (json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1])
        yield from (quote(data), quote(data, safe=""), quote_plus(data), html.escape(part), html.escape(part, quote=False))
        yield from _in_base64(data)
    yield from _in_base64(leaf.encode("utf-8", errors="surrogateescape"))


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield the base64 of the data, and what is sure to stand in the base64 of a longer text that holds it at any of three offsets."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        padded = encode(data).decode("ascii")
        yield from (padded, padded.rstrip("="))
        for offset in range(3):
            whole = encode(bytes(offset) + data).decode("ascii")
            yield whole[(0, 2, 3)[offset] : (offset + len(data)) * 8 // 6]


def _occurrences(text: str, secret: str) -> Iterator[Span]:
    at = text.find(secret)
    while at >= 0:
        yield at, at + len(secret)
        at = text.find(secret, at + 1)


def _within(spans: list[Span], first: int, start: int, end: int) -> Iterator[Span]:
    """Yield the parts of the spans that lie in a line, counted from its start."""
    for one, other in spans[first : bisect_right(spans, (end,))]:
        if one < end and other > start:
            yield max(one, start) - start, min(other, end) - start


def _replaced(text: str, spans: Iterable[Span]) -> str:
    parts, done = [], 0
    for start, end in spans:
        parts += [text[done:start], MASK]
        done = end
    return "".join([*parts, text[done:]])


def _split(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[:-1] if not lines[-1] else lines


def _end(text: str) -> list[str]:
    """Return what is shown after the last line of a text that does not end it."""
    return [_NO_END] if text and not text.endswith("\n") else []


def _text(data: bytes | None) -> str | None:
    """Return the text of a file; None for what is no text."""
    try:
        text = (data or b"").decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _visible(line: str) -> str:
    """Return the line with what would steer a terminal written out."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", line)


def _range(start: int, end: int) -> str:
    length = end - start
    return f"{start + (length > 0)}" if length == 1 else f"{start + (length > 0)},{length}"
