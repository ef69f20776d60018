"""`python -m benchmarks`: the command line."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TextIO

from benchmarks import scenarios
from benchmarks.bench import QUICK, Bench, Size
from benchmarks.machine import Machine
from benchmarks.report import Result, document, heading, table
from benchmarks.servers import Servers
from benchmarks.target import Maker


def main() -> None:
    """Run the scenarios that are asked for, a table after each, and one JSON document at the end if a file for it is named."""
    options = _parser().parse_args()
    tables = sys.stderr if options.json == "-" else sys.stdout
    with _bench(options) as bench:
        machine = Machine.look(bench.directory.parent, bench.targets.language)
        print(heading(machine, quick=options.quick), file=tables, flush=True)
        results = [_run(name, bench, tables) for name in options.only or scenarios.names()]
    if options.json:
        made = json.dumps(document(machine, {**asdict(bench.size), "quick": options.quick}, results), indent=1)
        print(made) if options.json == "-" else Path(options.json).write_text(made + "\n")


@contextmanager
def _bench(options: argparse.Namespace) -> Iterator[Bench]:
    size = QUICK if options.quick else Size()
    chosen = {name: given for name in ("rounds", "pause") if (given := getattr(options, name)) is not None}
    with tempfile.TemporaryDirectory(prefix="reloader-benchmarks-", dir=options.directory) as folder:
        directory = Path(folder)
        with closing(Servers(directory)) as servers:
            yield Bench(directory, Maker(directory), servers, replace(size, **chosen))


def _run(name: str, bench: Bench, tables: TextIO) -> Result:
    result = scenarios.run(name, bench)
    print(f"\n{table(result)}", file=tables, flush=True)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures reloader beside what a user would pick instead.")
    names = scenarios.names()
    parser.add_argument(
        "--only", action="append", choices=names, metavar="SCENARIO", help=f"this one (may be repeated), of {', '.join(names)}"
    )
    parser.add_argument("--quick", action="store_true", help="every step, but too short for the figures to mean anything")
    parser.add_argument("--rounds", type=_positive, help=f"how often each quick thing is done (default: {Size.rounds})")
    parser.add_argument("--pause", type=float, help=f"seconds of quiet after each, up to twice that (default: {Size.pause})")
    parser.add_argument("--directory", metavar="DIR", help="work below this: chooses the file system (default: where temporary files are)")
    parser.add_argument("--json", metavar="FILE", help="write a document for machines there as well; - for standard output")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


if __name__ == "__main__":
    main()
