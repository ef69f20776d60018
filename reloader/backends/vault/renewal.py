"""What is asked of a Vault server about a lease: more time, or its end."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any

from requests import codes

from reloader.backends.reads import ReadFailed
from reloader.backends.vault.client import Answered, Client
from reloader.backends.vault.identity import Token
from reloader.backends.vault.issued import Issued
from reloader.schedule import last_renewal, reissue, renewal
from reloader.world import World

_RENEW, _REVOKE, _REVOKE_SELF = "sys/leases/renew", "sys/leases/revoke", "auth/token/revoke-self"
_LEAST_DIFFERENCE = 0.5
"""How many seconds make a difference between two lifetimes, which are told in whole ones."""


class Gone(Exception):
    """The server does not know the lease any more: what was issued with it is dead."""


class Denied(Exception):
    """The lease may not be renewed, but lives on until its end."""


class Lessor:
    """The server as the owner of leases."""

    def __init__(self, client: Client, world: World) -> None:
        self._client = client
        self._world = world

    def renewed(self, issued: Issued) -> Issued:
        """Return it with the life that the server grants it now; one that is not granted in full any more is issued anew next.

        Raises:
            Gone: the server does not know it.
            Denied: it cannot be renewed.
            ReadFailed: nobody knows.

        """
        began, rng = self._world.clock.now(), self._world.random
        try:
            answer = self._asked(issued)
        except Answered as failed:
            _judge(failed)
            raise
        with self._client.understanding(_RENEW):
            left = float(answer.get("lease_duration") or 0)
        if left < issued.term - _LEAST_DIFFERENCE or not answer.get("renewable"):
            return replace(issued, ends=began + left, renew=inf, anew=last_renewal(began, left, issued.term, rng))
        return replace(issued, ends=began + left, renew=renewal(began, left, rng), anew=reissue(began, left, rng))

    def _asked(self, issued: Issued) -> Mapping[str, Any]:
        """Return what the server answers to the token that the lease hangs on, or to the current one where that one may not ask."""
        body, token = {"lease_id": issued.lease}, self._token_for(issued)
        if token is not None:
            try:
                return self._client.post(_RENEW, body, token=token).body
            except Answered as failed:
                if failed.status != codes.forbidden:
                    raise
                if not self._client.identity.lives(token):
                    raise Gone from None  # with its token
        # One that was revoked since is denied all the same: whether the lease lives on, it is not told.
        return self._client.post(_RENEW, body).body

    def _token_for(self, issued: Issued) -> Token | None:
        """Return the token that its lease hangs on, None where that is the current one, or is not known."""
        current = self._client.identity.token()
        return None if issued.token.serial == current.serial or not issued.token.text.reveal() else issued.token

    def revoke_lease(self, lease: str) -> str:
        """Revoke a lease; return why that failed, nothing where it did not."""
        return self._revoked(_REVOKE, {"lease_id": lease}, None)

    def revoke_token(self, token: Token) -> str:
        """Revoke a token of ours with all that hangs on it; return why that failed, nothing where it did not."""
        return self._revoked(_REVOKE_SELF, {}, token)

    def _revoked(self, path: str, body: Mapping[str, Any], token: Token | None) -> str:
        """Revoke something; return why that failed, nothing where it did not."""
        try:
            self._client.post(path, body, token=token)
        except Answered as failed:
            return "" if failed.status == codes.no_content else str(failed)
        except ReadFailed as failed:
            return str(failed)
        return ""


def _judge(failed: Answered) -> None:
    """Raise Gone or Denied where that is what the server said; what else it says (its plugin failed) says nothing of the lease.

    It says all of this with the status 400 (OpenBao 2.7, Vault 1.20).
    """
    errors = failed.body.get("errors")
    said = " ".join(map(str, errors)) if isinstance(errors, list) else ""
    if failed.refused(codes.not_found) or "lease not found" in said or "lease expired" in said:
        raise Gone from None
    if failed.refused(codes.forbidden) or "not renewable" in said:
        raise Denied(str(failed)) from None
