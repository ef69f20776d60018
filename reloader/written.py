"""The forms in which an operator writes a value: durations, file modes, signals, addresses, secrets.

A value that has a form of its own carries its parser as an annotation, so that one class says both what the operator writes and what the
house works with. Nothing here knows pydantic.
"""

import re
import signal as signals
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Annotated, Any, TypeVar, dataclass_transform
from urllib.parse import urlsplit

Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def plain(cls: Class) -> Class:
    """Make a frozen, keyword-only dataclass in which an unknown key is a mistake."""
    cls.__pydantic_config__ = {"extra": "forbid", "hide_input_in_errors": True}  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)  # type: ignore[return-value]


class Written:
    """An annotation: the operator's text becomes the value by `parse`, which raises ValueError with what was expected."""

    def __init__(self, parse: Callable[[Any], Any]) -> None:
        self.parse = parse

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> dict[str, Any]:
        # A core schema is a plain dict, so that this module can say how it is parsed without importing pydantic.
        return {"type": "function-plain", "function": {"type": "no-info", "function": self.parse}}


class Secret:
    """A text that no `repr`, `str`, format or error shows; `reveal()` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, for the one call that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(**********)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> dict[str, Any]:
        return {"type": "function-plain", "function": {"type": "no-info", "function": cls._parse}}

    @classmethod
    def _parse(cls, written: Any) -> "Secret":
        if isinstance(written, cls):
            return written
        if not isinstance(written, str) or not written:
            raise ValueError("expected a text that is not empty")
        return cls(written)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(written: Any) -> float:
    """Return seconds from `200ms`, `5s`, `1m30s` or `10m`.

    Raises:
        ValueError: the text is none of these.

    """
    text = str(written).strip()
    parts = _DURATION.findall(text)
    if text == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("expected a duration such as 200ms, 5s, 1m30s or 10m")
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def parse_limit(written: Any) -> float:
    """Return seconds as `parse_duration` does, or infinity for `never`."""
    if written == "never":
        return inf
    try:
        return parse_duration(written)
    except ValueError:
        raise ValueError("expected a duration such as 200ms, 5s, 10m, or never") from None


def parse_mode(written: Any) -> int:
    """Return permission bits from text such as `"0640"`.

    Raises:
        ValueError: not text (YAML reads a bare 0640 as an octal number and a bare 640 as a decimal one), or not an octal mode.

    """
    if not isinstance(written, str) or not re.fullmatch(r"0?[0-7]{3}", written):
        raise ValueError('expected a file mode in quotes, such as "0640"')
    return int(written, 8)


def parse_signal(written: Any) -> int:
    """Return the number of a signal from `HUP`, `SIGHUP` or `1`.

    Raises:
        ValueError: this system has no such signal.

    """
    text = str(written).upper()
    known = {name.removeprefix("SIG"): member.value for name, member in signals.Signals.__members__.items()}
    number = int(text) if re.fullmatch("[0-9]{1,3}", text) else known.get(text.removeprefix("SIG"), 0)
    if number not in signals.valid_signals():
        raise ValueError("expected a signal such as HUP, SIGHUP or 1")
    return int(number)


def signal_name(number: int) -> str:
    """Return what people call a signal."""
    try:
        return signals.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def parse_regex(written: Any) -> str:
    """Return the text if it is a regular expression.

    Raises:
        ValueError: it is not, and why.

    """
    if not isinstance(written, str):
        raise ValueError("expected a regular expression, as a text in quotes")  # noqa: TRY004 - pydantic takes no other
    try:
        re.compile(written)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression ({error})") from None
    return written


def parse_whole(written: Any) -> int:
    """Return a whole number from 0 up, also from the text of an environment variable.

    Raises:
        ValueError: it is none (`yes`, which YAML reads as true, is none either).

    """
    if isinstance(written, bool) or not re.fullmatch("[0-9]{1,9}", str(written)):
        raise ValueError("expected a whole number, 0 or more")
    return int(written)


def parse_count(written: Any) -> int:
    """Return a whole number from 1 up, as `parse_whole` does."""
    try:
        number = parse_whole(written)
    except ValueError:
        number = 0
    if number == 0:
        raise ValueError("expected a whole number, 1 or more")
    return number


def parse_url(written: Any) -> str:
    """Return an address to ask.

    Raises:
        ValueError: it is none; what was written is not quoted, it may hold a password.

    """
    try:
        parts = urlsplit(written) if isinstance(written, str) else None
        whole = parts and parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        parts = whole = None
    if not parts or not whole or re.search(r"\s", str(written)):
        raise ValueError("expected an address such as http://localhost:8080/healthz")
    if parts.username is not None or parts.fragment:
        raise ValueError("expected an address such as http://localhost:8080/healthz, without a user and a fragment")
    return str(written)


def parse_status(written: Any) -> int:
    """Return the status of an HTTP answer.

    Raises:
        ValueError: there is no such status.

    """
    if isinstance(written, bool) or not re.fullmatch("[1-5][0-9]{2}", str(written)):
        raise ValueError("expected the status of an answer, such as 200")
    return int(written)


def parse_host_and_port(written: Any) -> str:
    """Return the text if it is a `HOST:PORT`, or a `:PORT` of this Pod.

    Raises:
        ValueError: it is not.

    """
    if not isinstance(written, str) or not re.fullmatch(r"([A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}", written):
        raise ValueError("expected a host and a port such as localhost:8080, or a port such as :8080")
    if not 1 <= host_and_port(written)[1] <= 65535:  # noqa: PLR2004 - TCP's
        raise ValueError("expected a port from 1 to 65535")
    return written


def host_and_port(address: str) -> tuple[str, int]:
    """Return the two parts of a `HOST:PORT`; without a host it is this one."""
    host, _, port = address.rpartition(":")
    return host.strip("[]") or "localhost", int(port)


Duration = Annotated[float, Written(parse_duration)]
Limit = Annotated[float, Written(parse_limit)]
Mode = Annotated[int, Written(parse_mode)]
Signal = Annotated[int, Written(parse_signal)]
Regex = Annotated[str, Written(parse_regex)]
Whole = Annotated[int, Written(parse_whole)]
Count = Annotated[int, Written(parse_count)]
Url = Annotated[str, Written(parse_url)]
Status = Annotated[int, Written(parse_status)]
HostPort = Annotated[str, Written(parse_host_and_port)]
