"""The scenarios, found by name: a module whose docstring begins with what is measured, and `run(bench)`, which yields what it found."""

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterable, Iterator

from benchmarks.bench import Bench, Finding
from benchmarks.machine import load
from benchmarks.report import OURS, Result, Row, Skipped
from tests.servers import UnavailableError


def names() -> list[str]:
    """Return the names of all scenarios."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def run(name: str, bench: Bench) -> Result:
    """Run one scenario; without a server that it needs, nobody is measured."""
    module = importlib.import_module(f"{__name__}.{name}")
    before, began = load(), time.monotonic()
    found = list(_measured(module.run, bench))
    return Result(
        name=name,
        about=(module.__doc__ or "").partition("\n")[0].rstrip("."),
        rows=[each for each in found if isinstance(each, Row)],
        skipped=[each for each in found if isinstance(each, Skipped)],
        load_before=before,
        load_after=load(),
        took=time.monotonic() - began,
    )


def _measured(measure: Callable[[Bench], Iterable[Finding]], bench: Bench) -> Iterator[Finding]:
    try:
        yield from measure(bench)
    except UnavailableError as reason:
        yield Skipped(OURS, str(reason))
