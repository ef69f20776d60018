"""Lays the environment over a file: our own variables above what it says, those of Vault and Consul below."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reloader.settings import CONFIG
from reloader.settings.mistakes import Mistake, nearest
from reloader.settings.model import SHAPE
from reloader.settings.shape import can_be_made, is_text, members, takes_new_keys
from reloader.settings.tree import MISSING, Loc, Place, Tree
from reloader.settings.yamlfile import read_value

PREFIX = "RELOADER_"
_KUBERNETES = re.compile(
    r"RELOADER_([A-Z0-9]+_)*(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What the kubelet sets in every Pod beside a Service named `reloader`, or `reloader-metrics`."""


def overrides(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are meant for us; the kinds come first, since they say which other keys there are."""
    ours = {name: text for name, text in environ.items() if name.startswith(PREFIX) and name != CONFIG and not _KUBERNETES.fullmatch(name)}
    return dict(sorted(ours.items(), key=lambda item: (not item[0].endswith("__KIND"), item[0])))


def override(trees: Sequence[Tree], environ: Mapping[str, str]) -> list[Mistake]:
    """Lay our variables over every file that has their key, and return those that no file has a key for."""
    mistakes = []
    for name, text in overrides(environ).items():
        place = Place("environment", name)
        found = [(tree, *_resolve(name, tree)) for tree in trees]
        for tree, loc, annotation in found:
            if loc:
                mistakes += _put(tree, loc, annotation, text, place)
        if trees and not any(loc for _, loc, _ in found):
            mistakes.append(place.mistake((), _unknown_variable(name, trees)))
    return mistakes


def _put(tree: Tree, loc: Loc, annotation: Any, text: str, place: Place) -> list[Mistake]:
    try:
        tree.put(loc, text if is_text(annotation) else read_value(text), place)
    except ValueError as error:
        return [place.mistake(loc, str(error))]
    return []


def _resolve(name: str, tree: Tree) -> tuple[Loc, Any]:
    """Return the path of the key that a variable means in this file, and what may stand there; an empty path where there is none.

    A variable overrides what is there: it makes no source, no file and no volume.
    """
    loc: Loc = ()
    known: Mapping[str, Any] | None = SHAPE
    annotation: Any = None
    for part in name.removeprefix(PREFIX).split("__"):
        key = _key(part, known or {}) or (part.lower() if part and takes_new_keys(annotation) else "")
        if not key:
            return (), None
        loc, annotation = (*loc, key), (known or {}).get(key, str)
        written = tree.look(loc)
        if written is MISSING and not can_be_made(annotation):
            return (), None
        known = members(annotation, {} if written is MISSING else written)
    return loc, annotation


def _key(part: str, known: Mapping[str, Any]) -> str:
    """Return the key that a part of a variable's name means, in capitals or as written."""
    return next((key for key in known if key == part), "") or next((key for key in known if key.upper() == part.upper()), "")


def _unknown_variable(name: str, trees: Sequence[Tree]) -> str:
    near = nearest(name.removeprefix(PREFIX), {variable for tree in trees for variable in _variables(SHAPE, tree, ())})
    return f"unknown variable; did you mean {PREFIX}{near}?" if near else "unknown variable; no key of the configuration is named so"


def _variables(known: Mapping[str, Any], tree: Tree, above: Loc) -> Iterator[str]:
    """Yield the name of each variable that would be taken, without the prefix."""
    for key, annotation in known.items():
        loc = (*above, key)
        written = tree.look(loc)
        below = members(annotation, {} if written is MISSING else written)
        if below is None:
            yield "__".join(map(str, loc)).upper()
        elif written is not MISSING or can_be_made(annotation):
            yield from _variables(below, tree, loc)


def _as_it_is(text: str) -> str:
    return text


_TRUE, _FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}


def _flag(text: str) -> bool:
    """Return what the tools of Vault and Consul take for true or false (Go's ParseBool)."""
    if text not in _TRUE | _FALSE:
        raise ValueError("expected true or false")
    return text in _TRUE


def _not_flag(text: str) -> bool:
    return not _flag(text)


_USUAL: Mapping[str, tuple[Loc, Callable[[str], Any]]] = {
    "VAULT_ADDR": (("vault", "address"), _as_it_is),
    "VAULT_NAMESPACE": (("vault", "namespace"), _as_it_is),
    "VAULT_TOKEN": (("vault", "auth", "token"), _as_it_is),
    "VAULT_CACERT": (("vault", "tls", "ca_file"), _as_it_is),
    "VAULT_CLIENT_CERT": (("vault", "tls", "cert_file"), _as_it_is),
    "VAULT_CLIENT_KEY": (("vault", "tls", "key_file"), _as_it_is),
    "VAULT_TLS_SERVER_NAME": (("vault", "tls", "server_name"), _as_it_is),
    "VAULT_SKIP_VERIFY": (("vault", "tls", "verify"), _not_flag),
    "CONSUL_HTTP_ADDR": (("consul", "address"), _as_it_is),
    # Consul's own tools let the file win where both are set, so it comes first.
    "CONSUL_HTTP_TOKEN_FILE": (("consul", "token_file"), _as_it_is),
    "CONSUL_HTTP_TOKEN": (("consul", "token"), _as_it_is),
    "CONSUL_NAMESPACE": (("consul", "namespace"), _as_it_is),
    "CONSUL_PARTITION": (("consul", "partition"), _as_it_is),
    "CONSUL_CACERT": (("consul", "tls", "ca_file"), _as_it_is),
    "CONSUL_CLIENT_CERT": (("consul", "tls", "cert_file"), _as_it_is),
    "CONSUL_CLIENT_KEY": (("consul", "tls", "key_file"), _as_it_is),
    "CONSUL_TLS_SERVER_NAME": (("consul", "tls", "server_name"), _as_it_is),
    "CONSUL_HTTP_SSL_VERIFY": (("consul", "tls", "verify"), _flag),
}
"""The variables of Vault's and Consul's own tools, and the keys they stand for."""
USUAL_NAMES = (*_USUAL, "CONSUL_HTTP_SSL")


def usual(tree: Tree, environ: Mapping[str, str]) -> list[Mistake]:
    """Fill in what the file leaves open from the variables of Vault's and Consul's own tools; empty ones count as not set."""
    mistakes = []
    for name, (loc, parse) in _USUAL.items():
        if (text := environ.get(name)) and not _said(tree, loc) and not _logs_in(tree, loc):
            try:
                tree.put(loc, parse(text), Place("environment", name))
            except ValueError as error:
                mistakes.append(Mistake("environment", name, str(error)))
    return mistakes + _consul_scheme(tree, environ.get("CONSUL_HTTP_SSL") or "false")


def _said(tree: Tree, loc: Loc) -> bool:
    """Return whether the file says it, or, for a token, says where another one comes from."""
    *above, key = loc
    instead = {"token": "token_file", "token_file": "token"}.get(str(key), str(key))
    return tree.look(loc) is not MISSING or tree.look((*above, instead)) is not MISSING


def _logs_in(tree: Tree, loc: Loc) -> bool:
    """Return whether this is a token of Vault, and the file says that we log in for another one."""
    return loc == ("vault", "auth", "token") and tree.look(("vault", "auth", "method")) not in (MISSING, "token")


def _consul_scheme(tree: Tree, written: str) -> list[Mistake]:
    """Complete Consul's address, which its own tools take without a scheme."""
    loc = ("consul", "address")
    try:
        scheme = "https" if _flag(written) else "http"
    except ValueError as error:
        return [Mistake("environment", "CONSUL_HTTP_SSL", str(error))]
    address, place = tree.look(loc), tree.place(loc)
    if isinstance(address, str) and address and "://" not in address:
        tree.put(loc, f"{scheme}://{address}", place)
    elif isinstance(address, str) and scheme == "https" and place.name == "CONSUL_HTTP_ADDR":
        tree.put(loc, address.replace("http://", "https://", 1), place)
    return []
