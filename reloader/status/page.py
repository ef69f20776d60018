"""The document of `/status` as one page for people, without a script; it is loaded anew every few seconds."""

import base64
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from reloader.status.words import Document, overview

if TYPE_CHECKING:
    from jinja2 import Template

REFRESH = 5
"""Seconds until a browser loads the page again: by the page itself, since a proxy may drop a header that it does not know."""
GLANCE = 20
"""Lines of a diff that are shown without being asked for."""


class Page:
    """Makes the page; its template is read when somebody looks for the first time."""

    def html(self, document: Document, *, whole: str | None = None, still: bool = False) -> bytes:
        """Return the page; with the whole diff of one pipeline, and without loading itself again if `still`.

        Both are in the address, so that they are kept when the page is loaded again.
        """
        seen = overview(document)
        texts = {"style": self._style, "refresh": None if still else REFRESH, "whole": whole, "glance": GLANCE, "utc": _utc}
        return self._template.render(seen=seen, **texts).encode()

    @cached_property
    def policy(self) -> str:
        """Return the Content-Security-Policy of the page: nothing but its own style."""
        digest = base64.b64encode(sha256(self._style.encode()).digest()).decode()
        return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

    @cached_property
    def _style(self) -> str:
        return _file("page.css")

    @cached_property
    def _template(self) -> "Template":
        from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only for those who look

        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(_file("page.html"))


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).replace(microsecond=0)
