"""Which proof of a reload suits a program that is known better than its living on."""

import re
from collections.abc import Iterator
from dataclasses import replace

from reloader.plan import Pipeline, Verify

_WITH_WORKERS = ("nginx", "haproxy", "apache2", "httpd", "php-fpm", "gunicorn", "unicorn")
"""Programs whose master puts new workers in the place of the old ones when it took a new configuration."""


_WITH_A_REQUEST = {"prometheus": 9090, "alertmanager": 9093, "blackbox_exporter": 9115}
"""Programs that say in answer to a request whether they took a new configuration, and the port that they usually have."""


def advice(pipeline: Pipeline) -> Iterator[str]:
    """Yield what would prove more of the target; nothing where the operator chose a proof."""
    target = pipeline.target
    if target.kind != "process" or replace(target.verify, within=Verify.within) != Verify():
        return
    match = target.settings.match
    for program in _WITH_WORKERS:
        if match.name == program or _names(match.cmdline or "", program):
            yield f"{program}: verify {{workers: true}}; alive only notices a target that dies"
    for program, port in _WITH_A_REQUEST.items():
        if match.name == program or _names(match.cmdline or "", program):
            enabled = " (it has to be started with --web.enable-lifecycle)" if program == "prometheus" else ""
            target_instead = f"{{kind: http, url: 'http://localhost:{port}/-/reload'}}"
            yield f"{program}: target {target_instead}; its answer says whether it took the set{enabled}, alive only notices a death"


def _names(cmdline: str, program: str) -> bool:
    """Return whether a regular expression speaks of that program, rather than of a directory or of another program named after it."""
    literal = re.sub(r"\\.", " ", cmdline)
    return re.search(rf"(?<![\w-]){program}(?![\w/-])", literal) is not None
