"""What the rest of the house is told: plain frozen dataclasses.

`settings` validates the operator's file straight into these; nothing below it knows pydantic or the file format. A value that is written
in a form of its own (a duration, a file mode, a signal) carries its parser as an annotation, so that one class says both what the
operator writes and what the house works with.
"""

import re
import signal as signals
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform
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


@plain
class MaxChange:
    """Refuses a set in which more than this share of the published lines changed or went."""

    percent: int


SYNTAXES: Mapping[str, tuple[str, ...]] = {"json": (".json",), "yaml": (".yaml", ".yml"), "toml": (".toml",)}
"""The checks of syntax, and how the names of their files end."""
_NAMED_CHECKS = (*SYNTAXES, "keypair", "nonempty")


def parse_builtin(written: Any) -> "str | MaxChange":
    """Return a check of ours from its name, or from `{max_change: 50%}`.

    Raises:
        ValueError: there is no such check, or it takes no such share.

    """
    if written in _NAMED_CHECKS:
        return str(written)
    if not isinstance(written, dict) or list(written) != ["max_change"]:
        raise ValueError(f"expected one of: {', '.join(_NAMED_CHECKS)}, {{max_change: 50%}}")
    share = re.fullmatch("([0-9]{1,3})%", str(written["max_change"]))
    if share is None or not 1 <= int(share[1]) <= 100:  # noqa: PLR2004 - per cent
        raise ValueError("expected a share of the published lines from 1% to 100%, such as {max_change: 50%}")
    return MaxChange(percent=int(share[1]))


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
Builtin = Annotated[str | MaxChange, Written(parse_builtin)]

FailureMode = Literal["open", "closed"]


@plain
class Tls:
    """How a server proves itself to us, and we to it."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    verify: bool = True


@plain
class VaultAuth:
    """How a token is had."""

    method: Literal["token"] = "token"
    token: Secret | None = None
    token_file: str | None = None


@plain
class Vault:
    """A Vault or OpenBao server, and who we are there; equal ones share one backend."""

    address: str = ""
    namespace: str | None = None
    tls: Tls = Tls()
    auth: VaultAuth = VaultAuth()
    max_connections: Count = 4


@plain
class Consul:
    """A Consul agent or server, and who we are there; equal ones share one backend."""

    address: str = ""
    token: Secret | None = None
    token_file: str | None = None
    datacenter: str | None = None
    tls: Tls = Tls()
    max_connections: Count = 4


@plain
class Directory:
    """A directory on this machine; all who read from it share one watch and one scan."""

    path: str


@plain
class Local:
    """What needs no server: each read knows how to answer itself."""


BackendPlan = Vault | Consul | Directory | Local


@plain
class Connections:
    """The servers that a pipeline's sources may read from."""

    vault: Vault | None = None
    consul: Consul | None = None


@plain
class Source:
    """One source: what every kind has, and the settings of its own kind (a dataclass of `reloader.sources.KIND`)."""

    kind: str
    settings: Any
    parse: Literal["json", "yaml", "toml"] | None = None
    on_failure: FailureMode | None = None
    max_staleness: Limit | None = None


@plain
class File:
    """One file of the set; exactly one of `template`, `content` and `copy`."""

    template: str | None = None
    content: str | None = None
    copy: str | None = None
    decode: Literal["base64"] | None = None
    mode: Mode = 0o640
    owner: str | None = None
    group: str | None = None


@plain
class Check:
    """What the staged set must pass before it is published."""

    command: tuple[str, ...] | None = None
    timeout: Duration = 10.0
    builtin: tuple[Builtin, ...] = ()


@plain
class Volume:
    """The directory shared with the target, and the set of files on it."""

    path: str
    target_path: str | None = None
    files: Mapping[str, File] = field(default_factory=dict)
    copy: str | None = None
    dir_mode: Mode = 0o750
    keep: Whole = 3
    in_place: bool = False
    check: Check | None = None


@plain
class Verify:
    """What proves that a reload worked; exactly one proof, `alive` unless told otherwise."""

    alive: bool | None = None
    workers: bool | None = None
    http: Url | None = None
    status: Status = 200
    body: Regex | None = None
    json: Mapping[str, Any] | None = None
    command: tuple[str, ...] | None = None
    within: Duration = 2.0


@plain
class Target:
    """Who takes the configuration: what every kind has, and the settings of its own kind (a dataclass of `reloader.targets.KIND`)."""

    kind: str
    settings: Any
    verify: Verify = Verify()


@plain
class Timing:
    """When the pipeline acts; see `reloader.schedule`."""

    settle: Duration = 0.1
    settle_max: Duration = 2.0
    min_interval: Duration = 1.0
    splay: Duration = 0.0
    resync: Duration = 60.0


@plain
class FailurePolicy:
    """What happens when a part fails; see the table in `reloader.policy`."""

    mode: FailureMode = "open"
    startup_grace: Duration = 30.0
    max_staleness: Limit = 600.0
    retry_refused: Limit = 300.0
    when_closed: tuple[Literal["not_ready"], ...] = ("not_ready",)


@plain
class Pipeline:
    """Sources, files on a volume, one target."""

    name: str
    connections: Connections = Connections()
    sources: Mapping[str, Source]
    volume: Volume | None = None
    target: Target
    timing: Timing = Timing()
    failure: FailurePolicy = FailurePolicy()


@plain
class Server:
    """The HTTP endpoints of the process."""

    listen: str = "[::]:9533"
    details: Literal["loopback", "all"] = "loopback"


@plain
class State:
    """What the process keeps between two runs beside its volumes."""

    path: str | None = None


@plain
class Log:
    """How the process logs."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "logfmt", "console"] | None = None


@plain
class Plan:
    """All that one process does."""

    pipelines: tuple[Pipeline, ...]
    server: Server = Server()
    state: State = State()
    log: Log = Log()
