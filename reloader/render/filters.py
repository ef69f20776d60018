"""What templates can use beside what Jinja2 brings. Equal values give equal text: nothing here is random or knows the time."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from typing import Any

from reloader.render.failures import Unfit

_YAML_WIDTH = 1 << 30


def tojson(value: Any, indent: int | None = None) -> str:
    """Return the value as JSON, keys sorted, on one line unless `indent` gives the spaces of each level."""
    try:
        return json.dumps(value, indent=_step(indent), sort_keys=True, ensure_ascii=False, allow_nan=False, default=_json_form)
    except ValueError:
        raise Unfit("tojson: not a number, or infinite, which JSON does not have") from None


def toyaml(value: Any, indent: int = 2) -> str:
    """Return the value as YAML, keys sorted, without the last newline; put `indent` behind it to nest it."""
    if _has_bytes(value):
        raise Unfit("toyaml: holds content that is not text; use b64encode on it")
    import yaml  # noqa: PLC0415 - 1 MiB, only for templates that use it

    text: str = yaml.safe_dump(value, indent=_step(indent), allow_unicode=True, default_flow_style=False, width=_YAML_WIDTH)
    return text.removesuffix("\n...\n").rstrip("\n")


def fromjson(value: str) -> Any:
    """Return the value that a JSON text means."""
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
    raise Unfit(f"fromjson: not JSON ({place} of the value)")


def fromyaml(value: str) -> Any:
    """Return the value that a YAML text means."""
    import yaml  # noqa: PLC0415 - likewise

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1} of the value)" if mark else ""
    raise Unfit(f"fromyaml: not YAML{place}")


def fromtoml(value: str) -> Any:
    """Return the mapping that a TOML text means."""
    import tomllib  # noqa: PLC0415 - likewise

    try:
        return tomllib.loads(value)
    except tomllib.TOMLDecodeError:
        raise Unfit("fromtoml: not TOML") from None


def b64encode(value: str | bytes) -> str:
    """Return text (as UTF-8) or content in base64, on one line."""
    return base64.b64encode(_content("b64encode", value)).decode("ascii")


def b64decode(value: str | bytes) -> str | bytes:
    """Return what base64 stands for: text if it is UTF-8, else content that only b64encode and sha256 take."""
    try:
        data = base64.b64decode(b"".join(_content("b64decode", value).split()), validate=True)
    except binascii.Error:
        raise Unfit("b64decode: not base64") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def sha256(value: str | bytes) -> str:
    """Return the SHA-256 of text (as UTF-8) or content, in hexadecimal."""
    return hashlib.sha256(_content("sha256", value)).hexdigest()


def fullchain(value: Mapping[str, Any]) -> str:
    """Return the certificate that a PKI source issued, then its `ca_chain` (else its `issuing_ca`), each PEM ending in one newline."""
    if not isinstance(value, Mapping) or "certificate" not in value:
        raise Unfit("fullchain: expected what a PKI mount issues, a mapping with 'certificate'")
    authorities = value.get("ca_chain") or value.get("issuing_ca") or []
    chain = [authorities] if isinstance(authorities, str) else authorities
    return "".join(f"{str(pem).strip()}\n" for pem in (value["certificate"], *chain))


_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    b64decode,
    b64encode,
    fromjson,
    fromtoml,
    fromyaml,
    fullchain,
    sha256,
    tojson,
    toyaml,
)
OWN: Mapping[str, Callable[..., Any]] = {function.__name__: function for function in _FUNCTIONS}
FILTERS: tuple[str, ...] = tuple(OWN)
"""The names of our own filters; Jinja2's are there beside them, except `WITHOUT`."""
WITHOUT: tuple[str, ...] = ("random",)
"""Filters of Jinja2 that are taken out: a set that differs each time would be published each time."""


def _content(name: str, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value).encode()
    raise Unfit(f"{name}: expected text, not a value of type {type(value).__name__}; tojson makes text of it")


def _step(indent: Any) -> int | None:
    if indent is None or (isinstance(indent, int) and 0 <= indent <= 16):  # noqa: PLR2004 - wide enough for any hand
        return indent
    raise Unfit("an indent is a number of spaces from 0 to 16")


def _json_form(value: Any) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        raise Unfit("tojson: holds content that is not text; use b64encode on it")
    raise Unfit(f"tojson: JSON has no form for a value of type {type(value).__name__}")


def _has_bytes(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_bytes, value.values()))
    return isinstance(value, bytes) or (isinstance(value, Iterable) and not isinstance(value, str) and any(map(_has_bytes, value)))
