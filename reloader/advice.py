"""What would serve an operator better: a proof that suits a program that is known, and how late changes are seen of many sources."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from reloader.backends.consul.folds import folds
from reloader.backends.consul.reads import Key
from reloader.plan import Consul, Pipeline, Verify
from reloader.schedule import round_of_turns
from reloader.sources import make

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


def delays(pipelines: Iterable[Pipeline]) -> Iterator[str]:
    """Yield for each Consul that has fewer connections than reads how late a change may be seen; a fold is what spares them turns."""
    servers: dict[str, list[tuple[Consul, object]]] = {}
    for pipeline in pipelines:
        for source in pipeline.sources.values():
            made = make(source.kind, source.settings, pipeline.connections)
            if isinstance(made.backend, Consul):
                servers.setdefault(made.backend.address, []).append((made.backend, made.read))
    for address, asked in servers.items():
        most = min(backend.max_connections for backend, _ in asked)
        if len(set(asked)) > most:
            yield f"{address}: {_delay(set(asked), most)}"


def _delay(asked: set[tuple[Consul, object]], connections: int) -> str:
    """Return how late a change may be seen where that many reads share the connections."""
    together = folds({read.key for _, read in asked if isinstance(read, Key)}, connections)
    alone = len(asked) - sum(map(len, together.values()))
    turns = f"{len(asked)} reads take turns on {connections} connections, so a change is seen after up to {_late(len(asked), connections)}"
    if not together:
        return f"{turns}; raise consul.max_connections to shorten that"
    some = sorted(together)
    named = ", ".join(some[:3]) + (f" and {len(some) - 3} folders more" if len(some) > 3 else "")  # noqa: PLR2004 - enough for a line
    reads = len(together) + alone
    then = f"after up to {_late(reads, connections)}" if reads > connections else "at once"
    return f"{turns}, or {then} where the token may read the folders that they share ({named})"


def _late(reads: int, connections: int) -> str:
    return f"{round_of_turns(reads, connections):.0f} s"


def _names(cmdline: str, program: str) -> bool:
    """Return whether a regular expression speaks of that program, rather than of a directory or of another program named after it."""
    literal = re.sub(r"\\.", " ", cmdline)
    return re.search(rf"(?<![\w-]){program}(?![\w/-])", literal) is not None
