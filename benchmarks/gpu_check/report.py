"""The rows of the check, their goals, the file and the table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["waiting", "ok", "failed", "skipped"]


class Findings:
    """What a child process has found so far: a JSON object per line, written at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, name: str, **found: Any) -> None:
        """Append one finding."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, **found}) + "\n")

    def read(self) -> dict[str, Any]:
        """Return values by name; a line that was cut off is left out."""
        values: dict[str, Any] = {}
        if not self._path.is_file():
            return values
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                found = json.loads(line)
            except json.JSONDecodeError:
                continue
            values[found["name"]] = found["value"]
        return values


@dataclass(frozen=True)
class Goal:
    """A row of the speed table; ``before``: eager, on an H200 at commit 278e498 (docs/speed.md)."""

    key: str
    title: str
    unit: str
    before: float | None = None
    goal: float | None = None
    lower_is_better: bool = False

    def met_by(self, measured: Mapping[str, float]) -> bool | None:
        """Return whether the best of ``measured`` reaches the goal; None if there is nothing."""
        if self.goal is None or not measured:
            return None
        if self.lower_is_better:
            return min(measured.values()) <= self.goal
        return max(measured.values()) >= self.goal


SPEEDS = (
    Goal("matrix_peak", "bf16 matrix product, 8192 x 8192", "TFLOP/s", before=799.0),
    Goal("training_small", "training 8.9 M, batch 128", "images/s", 2237.0, 12_000.0),
    Goal("training_large", "training 35.7 M, batch 128", "images/s", 2123.0, 6_500.0),
    Goal("clients_alone", "10 clients x 13 images, 8.9 M, one by one", "images/s", 218.0),
    Goal("clients_side_by_side", "the same, ten at a time on streams", "images/s", 218.0),
    Goal("clients_stacked", "10 clients x 13 images, 8.9 M, stacked", "images/s", 218.0, 8_000.0),
    Goal("sampling_small", "sampling 8.9 M, DDIM 50", "passes/s", 14_947.0),
    Goal("sampling_large", "sampling 35.7 M, DDIM 50", "passes/s", 7_662.0),
    Goal("samples_small", "50,000 samples, DDIM 50, 8.9 M", "s", 167.0, lower_is_better=True),
    Goal("samples_large", "50,000 samples, DDIM 50, 35.7 M", "s", 326.0, 60.0, True),
    Goal("round", "federated round against one batch program", "ratio", None, 0.8),
)


@dataclass
class PartResult:
    """How a part ended: ``reason`` in one line unless it is ok; ``findings`` also if it failed."""

    status: Status = "waiting"
    reason: str = ""
    seconds: float = 0.0
    findings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """Everything so far, kept in the file ``path``; ``judged``: goals are for what was measured."""

    path: Path
    judged: bool
    conditions: dict[str, Any]
    parts: dict[str, PartResult]

    def write(self) -> None:
        """Write the file anew."""
        from phoenix_pipeline.json_files import write_json

        write_json(self.path, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Return conditions, parts, and the speed table with its goals."""
        table = [
            asdict(goal) | {"measured": found, "met": self._is_met(goal, found)}
            for goal, found in self._measured()
        ]
        return {
            "conditions": self.conditions,
            "parts": {name: asdict(part) for name, part in self.parts.items()},
            "speed": table,
        }

    def table(self) -> list[str]:
        """Return the lines of both tables."""
        lines = ["", f"{'part':<34}{'':<9}{'seconds':>8}  reason"]
        for name, part in self.parts.items():
            lines.append(f"{name:<34}{part.status:<9}{part.seconds:>8.0f}  {part.reason}")
        lines += ["", f"{'speed':<44}{'before':>9}{'goal':>9}  measured"]
        for goal, found in self._measured():
            before, aim = (_figure(value) for value in (goal.before, goal.goal))
            values = ", ".join(f"{name} {_figure(value)}" for name, value in found.items())
            values = f"{values} {goal.unit}" if values else "not measured"
            verdict = {True: ": met", False: ": not met", None: ""}[self._is_met(goal, found)]
            lines.append(f"{goal.title:<44}{before:>9}{aim:>9}  {values}{verdict}")
        return lines

    def failed(self) -> Sequence[str]:
        """Return the names of the parts that did not end well."""
        return [name for name, part in self.parts.items() if part.status == "failed"]

    def _is_met(self, goal: Goal, measured: Mapping[str, float]) -> bool | None:
        return goal.met_by(measured) if self.judged else None

    def _measured(self) -> list[tuple[Goal, dict[str, float]]]:
        """Return each goal with its figures by variant: a finding ``training_small.compiled``."""
        found = {
            name: value for part in self.parts.values() for name, value in part.findings.items()
        }
        return [
            (
                goal,
                {
                    name.partition(".")[2]: value
                    for name, value in found.items()
                    if name.partition(".")[0] == goal.key
                },
            )
            for goal in SPEEDS
        ]


def _figure(value: float | None) -> str:
    """Return ``value`` with three digits or more."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
