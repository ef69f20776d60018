"""How the pages become a site: `sphinx-build -W docs site`, where the extra `docs` is installed."""

import re
from pathlib import Path

from sphinx.application import Sphinx

project = "reloader"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "reloader"
myst_heading_anchors = 4  # headings have the anchors that GitHub gives them, so that a link works there too
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # Pygments knows Terraform's HCL alone


def leave_the_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Let links to other files of the repository bring the file: they are no pages of the site."""
    here = Path(app.srcdir, name).parent

    def as_file(link: re.Match[str]) -> str:
        path = (here / link[1]).resolve()
        return link[0] if path.is_relative_to(app.srcdir) else f"](path:{link[1]})"

    source[0] = re.sub(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)", as_file, source[0])


def setup(app: Sphinx) -> None:
    """Be called by Sphinx."""
    app.connect("source-read", leave_the_pages)
