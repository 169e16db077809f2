"""Run the benchmarks by name and write ``benchmarks/latest.json``: ``make bench``.

Usage::

    python -m benchmarks                        # all, on the CPU
    python -m benchmarks local_training sampling
    python -m benchmarks --quick                # seconds; its figures mean little
    python -m benchmarks --device cuda          # on a GPU: the CIFAR-10 network
"""

import argparse
import importlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import LATEST, Options, Row
from phoenix_pipeline.errors import PhoenixError
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.json_files import write_json

BENCHMARKS = (
    "local_training",
    "field_habits",
    "federated_round",
    "sampling",
    "stacked_clients",
    "evaluation",
    "reading",
    "growth",
)
ON_GPU = BENCHMARKS[:5]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, print the table and write the rows."""
    asked = _parser().parse_args(arguments)
    options = Options(asked.quick, asked.device, asked.repetitions, asked.clock, asked.cifar10)
    names = asked.names or (ON_GPU if options.device.startswith("cuda") else BENCHMARKS)
    rows: list[Row] = []
    for name in names:
        found = importlib.import_module(f"benchmarks.{name}").run(options)
        for row in found:
            print(table_line(row), flush=True)
        rows += found
    write_json(asked.output, merge(_read(asked.output), rows))


def table_line(row: Row) -> str:
    """Return a row of the printed table."""
    ratio, spread, goal = (
        "" if value is None else f"{value:.2f}" for value in (row.ratio, row.spread, row.goal)
    )
    met = "" if row.ratio is None or row.goal is None else "met" if row.ratio >= row.goal else "no"
    return f"{row.name:<34}{ratio:>8}{spread:>8}{goal:>7} {met:<5}{row.compared}"


def merge(before: list[dict[str, object]], rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return ``before`` with the rows of this run in the place of those of the same names."""
    new = {row.name: row.as_json() for row in rows}
    kept = [row for row in before if row["name"] not in new]
    return sorted([*kept, *new.values()], key=lambda row: str(row["name"]))


def _read(path: Path) -> list[dict[str, object]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Ratios of speed; above 1 this project is faster."
    )
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="name")
    parser.add_argument("--quick", action="store_true", help="seconds; figures mean little")
    parser.add_argument("--device", default="cpu", type=_device, help="cpu (default) or cuda")
    parser.add_argument("--repetitions", default=5, type=int, help="pairs of runs (default 5)")
    parser.add_argument(
        "--clock",
        default="wall",
        choices=["wall", "cpu"],
        help="cpu: this process's CPU seconds, for a busy machine and one thread",
    )
    parser.add_argument("--cifar10", default=Options.cifar10, type=Path, help="folder to read from")
    parser.add_argument("--output", default=LATEST, type=Path, help="where the rows are written")
    return parser


def _device(name: str) -> str:
    try:
        return str(resolve_device(name))
    except (PhoenixError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(str(error).splitlines()[0]) from error


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*register_new_resolver")
    main()
