"""Keyed fingerprints of content: equal content has equal ones, and without the key they tell nothing of a secret."""

import hmac
from collections.abc import Iterator, Mapping
from typing import Any

from reloader.fileset import RenderedFile

KEY_BYTES = 32


def of_files(key: bytes, files: Mapping[str, RenderedFile], dir_mode: int) -> str:
    """Return the fingerprint of a set: names, contents, modes and owners."""
    return of_value(key, [dir_mode, {name: [file.mode, file.owner, file.group, file.data] for name, file in files.items()}])


def of_value(key: bytes, value: Any) -> str:
    """Return the fingerprint of plain data."""
    digest = hmac.new(key, digestmod="sha256")
    for piece in _pieces(value):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    """Yield the value so that no two different ones yield the same bytes: each part with its type and its length."""
    if isinstance(value, Mapping):
        yield b"m%d:" % len(value)
        for key in sorted(value, key=repr):
            yield from _pieces(key)
            yield from _pieces(value[key])
    elif isinstance(value, list | tuple):
        yield b"l%d:" % len(value)
        for item in value:
            yield from _pieces(item)
    else:
        yield from _leaf(value)


def _leaf(value: Any) -> Iterator[bytes]:
    data = value if isinstance(value, bytes) else (value if isinstance(value, str) else repr(value)).encode("utf-8", "surrogatepass")
    yield b"%s%d:" % (type(value).__name__.encode(), len(data))
    yield data
