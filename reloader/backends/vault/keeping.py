"""What the Vault backend keeps for its next run: the token that it logged in for, and all that was issued."""

import hashlib
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from reloader.backends.kept import Kept
from reloader.backends.vault.identity import Identity, Token
from reloader.backends.vault.issued import Form
from reloader.backends.vault.leases import Leases
from reloader.plan import Vault
from reloader.world import World
from reloader.written import Secret

_KEY_BYTES = 16


class Keeping:
    """One file of `state.path`, written whenever something in it changes."""

    def __init__(self, directory: Path, plan: Vault, identity: Identity, leases: Leases, world: World) -> None:
        self._kept = Kept(directory, f"vault-{_name(plan)}", world)
        self._identity = identity
        self._leases = leases
        self._world = world
        self._lock = threading.Lock()
        self._key = secrets.token_hex(_KEY_BYTES)
        identity.on_change(self.save)

    def adopt(self) -> None:
        """Take up what an earlier run had: what has ended since is left out."""
        kept = self._kept.load()
        if kept is None:
            return
        try:
            self._take(kept)
        except (LookupError, TypeError, ValueError):  # among them `Damaged`
            self._kept.set_aside()

    def save(self) -> None:
        """Write down what there is now."""
        with self._lock:
            form = self._form()
            issued = [form.plain(each) for each in self._leases.all()]
            self._kept.save({"key": self._key, "identity": self._identity.keep(), "issued": issued})

    def close(self) -> None:
        """Write down what there is, and let another process have it."""
        self.save()
        self._kept.close()

    def _take(self, kept: Mapping[str, Any]) -> None:
        key = str(kept["key"])
        bytes.fromhex(key)
        self._key = key
        form = self._form()
        adopted = [form.issued(each) for each in kept["issued"]]
        if kept["identity"] is not None:
            self._identity.adopt(dict(kept["identity"]))
        for issued, mark in adopted:
            if issued.ends > self._world.clock.now():
                self._leases.adopt(issued, partial(_is_marked, form, mark))

    def _form(self) -> Form:
        return Form(self._key, ahead=self._world.clock.wall() - self._world.clock.now())


def _is_marked(form: Form, mark: str, token: Token) -> bool:
    return form.mark(token) == mark


def _name(plan: Vault) -> str:
    """Return a name for a server and who we are there, from which nothing can be told."""
    auth = {each.name: getattr(plan.auth, each.name) for each in fields(plan.auth)}
    known = {name: value for name, value in auth.items() if value is not None and not isinstance(value, Secret)}
    named = json.dumps({"address": plan.address, "namespace": plan.namespace, **known}, sort_keys=True, default=str)
    return hashlib.sha256(named.encode()).hexdigest()[:16]
