"""`python -m benchmarks.fleet`: the command line."""

import argparse
from pathlib import Path

from benchmarks.fleet.house import Size
from benchmarks.fleet.scenarios import ALL, Measured

SIDECARS, SEED = 10_000, 1
PICTURES = Path(__file__).parents[2] / "docs" / "img"


def main() -> None:
    """Run the scenarios that are asked for: figures to read, and a picture of each."""
    options = _parser().parse_args()
    size = Size(sidecars=options.sidecars, seed=options.seed, capacity=options.capacity)
    print(f"{size.sidecars:,} sidecars, a server that answers {size.capacity:g} x their steady load, seed {size.seed}")
    for name in options.scenarios or ALL:
        measured = ALL[name](size)
        _tell(name, measured)
        options.pictures.mkdir(parents=True, exist_ok=True)
        (options.pictures / f"fleet-{name}.svg").write_text(measured.chart.svg(), encoding="utf-8")


def _tell(name: str, measured: Measured) -> None:
    print(f"\n{name}: {measured.about}")
    width = max(map(len, measured.figures))
    for figure, value in measured.figures.items():
        print(f"  {figure:{width}}  {value:,.2f}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description="Simulates a fleet of sidecars and one Vault.")
    parser.add_argument("scenarios", nargs="*", choices=[*ALL, []], metavar="SCENARIO", help=f"of {', '.join(ALL)}; all unless named")
    parser.add_argument("--sidecars", type=int, default=SIDECARS, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=SEED, help="another one is another run (default: %(default)s)")
    parser.add_argument(
        "--capacity", type=float, default=2.0, help="requests the server can answer, in steady loads (default: %(default)s)"
    )
    parser.add_argument("--pictures", type=Path, default=PICTURES, metavar="DIR", help="where the SVG files go (default: docs/img)")
    return parser


if __name__ == "__main__":
    main()
