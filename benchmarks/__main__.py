"""`python -m benchmarks`: the command line."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import scenarios
from benchmarks.bench import PAUSE, ROUNDS, Bench
from benchmarks.machine import Machine
from benchmarks.report import Result, document, heading, table
from benchmarks.target import Maker


def main() -> None:
    """Run the scenarios that are asked for, a table after each or one JSON document at the end."""
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="reloader-benchmarks-", dir=options.directory) as folder:
        directory = Path(folder)
        bench = Bench(directory, Maker(directory), options.rounds, options.pause)
        machine = Machine.look(directory.parent, bench.targets.language)
        print(heading(machine), file=sys.stderr if options.json else sys.stdout, flush=True)
        results = [_run(name, bench, quiet=options.json) for name in options.scenarios or scenarios.names()]
    if options.json:
        print(json.dumps(document(machine, {"rounds": options.rounds, "pause": options.pause}, results), indent=1))


def _run(name: str, bench: Bench, *, quiet: bool) -> Result:
    result = scenarios.run(name, bench)
    if not quiet:
        print(f"\n{table(result)}", flush=True)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures reloader beside what a user would pick instead.")
    names = scenarios.names()
    parser.add_argument("scenarios", nargs="*", type=_scenario, metavar="SCENARIO", help=f"of {', '.join(names)}; all unless named")
    parser.add_argument("--rounds", type=_positive, default=ROUNDS, help="how often each quick thing is done (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=PAUSE, help="seconds of quiet after each, up to twice that (default: %(default)s)")
    parser.add_argument("--directory", metavar="DIR", help="work below this: chooses the file system (default: where temporary files are)")
    parser.add_argument("--json", action="store_true", help="one document for machines")
    return parser


def _scenario(text: str) -> str:
    if text not in scenarios.names():
        raise argparse.ArgumentTypeError(f"no scenario {text!r}; there are {', '.join(scenarios.names())}")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


if __name__ == "__main__":
    main()
