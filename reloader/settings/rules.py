"""What must hold between the keys of one file, beside those of its volume."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from itertools import permutations
from keyword import iskeyword
from typing import Any
from urllib.parse import urlsplit

from reloader import plan, sources
from reloader.render import RESERVED_NAMES
from reloader.settings.model import Document
from reloader.settings.tree import MISSING, Loc, Problem, Tree
from reloader.settings.volumes import is_within

_PROOFS = ("alive", "workers", "http", "command")
_MAY_BE_EMPTY = ("content", "default", "prefix", "write")
_AUTH_KEYS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "token": ((), ("token", "token_file")),
    "kubernetes": (("role",), ("mount", "jwt_file")),
    "approle": (("role_id", "secret_id_file"), ("mount", "secret_id_wrapped")),
    "jwt": (("role", "jwt_file"), ("mount",)),
    "userpass": (("username", "password_file"), ("mount",)),
    "cert": ((), ("mount", "role")),
}
"""Which keys of vault.auth each method needs, and which it may have."""


def as_written(tree: Tree) -> Iterator[Problem]:
    """Yield what is wrong whatever the values are: names, what is missing, what is empty."""
    yield from _names(tree)
    yield from _present(tree)
    yield from _empty_texts(tree.data, ())


def between_keys(document: Document, tree: Tree) -> Iterator[Problem]:
    """Yield what is wrong between the keys of one file."""
    yield from _addresses(document)
    yield from _credentials(document)
    yield from _auth(document, tree)
    yield from _settings(document, tree)
    yield from _ages(document, tree)
    yield from _durations(document)
    yield from _verify(document, tree)
    yield from _failure(document)
    yield from _listen(document)
    yield from _state(document)


def connections(document: Document) -> plan.Connections:
    """Return the servers that have an address."""
    return plan.Connections(
        vault=document.vault if document.vault.address else None, consul=document.consul if document.consul.address else None
    )


def _names(tree: Tree) -> Iterator[Problem]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(tree.look(("name",)))):
        yield ("name",), "expected letters, digits, dots, dashes and underscores only (without the key, the name is that of the file)"
    for name in tree.keys("sources"):
        if not name.isidentifier() or not name.isascii():
            yield ("sources", name), "expected a name of letters, digits and underscores that begins with no digit, for use in templates"
        elif iskeyword(name) or name in RESERVED_NAMES:
            yield ("sources", name), "this name means something else in templates; choose another"
    files = list(tree.keys("volume", "files"))
    yield from ((("volume", "files", name), message) for name in files if (message := _wrong_name(name)))
    yield from _folders(files)


def _present(tree: Tree) -> Iterator[Problem]:
    if not tree.has("target"):
        yield ("target",), "required"
    if not tree.has("sources") or tree.look(("sources",)) == {}:
        yield ("sources",), "required: at least one source"


def _addresses(document: Document) -> Iterator[Problem]:
    for key, address, example in (
        ("vault", document.vault.address, "https://vault:8200"),
        ("consul", document.consul.address, "http://consul:8500"),
    ):
        if address and (message := _wrong_address(address, example)):
            yield (key, "address"), message


def _wrong_address(address: str, example: str) -> str:
    """Return what is wrong with an address, never quoting it: it may hold a password."""
    try:
        parts = urlsplit(address)
        whole = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole or re.search(r"\s", address):
        return f"expected an address such as {example}"
    if parts.username is not None or parts.query or parts.fragment:
        return f"expected nothing but an address such as {example}: no user, password or query"
    return ""


def _credentials(document: Document) -> Iterator[Problem]:
    for above, token, token_file in (
        (("vault", "auth"), document.vault.auth.token, document.vault.auth.token_file),
        (("consul",), document.consul.token, document.consul.token_file),
    ):
        if token is not None and token_file is not None:
            yield (*above, "token_file"), "expected token or token_file, not both"
    for key, tls in (("vault", document.vault.tls), ("consul", document.consul.tls)):
        yield from (((key, *inner.split(".")), message) for inner, message in tls.mistakes(None))


def _auth(document: Document, tree: Tree) -> Iterator[Problem]:
    """Yield the keys of vault.auth that belong to another method, and those that this one lacks."""
    method = document.vault.auth.method
    if tree.look(("vault", "auth", "method")) not in (MISSING, method):
        return  # a mistake of its own
    required, _ = _AUTH_KEYS[method]
    for key in tree.keys("vault", "auth"):
        methods = [name for name, (must, may) in _AUTH_KEYS.items() if key in {*must, *may}]
        if methods and method not in methods:
            yield ("vault", "auth", key), f"expected with method {' or '.join(methods)} only; the method here is {method}"
    missing = [key for key in required if not tree.has("vault", "auth", key)]
    if missing:
        yield ("vault", "auth"), f"method {method} needs {' and '.join(missing)}"
    if method == "cert" and document.vault.tls.cert_file is None:
        yield ("vault", "auth", "method"), "method cert needs vault.tls.cert_file: the certificate that says who we are"


def _settings(document: Document, tree: Tree) -> Iterator[Problem]:
    """Yield what the kinds themselves find wrong, and which source has no server to ask."""
    for name, source in document.sources.items():
        found = list(_own_mistakes(source.settings))
        yield from ((("sources", name, *key), message) for key, message in found)
        # An address that is written but wrong is a mistake of its own.
        if not found and not (tree.has(source.kind, "address") and getattr(connections(document), source.kind, None) is None):
            yield from _unmade(name, source, connections(document))
    if document.target is not None:
        yield from ((("target", *key), message) for key, message in _own_mistakes(document.target.settings))


def _own_mistakes(settings: Any) -> Iterator[tuple[Loc, str]]:
    find: Callable[[], Iterator[tuple[str, str]]] = getattr(settings, "mistakes", lambda: iter(()))
    for key, message in find():
        yield tuple(key.split(".")), message


def _unmade(name: str, source: plan.Source, servers: plan.Connections) -> Iterator[Problem]:
    try:
        sources.make(source.kind, source.settings, servers)
    except ValueError as error:
        yield ("sources", name), str(error)


def _ages(document: Document, tree: Tree) -> Iterator[Problem]:
    """Yield the sources that would be too old by their own poll."""
    for name, source in document.sources.items():
        poll = getattr(source.settings, "effective_poll", getattr(source.settings, "poll", None))
        limit = document.failure.max_staleness if source.max_staleness is None else source.max_staleness
        if poll is None or limit >= poll:
            continue
        at = next(
            (loc for loc in (("sources", name, "max_staleness"), ("failure", "max_staleness")) if tree.has(*loc)), ("sources", name, "poll")
        )
        yield at, f"max_staleness is shorter than the poll of source {name!r}, which would be too old between two reads"


def _durations(document: Document) -> Iterator[Problem]:
    check = document.volume and document.volume.check
    for loc, seconds in ((("timing", "resync"), document.timing.resync), (("volume", "check", "timeout"), check.timeout if check else 1.0)):
        if seconds <= 0:
            yield loc, "expected a duration longer than 0s"


def _verify(document: Document, tree: Tree) -> Iterator[Problem]:
    if document.target is None:
        return
    verify = document.target.verify
    proofs = [name for name in _PROOFS if getattr(verify, name) is not None]
    if len(proofs) > 1:
        yield ("target", "verify"), f"expected one proof, not {' and '.join(proofs)}"
    yield from (
        (("target", "verify", name), "expected true; remove the key for no such proof")
        for name in ("alive", "workers")
        if getattr(verify, name) is False
    )
    if verify.workers and document.target.kind not in ("process", "exec"):
        yield ("target", "verify", "workers"), "expected only for a target of kind process or exec"
    if document.target.kind == "none" and (asked := [name for name in proofs if name in ("http", "command")]):
        yield ("target", "verify", asked[0]), "expected only for a target that is told to reload, which kind none is not"
    if verify.command == ():
        yield ("target", "verify", "command"), "expected a program and its arguments, such as [pg_isready]"
    if verify.http is None:
        written = [name for name in ("status", "body", "json") if tree.has("target", "verify", name)]
        yield from ((("target", "verify", name), "expected only beside http, whose answer it is about") for name in written)
        if verify.tls != plan.Tls():
            yield ("target", "verify", "tls"), "expected only beside http, whose server it is about"
    yield from ((("target", "verify", *key.split(".")), message) for key, message in verify.tls.mistakes(verify.http))


def _failure(document: Document) -> Iterator[Problem]:
    """Yield what cannot be done when the pipeline closes, and what cannot be published at first."""
    failure, volume = document.failure, document.volume
    if failure.fallback is not None:
        if volume is None:
            yield ("failure", "fallback"), "expected only with a volume, to which it is published"
        elif is_within(failure.fallback, volume.path):
            yield ("failure", "fallback"), "expected a directory of its own, not one within volume.path"
    names = [plan.closing_name(action) for action in failure.when_closed]
    for position, name in enumerate(names):
        if name in names[:position]:
            yield ("failure", "when_closed", position), f"{name} is there twice"
        elif message := _impossible(name, names, document):
            yield ("failure", "when_closed", position), message


def _impossible(action: str, actions: Sequence[str], document: Document) -> str:
    """Return why closing cannot do this here; nothing where it can."""
    volume, target = document.volume, document.target
    if action == "withdraw" and volume is None:
        return "expected only with a volume, from which what is published is taken away"
    if action == "withdraw" and volume is not None and volume.in_place:
        return "expected only without volume.in_place: files that are mounted one by one cannot be taken away at once"
    if action == "stop_target" and "withdraw" not in actions:
        return "expected beside withdraw: a target that is started again would run on what is published"
    if action == "stop_target" and target is not None and target.kind not in ("process", "exec"):
        return "expected only for a target of kind process or exec"
    return ""


def _listen(document: Document) -> Iterator[Problem]:
    listen = document.server.listen
    host, colon, port = listen.rpartition(":")
    if listen != "off" and not (colon and _is_host(host) and re.fullmatch("[0-9]{1,5}", port) and int(port) <= 65535):  # noqa: PLR2004 - TCP's
        yield ("server", "listen"), 'expected an address and a port such as "[::]:9533" or "127.0.0.1:9533", or "off"'


def _state(document: Document) -> Iterator[Problem]:
    path = document.state.path
    if path is None:
        return
    if not path.startswith("/"):
        yield ("state", "path"), "expected an absolute path, such as /run/reloader"
    elif document.volume is not None and is_within(path, document.volume.path):
        yield ("state", "path"), "expected a directory that the target never mounts, and so none within volume.path"


def _is_host(host: str) -> bool:
    if host.startswith("["):
        try:
            return host.endswith("]") and bool(ip_address(host[1:-1]))
        except ValueError:
            return False
    return bool(re.fullmatch(r"([A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?)?", host))


def _folders(names: Sequence[str]) -> Iterator[Problem]:
    """Yield the names that would be a file and a folder at once."""
    for outer, inner in permutations(names, 2):
        if inner.startswith(f"{outer}/"):
            yield ("volume", "files", inner), f"{outer!r} cannot be a file and a folder"


def _wrong_name(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        return "expected a name relative to volume.path that does not leave it"
    if parts[0].startswith(".."):
        return "names that begin with '..' are the volume's own"
    if {"", "."} & set(parts) or "\0" in name:
        return "expected a file name, with / between its folders"
    return ""


def _empty_texts(written: Any, loc: Loc) -> Iterator[Problem]:
    """Yield the keys with an empty text, which is what a variable that was not set leaves behind."""
    if written == "" and loc != ("name",):
        yield loc, "expected a text that is not empty"
    for key, value in written.items() if isinstance(written, dict) else ():
        if key not in _MAY_BE_EMPTY or len(loc) < 2:  # noqa: PLR2004 - such a key of a source or a file, not a source of that name
            yield from _empty_texts(value, (*loc, key))
