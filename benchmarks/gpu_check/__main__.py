"""What only a card can show, in four minutes: ``make gpu-check``.

Usage::

    python -m benchmarks.gpu_check                  # on the first GPU
    python -m benchmarks.gpu_check --device cpu     # tiny, not compiled: tries the check itself

Exit status 1: a part failed; its reason is in the table and in the file.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu_check.children import NO_TIME, Part, run_parts
from benchmarks.gpu_check.project import PRESET, PROJECT
from benchmarks.gpu_check.report import PartResult, Report
from benchmarks.harness import machine
from phoenix_pipeline.errors import PhoenixError
from phoenix_pipeline.framework.project import open_config
from phoenix_pipeline.hardware import available_cores, resolve_device
from phoenix_pipeline.optimization.compilation import keep_compiled_code

_FOLDER = PROJECT / "data" / "gpu_check"
_SPEEDS = (
    "matrix_peak",
    "training_small",
    "clients",
    "sampling_large",
    "training_large",
    "round",
    "sampling_small",
)
# Adam's moments, personal layers and the filter: the most to lose in a kill.
_KILLED = "personalization"
# Each part keeps about a core busy, and more while it compiles.
_DEVICES = ("cuda", "cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts and print the tables; return the exit status."""
    asked = _parser().parse_args(arguments)
    kind = asked.device.partition(":")[0]
    began = time.monotonic()
    folder = asked.output.parent
    folder.mkdir(parents=True, exist_ok=True)
    # Those that may crash go first.
    parts = parts_of(asked, kind, "arms") + parts_of(asked, kind, "speed")
    waiting = {part.name: PartResult() for part in parts}
    # Before the parts have temporary folders of their own.
    keep_compiled_code()
    report = Report(asked.output, kind == "cuda", _conditions(asked, kind), waiting)
    report.write()

    def ended(name: str, result: PartResult) -> None:
        report.parts[name] = result
        report.conditions["seconds"] = time.monotonic() - began
        report.write()
        print(f"{name:<34}{result.status:<9}{result.seconds:>6.0f} s  {result.reason}", flush=True)

    side_by_side = available_cores()
    run_parts(parts, folder, side_by_side, began + asked.seconds, ended)
    print("\n".join(report.table()))
    print(f"\n{report.conditions['seconds']:.0f} s; everything is in {asked.output}")
    return 1 if report.failed() else 0


def parts_of(asked: argparse.Namespace, kind: str, phase: str) -> list[Part]:
    """Return the parts of ``arms`` or of ``speed``."""
    limit = asked.part_seconds
    options = ["--device", asked.device]
    options += ["--tiny"] if kind == "cpu" else []
    if phase == "speed":
        options += ["--compile"] if kind == "cuda" else []
        options += _places(asked, kind)
        return [
            Part(name, "benchmarks.gpu_check.speed", (name, *options), limit)
            for name in asked.speeds
        ]
    return [
        Part(
            f"arm_{arm}",
            "benchmarks.gpu_check.arms",
            (arm, *options, *(["--kill"] if arm == _KILLED else [])),
            limit,
        )
        for arm in asked.arms
    ]


def _places(asked: argparse.Namespace, kind: str) -> list[str]:
    """Return where processes that measure meet; on a CPU, which compiles nothing, none waits."""
    ready = asked.output.parent / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    lock = asked.output.parent / "measuring.lock"
    # The last quarter is for measuring.
    deadline = time.time() + 0.75 * asked.seconds if kind == "cuda" else 0.0
    expected = ["--expected", str(len(asked.speeds)), "--deadline", str(deadline)]
    return ["--lock", str(lock), "--ready", str(ready), *expected]


def _conditions(asked: argparse.Namespace, kind: str) -> dict[str, object]:
    skipped = ["fid_efficientnet_lite0 and fid_inception_v3, to save time", "reading CIFAR-10"]
    if kind == "cpu":
        skipped += ["compiling", "networks of 8.9 M and 35.7 M weights: tiny ones stand for them"]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": asked.device,
        "machine": machine(asked.device),
        "images": "made up here, of the size of CIFAR-10's: scores mean nothing",
        "limit_seconds": asked.seconds,
        "skipped": skipped,
        "no_time": f"a part that is skipped with '{NO_TIME}' runs faster at the next try, which "
        "finds the compiled code of this one",
    }


def _parser() -> argparse.ArgumentParser:
    config = open_config(PROJECT, PRESET)
    arms = tuple(arm for arm in config.arms if arm not in config.on_request)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--device", default="cuda", type=_device, help="cuda (default), cuda:1, or cpu: tiny"
    )
    parser.add_argument("--seconds", default=240.0, type=float, help="for everything (240)")
    parser.add_argument("--part-seconds", default=200.0, type=float, help="for each part (200)")
    parser.add_argument("--arms", nargs="*", default=list(arms), choices=arms)
    parser.add_argument("--speeds", nargs="*", default=list(_SPEEDS), choices=_SPEEDS)
    parser.add_argument("--output", default=_FOLDER / "latest.json", type=Path)
    return parser


def _device(name: str) -> str:
    try:
        device = resolve_device(name)
    except (PhoenixError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(str(error).splitlines()[0]) from error
    if device.type not in _DEVICES:
        raise argparse.ArgumentTypeError(f"{name} is {device.type}; allowed are cuda and cpu")
    return str(device)


if __name__ == "__main__":
    os.chdir(PROJECT)
    sys.exit(main())
