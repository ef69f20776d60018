"""What the rest of the house is told: plain frozen dataclasses.

`settings` validates the operator's file straight into these; nothing below it knows pydantic or the file format.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from posixpath import dirname
from signal import SIGCONT, SIGSTOP, SIGTERM
from typing import Annotated, Any, Literal

from reloader.written import Count, Duration, Limit, Mode, Regex, Secret, Status, Url, Whole, Written, parse_signal, plain, signal_name


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


Builtin = Annotated[str | MaxChange, Written(parse_builtin)]


@plain
class StopTarget:
    """Ends the target while the pipeline is closed, by this signal."""

    signal: int = SIGTERM.value


CLOSING = ("not_ready", "withdraw", "stop_target", "exit")
"""What closing may do, in the order in which it is done."""


def parse_closing(written: Any) -> "str | StopTarget":
    """Return what closing does from its name, or from `{stop_target: QUIT}`.

    Raises:
        ValueError: there is no such thing, or no such signal.

    """
    if written == "stop_target":
        return StopTarget()
    if written in CLOSING:
        return str(written)
    if not isinstance(written, dict) or list(written) != ["stop_target"]:
        raise ValueError(f"expected one of: {', '.join(CLOSING)}, {{stop_target: QUIT}}")
    number = parse_signal(written["stop_target"])
    if number in (SIGSTOP, SIGCONT):
        raise ValueError(f"expected a signal that ends a process, which {signal_name(number)} does not")
    return StopTarget(signal=number)


Closing = Annotated[str | StopTarget, Written(parse_closing)]


def closing_name(action: str | StopTarget) -> str:
    """Return what the operator calls it."""
    return action if isinstance(action, str) else "stop_target"


FailureMode = Literal["open", "closed"]


@plain
class Tls:
    """How a server proves itself to us, and we to it."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    verify: bool = True

    def mistakes(self, url: str | None) -> Iterator[tuple[str, str]]:
        """Yield the key and the text of what is wrong, beside the address that this is about."""
        if self.key_file is not None and self.cert_file is None:
            yield "tls.key_file", "expected cert_file beside it"
        if self != Tls() and url is not None and not url.lower().startswith("https:"):
            yield "tls", "expected only for an address that begins with https://"


@plain
class VaultAuth:
    """How a token is had; each method has keys of its own."""

    method: Literal["token", "kubernetes", "approle", "jwt", "userpass", "cert"] = "token"
    mount: str | None = None
    token: Secret | None = None
    token_file: str | None = None
    role: str | None = None
    jwt_file: str | None = None
    role_id: str | None = None
    secret_id_file: str | None = None
    secret_id_wrapped: bool = False
    username: str | None = None
    password_file: str | None = None


@plain
class Vault:
    """A Vault or OpenBao server, and who we are there; equal ones share one backend."""

    address: str = ""
    namespace: str | None = None
    tls: Tls = Tls()
    auth: VaultAuth = VaultAuth()
    max_connections: Count = 4
    revoke_on_exit: bool = False
    """Whether what was issued is revoked at the end, once nobody uses it; each pipeline's own wish, whoever shares the backend."""


@plain
class Consul:
    """A Consul agent or server, and who we are there; equal ones share one backend."""

    address: str = ""
    token: Secret | None = None
    token_file: str | None = None
    datacenter: str | None = None
    namespace: str | None = None
    partition: str | None = None
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

    @property
    def template_directories(self) -> tuple[str, ...]:
        """Return the directories that templates are read from, whole."""
        return tuple(sorted({dirname(file.template) for file in self.files.values() if file.template}))


@plain
class Verify:
    """What proves that a reload worked; exactly one proof, `alive` unless told otherwise."""

    alive: bool | None = None
    workers: bool | None = None
    http: Url | None = None
    status: Status = 200
    body: Regex | None = None
    json: Mapping[str, Any] | None = None
    tls: Tls = Tls()
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
    fallback: str | None = None
    when_closed: tuple[Closing, ...] = ("not_ready",)

    @property
    def stop_target(self) -> StopTarget | None:
        """Return how the target is ended while the pipeline is closed, if it is."""
        return next((each for each in self.when_closed if isinstance(each, StopTarget)), None)

    def closes_by(self, action: str) -> bool:
        """Return whether closing does this."""
        return any(closing_name(each) == action for each in self.when_closed)


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
