"""Which proof of a reload suits a program that is known better than its living on."""

import re
from collections.abc import Iterator
from dataclasses import replace

from reloader.plan import Pipeline, Verify

_WITH_WORKERS = ("nginx", "haproxy", "apache2", "httpd", "php-fpm", "gunicorn", "unicorn")
"""Programs whose master puts new workers in the place of the old ones when it took a new configuration."""


def advice(pipeline: Pipeline) -> Iterator[str]:
    """Yield what would prove more of the target; nothing where the operator chose a proof."""
    target = pipeline.target
    if target.kind != "process" or replace(target.verify, within=Verify.within) != Verify():
        return
    match = target.settings.match
    for program in _WITH_WORKERS:
        if match.name == program or _names(match.cmdline or "", program):
            yield f"{program}: verify {{workers: true}}; alive only notices a target that dies"


def _names(cmdline: str, program: str) -> bool:
    """Return whether a regular expression speaks of that program, rather than of a directory or of another program named after it."""
    literal = re.sub(r"\\.", " ", cmdline)
    return re.search(rf"(?<![\w-]){program}(?![\w/-])", literal) is not None
