"""The scenarios, found by name: a module whose docstring begins with what is measured, and `run(bench)`, which yields what it found."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable

from benchmarks.bench import Bench, Finding
from benchmarks.machine import load
from benchmarks.report import Result, Row, Skipped


def names() -> list[str]:
    """Return the names of all scenarios."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def run(name: str, bench: Bench) -> Result:
    """Run one scenario."""
    module = importlib.import_module(f"{__name__}.{name}")
    measure: Callable[[Bench], Iterable[Finding]] = module.run
    before = load()
    found = list(measure(bench))
    return Result(
        name=name,
        about=(module.__doc__ or "").partition("\n")[0].rstrip("."),
        rows=[each for each in found if isinstance(each, Row)],
        skipped=[each for each in found if isinstance(each, Skipped)],
        load_before=before,
        load_after=load(),
    )
