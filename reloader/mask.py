"""What a person may see of texts that hold secrets."""

import base64
import contextlib
import html
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from hashlib import sha256
from itertools import chain, groupby
from typing import Any, Literal
from urllib.parse import quote, quote_plus

from reloader.snapshot import Value

MASK = "********"
SHORTEST = 4
"""Characters from which on a secret is found anywhere in a text; a shorter one only where it stands as a word, and one alone never."""
_CONTEXT = 3
"""Lines shown around a change."""
_NEAR = 3
"""How many lines of the known text, on either side, may stand for one of the other."""

_LONGEST = 1000
"""Characters of a guarded line from which on it is masked whole: comparing it costs the square of its length."""
_NO_END = "\\ No newline at end of file"

_PRIVATE_KEY = re.compile(r"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_REST_OF_KEY = re.compile(r"\A(?:(?!-----BEGIN ).)*?-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----", re.DOTALL)
"""A text that was cut in the middle of a key."""
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SETTING = re.compile(r"""["']?[\w.-]+["']?\s*[:=]\s*["']?(.+?)["',;]*""")
"""A line that gives something a value, as in YAML, TOML, JSON over several lines, and files of environment variables."""
_TOKEN = re.compile(r"\*{8}|\w+|\s+|[^\w\s]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

Span = tuple[int, int]


class Mask:
    """Hides secrets, and private keys in PEM whoever brought them.

    A secret is every text and number in the values, each line of a longer text, and what stands behind the name on a line of settings;
    found as it is, in other cases, in JSON, in a URL, in HTML, as SHA-256, out of base64 and in it, also inside of something longer in
    base64 (`user:password`). What a template makes of a secret otherwise (a part of it) is not recognised. Names of fields are no secrets.
    """

    def __init__(self, secrets: Iterable[Value] = ()) -> None:
        leaves = {leaf for value in secrets for leaf in _leaves(value)}
        forms = {form for leaf in leaves for form in _forms(leaf)}
        self._anywhere = tuple(sorted(form for form in forms if len(form) >= SHORTEST))
        words = sorted({leaf.strip() for leaf in leaves if 1 < len(leaf.strip()) < SHORTEST}, key=len, reverse=True)
        self._words = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)") if words else None

    @property
    def effort(self) -> int:
        """Return how many texts are searched for."""
        return len(self._anywhere)

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


Unknown = Literal["old", "new"]
"""The side of a difference whose secrets nobody remembers."""


def masked_diff(old: Mapping[str, bytes], new: Mapping[str, bytes], mask: Mask, *, unknown: Unknown | None) -> Iterator[str]:
    """Yield the lines of a unified diff of two sets that shows no secret of either, each with its end; nothing when they are equal.

    Lines are compared as they are and masked afterwards, so that a changed secret shows as a changed line. `mask` knows the secrets of both
    sets, but for the one that is `unknown`: of its lines only those words and signs appear that also stand, unmasked and in this order, in
    one changed or neighbouring line of the other; all else in them is masked. A line that holds a secret is preferred for this, so that
    `password=OLD` shows as `password=********` even where OLD is a word that stands nearby.
    """
    for name in sorted({*old, *new}):
        yield from _file_diff(name, old.get(name), new.get(name), mask, unknown)


def changed_files(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each file that is not the same in both sets, told by whatever tells contents from each other."""
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"File {_visible(name)} {'added' if name not in old else 'removed' if name not in new else 'differs'}\n"


def _file_diff(name: str, old: bytes | None, new: bytes | None, mask: Mask, unknown: Unknown | None) -> Iterator[str]:
    if old == new:
        return
    before, after = _text(old), _text(new)
    if before is None or after is None:
        yield f"Binary file {_visible(name)} {'added' if old is None else 'removed' if new is None else 'differs'}\n"
        return
    yield f"--- {'/dev/null' if old is None else 'a/' + _visible(name)}\n"
    yield f"+++ {'/dev/null' if new is None else 'b/' + _visible(name)}\n"
    for line, _ in groupby(_Diff(before, after, mask, unknown).lines()):  # a key of thirty masked lines is shown as one
        yield f"{_visible(line)}\n"


class _Diff:
    """The difference between two texts."""

    def __init__(self, old: str, new: str, mask: Mask, unknown: Unknown | None) -> None:
        self._old, self._new = _split(old) + _end(old), _split(new) + _end(new)
        self._old_shown, self._new_shown = mask.lines(old) + _end(old), mask.lines(new) + _end(new)
        self._unknown = unknown

    def lines(self) -> Iterator[str]:
        """Yield the hunks."""
        for hunk in SequenceMatcher(None, self._old, self._new).get_grouped_opcodes(_CONTEXT):
            (_, i1, _, j1, _), (_, _, i2, _, j2) = hunk[0], hunk[-1]
            yield f"@@ -{_range(i1, i2)} +{_range(j1, j2)} @@"
            for tag, *places in hunk:
                yield from self._shown(tag, *places)

    def _shown(self, tag: str, i1: int, i2: int, j1: int, j2: int) -> Iterator[str]:
        if tag == "equal":
            known = self._old_shown[i1:i2] if self._unknown == "new" else self._new_shown[j1:j2]
            yield from (f" {line}" for line in known)
            return
        removed, added = self._old_shown[i1:i2], self._new_shown[j1:j2]
        yield from (f"-{line}" for line in (_guarded(removed, self._new_shown, j1, j2) if self._unknown == "old" else removed))
        yield from (f"+{line}" for line in (_guarded(added, self._old_shown, i1, i2) if self._unknown == "new" else added))


def _guarded(lines: list[str], known: list[str], start: int, end: int) -> Iterator[str]:
    """Yield the lines as far as they stand in the known ones, of which those from `start` to `end` take their place."""
    for index, line in enumerate(lines):
        # Where many lines changed, the line that stands as far into the others as this one into these.
        near = start + index * (end - start) // len(lines)
        yield _guarded_line(line, known[max(0, near - _NEAR) : near + _NEAR + 1])


def _guarded_line(line: str, models: list[str]) -> str:
    if line in ("", _NO_END):
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
    for part in _parts(leaf):
        if len(part) < SHORTEST:
            continue
        data = part.encode("utf-8", errors="surrogateescape")
        yield from (part, part.upper(), part.lower(), part.title(), part.capitalize(), part.replace("'", "''"))
        for written in (json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]):
            yield written
            yield from _in_base64(written.encode(errors="surrogateescape"))
        yield from (quote(data), quote(data, safe=""), quote_plus(data), html.escape(part), html.escape(part, quote=False))
        yield sha256(data).hexdigest()
        yield from _in_base64(data)
        if not part.isprintable():
            import yaml  # noqa: PLC0415 - 1 MiB, only for such secrets

            yield yaml.safe_dump(part, allow_unicode=True, default_style='"', width=len(part) * 9).strip().strip('"')
    whole = leaf.encode("utf-8", errors="surrogateescape")
    yield from _in_base64(whole)
    yield sha256(whole).hexdigest()


def _parts(leaf: str) -> set[str]:
    """Return a secret text, what it stands for in base64 or JSON, its lines, and the values in them."""
    texts = {leaf, *_from_base64(leaf)}
    texts |= {inner for text in tuple(texts) for inner in _from_json(text)}
    lines = {line.strip() for text in texts for line in text.splitlines()}
    values = {found[1] for line in lines if (found := _SETTING.fullmatch(line))}
    return {*texts, *(text.strip() for text in texts), *lines, *values}


def _from_base64(text: str) -> Iterator[str]:
    joined = "".join(text.split())
    if len(joined) >= SHORTEST and _BASE64.fullmatch(joined):
        with contextlib.suppress(ValueError):
            yield base64.b64decode(joined, validate=True).decode()


def _from_json(text: str) -> Iterator[str]:
    if text.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):
            yield from _leaves(json.loads(text))


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
