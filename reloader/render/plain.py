"""Values as plain data, and values as files."""

import json
from collections.abc import Iterator, Mapping
from datetime import date, time
from typing import Any

from reloader.render.failures import Unfit

_LONGEST_NAME = 255
"""Bytes of one component of a path on Linux's file systems."""


def plain(value: Any) -> Any:
    """Return a copy of a value in plain data, so that no template holds what others hold.

    Raises:
        Unfit: it holds an object that is no data.

    """
    if isinstance(value, str | bytes | int | float | date | time | None):
        return value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise Unfit(f"holds a value of type {type(value).__name__}, which is no plain data")


def content_of(name: str, value: Any) -> bytes:
    """Return a source's value as the content of one file."""
    if isinstance(value, Mapping):
        raise Unfit(f"copy: {name} has several values; volume.copy lays them out file by file, a template picks one")
    if not isinstance(value, str | bytes):
        raise Unfit(f"copy: {name} is a value of type {type(value).__name__}, not text; a template with tojson writes it")
    return utf8(value)


def files_of(name: str, value: Any) -> Iterator[tuple[str, bytes]]:
    """Yield a source's value file by file: text and content as they are, anything else as JSON."""
    if not isinstance(value, Mapping):
        raise Unfit(f"copy: {name} is one value, not a mapping of names; `files.NAME: {{copy: {name}}}` writes it")
    for key, item in value.items():
        if isinstance(key, str) and key.endswith("/") and not item:
            continue  # what Consul's user interface leaves for a folder
        _safe_name(name, key)
        yield key, utf8(item if isinstance(item, str | bytes) else _json(key, item))


def utf8(value: str | bytes) -> bytes:
    """Return text in UTF-8; content as it is."""
    try:
        return value if isinstance(value, bytes) else value.encode()
    except UnicodeEncodeError:
        pass
    raise Unfit("holds half of a surrogate pair, which UTF-8 cannot write")


def _json(key: str, value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except TypeError:
        pass
    raise Unfit(f"copy: {key} is neither text nor what JSON can write")


def _safe_name(name: str, key: Any) -> None:
    parts = key.split("/") if isinstance(key, str) else [""]
    if parts[0].startswith("..") or any(part in ("", ".", "..") or "\0" in part or len(_bytes(part)) > _LONGEST_NAME for part in parts):
        raise Unfit(f"copy: the key {key!r} of {name} is no name of a file on the volume (no leading '..', no empty part)")


def _bytes(part: str) -> bytes:
    return part.encode(errors="surrogatepass")
