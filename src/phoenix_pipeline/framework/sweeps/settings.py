"""What a sweep is: ``conf/sweeps/<name>.yml``, validated before anything runs."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from phoenix_pipeline.config.base import Group
from phoenix_pipeline.config.settings_errors import explain, hint
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.paths import SWEEPS
from phoenix_pipeline.framework.project import open_config
from phoenix_pipeline.reporting.columns import describe_metric

SEED = "run.seed"
ARM = "arm"
_RESERVED = (ARM, "cell")


class HeatMapConfig(Group):
    """Which two axes the heat maps span; one of them may be ``arm``."""

    x: str = Field(description="Axis from left to right.")
    y: str = Field(description="Axis from top to bottom.")


class FrontierConfig(Group):
    """What a cost buys, over the values of one axis: a table and a figure of the frontier."""

    axis: str = Field(description="Axis whose values are held against each other.")
    baseline: str = Field(description="The value of that axis that the others are held against.")
    cost: str = Field("bytes_total", description="Metric that is to be small.")
    scores: tuple[str, ...] = Field(
        min_length=1, description="Scores that it is paid for, a panel each; lower must be better."
    )


class SweepConfig(Group):
    """One grid: every combination of its axes is a cell, and a cell is one Kedro run."""

    pipelines: tuple[str, ...] = Field(min_length=1, description="Arms that every cell runs.")
    env: str | None = Field(None, description="Kedro environment; null: the default.")
    parameters: dict[str, Any] = Field({}, description="Settings of all cells, by dotted name.")
    grid: dict[str, list[Any] | dict[str, dict[str, Any]]] = Field(
        min_length=1,
        description="Axis -> values. A list sets the parameter that the axis is named after; a "
        "mapping names its values, each with the settings that it stands for.",
    )
    metrics: tuple[str, ...] = Field(min_length=1, description="Scores that the summary shows.")
    heat_map: HeatMapConfig | None = Field(None, description="Axes of the heat maps; null: none.")
    frontier: FrontierConfig | None = Field(
        None, description="Axis whose values are weighed, cost against scores; null: none."
    )

    @property
    def repeated_axes(self) -> tuple[str, ...]:
        """Return the axes other than the seed, over which mean and spread are taken."""
        return tuple(axis for axis in self.grid if axis != SEED)


def load_sweep(conf: Path, name: str, env: str | None = None) -> SweepConfig:
    """Read ``conf/sweeps/<name>.yml``; raises SettingsError, in one line, for all that is wrong.

    ``env`` goes before the environment that the sweep itself names; arms may be of either.
    """
    path = conf / SWEEPS / f"{name}.yml"
    if path.stem != name or not path.is_file():
        found = [file.stem for file in (conf / SWEEPS).glob("*.yml")]
        raise SettingsError(
            f"there is no sweep {name!r} in {conf.name}/{SWEEPS}{hint(name, found)}"
        )
    shown = f"{conf.name}/{SWEEPS}/{path.name}"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SettingsError(f"{shown} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{shown} must be a mapping; allowed: {', '.join(_FIELDS)}")
    problems = explain(SweepConfig, values, lambda place: place)
    if not problems:
        config = SweepConfig.model_validate(values)
        arms = open_config(conf.parent, env or config.env, None, conf).arms
        problems = [
            f"pipelines: there is no arm {arm}{hint(arm, arms)}"
            for arm in config.pipelines
            if arm not in arms
        ]
        problems += _wrong_axes(config)
    if problems:
        raise SettingsError(f"{shown}: {'; '.join(problems)}")
    return config


_FIELDS = tuple(SweepConfig.model_fields)


def _wrong_axes(config: SweepConfig) -> list[str]:
    problems = [f"grid.{axis}: this name is taken" for axis in _RESERVED if axis in config.grid]
    for axis, values in config.grid.items():
        shown = [str(value) for value in values]
        if not shown:
            problems.append(f"grid.{axis}: has no values")
        if len(set(shown)) < len(shown):
            problems.append(f"grid.{axis}: has a value twice, got {', '.join(shown)}")
    if config.heat_map:
        allowed = (*config.repeated_axes, ARM)
        for side, axis in config.heat_map.model_dump().items():
            if axis not in allowed:
                problems.append(f"heat_map.{side}: {axis} is no axis{hint(axis, allowed)}")
    return [*problems, *_wrong_frontier(config)]


def _wrong_frontier(config: SweepConfig) -> list[str]:
    shape = config.frontier
    if shape is None:
        return []
    if shape.axis not in config.repeated_axes:
        return [f"frontier.axis: {shape.axis} is no axis{hint(shape.axis, config.repeated_axes)}"]
    values = [str(value) for value in config.grid[shape.axis]]
    problems = [
        f"frontier.scores: {score} has no value that is known to be better when lower"
        for score in shape.scores
        if describe_metric(score).better != "lower"
    ]
    if shape.baseline not in values:
        known = hint(shape.baseline, values)
        problems.append(f"frontier.baseline: {shape.baseline} is no value of it{known}")
    return problems
