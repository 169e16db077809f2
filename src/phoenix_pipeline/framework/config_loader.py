"""Kedro's configuration with one block of settings per arm.

Groups are written once, at the top level of ``conf/<env>/parameters_*.yml``. A block under ``arms``
makes an arm and holds only what differs; a block at the top level that is named after an arm
changes single settings of it. Whatever an arm's block sets wins over the group, wherever either was
set: base < environment < ``--params`` decides within each of the two, not between them.
"""

import copy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from kedro.config import OmegaConfigLoader
from pydantic import ValidationError

from phoenix_pipeline.config import ARM_GROUPS, SHARED_GROUPS, RunConfig, deep_merge
from phoenix_pipeline.config.base import is_set
from phoenix_pipeline.config.settings_errors import explain, hint
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.arm_blocks import ARMS, ON_REQUEST, wrong_names
from phoenix_pipeline.framework.deployment_check import check_deployment
from phoenix_pipeline.framework.paths import (
    DATA_ROOT,
    DEFAULT_DATA_ROOT,
    PATHS,
    SWEEPS,
    local_paths,
)
from phoenix_pipeline.registry import load_extensions


class PhoenixConfigLoader(OmegaConfigLoader):
    """Load ``conf``, give every arm its own complete groups, and refuse what is not a setting."""

    def __init__(
        self,
        conf_source: str | Path,
        env: str | None = None,
        runtime_params: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Read globals; raises SettingsError where there is no conf, or no such environment."""
        self._conf_folder = Path(conf_source)
        if "://" not in str(conf_source) and not self._conf_folder.exists():
            raise SettingsError(
                f"there is no configuration at {conf_source}; start in the project's folder, or "
                "name the configuration by --conf-source"
            )
        if env:
            self._check_environment(env)
        runtime_params = local_paths(dict(runtime_params or {}), " (--params)")
        if runtime_params.get(DATA_ROOT, "") is None:
            del runtime_params[DATA_ROOT]
        if "train_images" in runtime_params:
            # Another training source must not be scored against this one's test split.
            runtime_params.setdefault("test_images", None)
        super().__init__(conf_source, env, runtime_params, **options)

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Return the configuration ``key``; parameters come with a block for each arm.

        Raises SettingsError, in one line, for every unknown name and value that is not allowed.
        """
        if key == "parameters":
            return self._compose(copy.deepcopy(self._merged))
        value = super().__getitem__(key)
        return self._globals_with_paths(value) if key == "globals" else value

    @property
    def data_root(self) -> str:
        """The folder of all that is computed; relative to the project unless it is absolute."""
        given = (self.runtime_params or {}).get(DATA_ROOT)
        return str(given or self._globals.get(DATA_ROOT, DEFAULT_DATA_ROOT))

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the arms; their settings are not looked at. Raises SettingsError."""
        problems: list[str] = []
        declared = self._block(self._merged, ARMS, problems)
        if problems := [*problems, *wrong_names(declared, self.origin)]:
            raise SettingsError("; ".join(problems))
        return tuple(declared)

    @property
    def on_request(self) -> tuple[str, ...]:
        """Those of the arms that a plain run leaves out."""
        declared = self._block(self._merged, ARMS, [])
        return tuple(
            arm for arm in declared if self._block(declared, arm, []).get(ON_REQUEST) is True
        )

    @cached_property
    def _merged(self) -> dict[str, Any]:
        """The parameters of all files; merging takes a tenth of a second each time."""
        try:
            return dict(super().__getitem__("parameters"))
        except TypeError as error:
            listed = [name for name, value in self.runtime_params.items() if type(value) is list]
            raise SettingsError(
                f"{', '.join(listed) or 'a parameter'}: a list stands where a block of settings "
                f"belongs, or the other way round ({error}); look at --params, then at the "
                f"parameters of {self.env or self.default_run_env}"
            ) from error

    def _globals_with_paths(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return globals whose environment has a test split and a data root of its own.

        ``conf/local`` is the environment of a run that names none; its data root is the default.
        """
        values = {DATA_ROOT: DEFAULT_DATA_ROOT, **values}
        values = local_paths(values, f" ({self._conf_folder.name}/*/globals.yml)")
        values[DATA_ROOT] = values[DATA_ROOT] or DEFAULT_DATA_ROOT
        own = {name for file in self._read_raw_config("globals")[1].values() for name in file}
        if "train_images" in own and "test_images" not in own:
            values["test_images"] = None
        unnamed = self.env in (None, self.base_env, self.default_run_env)
        if not unnamed and DATA_ROOT not in own:
            # A run of one environment leaves the results of the others.
            values[DATA_ROOT] = f"{values[DATA_ROOT]}/{self.env}"
        return values

    def _compose(self, parameters: dict[str, Any]) -> dict[str, Any]:
        problems: list[str] = []
        declared = self._block(parameters, ARMS, problems)
        problems += wrong_names(declared, self.origin)
        allowed = (*SHARED_GROUPS, *ARM_GROUPS, *declared, *PATHS, ARMS)
        problems += self._unknown_names(parameters, (), allowed, "parameter")
        composed = {name: value for name, value in parameters.items() if name in allowed}
        for group in (*SHARED_GROUPS, *ARM_GROUPS):
            composed[group] = self._block(parameters, group, problems)
        problems += self._load_extensions(composed["run"])
        for group, model in SHARED_GROUPS.items():
            problems += explain(model, composed[group], lambda path: path, (group,), self.origin)
        for arm in declared:
            composed[arm] = self._arm_groups(arm, parameters, declared, composed, problems)
        if not problems:
            problems += check_deployment(composed, tuple(declared), self._named_sources())
        if problems:
            raise SettingsError("; ".join(dict.fromkeys(problems)))
        return composed | {ARMS: list(declared), DATA_ROOT: self.data_root}

    def _load_extensions(self, run: Mapping[str, Any]) -> list[str]:
        """Import the modules of ``run.extensions``, whose components settings may then name."""
        try:
            named = RunConfig.model_validate({"extensions": run.get("extensions", ())})
            load_extensions(named.extensions)
        except ValidationError:
            return []  # The group's own check says what is wrong.
        except SettingsError as error:
            return [str(error)]
        return []

    def _named_sources(self) -> dict[str, Any]:
        """Return the globals that the environment or the command sets, without the base's."""
        environment = self.env or self.default_run_env
        own = _read_yaml(self._conf_folder / str(environment) / "globals.yml")
        return {**own, **(self.runtime_params or {})}

    def _arm_groups(
        self,
        arm: str,
        parameters: dict[str, Any],
        declared: dict[str, Any],
        shared: dict[str, Any],
        problems: list[str],
    ) -> dict[str, Any]:
        """Merge an arm's blocks over the groups; a problem is laid at what set the value."""
        blocks = {
            (ARMS, arm): self._block(declared, arm, problems, ARMS),
            (arm,): self._block(parameters, arm, problems),
        }

        def place(path: tuple[str, ...]) -> tuple[str, ...]:
            own = [prefix for prefix, block in blocks.items() if is_set(block, path)]
            return (*own[-1], *path) if own else path

        on_request = blocks[ARMS, arm].pop(ON_REQUEST, False)
        if type(on_request) is not bool:
            path = (ARMS, arm, ON_REQUEST)
            allowed = f"got {on_request!r}, must be true or false"
            problems.append(f"{'.'.join(path)}: {allowed}{self.origin(path)}")
        for prefix, block in blocks.items():
            problems += self._unknown_names(block, prefix, tuple(ARM_GROUPS), "group")
        groups = {}
        for group, model in ARM_GROUPS.items():
            groups[group] = shared[group]
            for prefix, block in blocks.items():
                own = self._block(block, group, problems, *prefix)
                groups[group] = deep_merge(groups[group], own)
            problems += explain(model, groups[group], place, (group,), self.origin)
        return groups

    def _block(
        self, parameters: Mapping[str, Any], name: str, problems: list[str], *prefix: str
    ) -> dict[str, Any]:
        """Return the mapping called ``name``; an empty block is one without settings."""
        block = parameters.get(name)
        if block is None:
            return {}
        if not isinstance(block, Mapping):
            path = (*prefix, name)
            problems.append(
                f"{'.'.join(path)}: got {block!r}, must be a block of settings{self.origin(path)}"
            )
            return {}
        return dict(block)

    def _unknown_names(
        self, block: Mapping[str, Any], path: tuple[str, ...], allowed: tuple[str, ...], kind: str
    ) -> list[str]:
        return [
            f"{'.'.join((*path, str(name)))}: unknown {kind}{hint(str(name), allowed)}"
            f"{self.origin((*path, str(name)))}"
            for name in block
            if name not in allowed and not str(name).startswith("_")
        ]

    def origin(self, path: tuple[str, ...]) -> str:
        """Return where ``path`` is set, `` (file)`` or `` (--params)``; empty for a default."""
        if is_set(self.runtime_params or {}, path):
            return " (--params)"
        for env in (self.env or self.default_run_env, self.base_env):
            for file in sorted((self._conf_folder / env).rglob("parameters*.y*ml")):
                if is_set(_read_yaml(file), path):
                    return f" ({self._conf_folder.name}/{file.relative_to(self._conf_folder)})"
        return ""

    def _check_environment(self, env: str) -> None:
        if not self._conf_folder.is_dir():
            return
        folder = f"{self._conf_folder.name}/{env}"
        found = {path.name for path in self._conf_folder.iterdir() if path.is_dir()} - {SWEEPS}
        if env == SWEEPS:
            raise SettingsError(
                f"--env {env}: {folder} holds the files of `kedro sweep <name>` and is no "
                f"environment; allowed: {', '.join(sorted(found))}"
            )
        if not (self._conf_folder / env).is_dir():
            raise SettingsError(f"--env {env}: there is no folder {folder}{hint(env, found)}")


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML mapping; empty when there is none. Kedro has already refused broken files."""
    if not path.is_file():
        return {}
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
