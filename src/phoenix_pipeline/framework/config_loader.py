"""Kedro's configuration with one block of settings per arm.

Groups are written once, at the top level of ``conf/<env>/parameters_*.yml``. An arm's block holds
only what differs. Whatever an arm's block sets wins over the group, wherever either was set:
base < environment < ``--params`` decides within each of the two, not between them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kedro.config import OmegaConfigLoader

from phoenix_pipeline import config
from phoenix_pipeline.arms import ARMS
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.deployment_check import check_deployment
from phoenix_pipeline.framework.settings_errors import explain, hint

SHARED_GROUPS: dict[str, type[config.Group]] = {
    "run": config.RunConfig,
    "images": config.ImagesConfig,
    "partition": config.PartitionConfig,
    "evaluation": config.EvaluationConfig,
    "privacy_audit": config.PrivacyAuditConfig,
}
ARM_GROUPS: dict[str, type[config.Group]] = {
    "shared_pool": config.SharedPoolConfig,
    "model": config.ModelConfig,
    "training": config.TrainingConfig,
    "federation": config.FederationConfig,
    "personal_layers": config.PersonalLayersConfig,
    "threshold_filter": config.ThresholdFilterConfig,
    "sampling": config.SamplingConfig,
}
RUNTIME_PATHS = ("train_images", "test_images", "data_root")


class PhoenixConfigLoader(OmegaConfigLoader):
    """Load ``conf``, give every arm its own complete groups, and refuse what is not a setting."""

    def __init__(
        self,
        conf_source: str | Path,
        env: str | None = None,
        runtime_params: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Read globals; raises SettingsError for an environment that is not a folder of conf."""
        self._conf_folder = Path(conf_source)
        if env:
            self._check_environment(env)
        runtime_params = dict(runtime_params or {})
        if "train_images" in runtime_params:
            # Another training source must not be scored against this one's test split.
            runtime_params.setdefault("test_images", None)
        super().__init__(conf_source, env, runtime_params, **options)

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Return the configuration ``key``; parameters come with a block for each arm.

        Raises SettingsError, in one line, for every unknown name and value that is not allowed.
        """
        value = super().__getitem__(key)
        if key == "parameters":
            return self._compose(value)
        if key == "globals" and self.env:
            own = _read_yaml(self._conf_folder / self.env / "globals.yml")
            if "train_images" in own and "test_images" not in own:
                return {**value, "test_images": None}
        return value

    def _compose(self, parameters: dict[str, Any]) -> dict[str, Any]:
        allowed = (*SHARED_GROUPS, *ARM_GROUPS, *ARMS, *RUNTIME_PATHS)
        problems = self._unknown_names(parameters, (), allowed, "parameter")
        composed = {name: value for name, value in parameters.items() if name in allowed}
        for group in (*SHARED_GROUPS, *ARM_GROUPS):
            composed[group] = self._block(parameters, (group,), problems)
        for group, model in SHARED_GROUPS.items():
            problems += explain(model, composed[group], lambda path: path, (group,), self.origin)
        for arm in ARMS:
            own = self._block(parameters, (arm,), problems)
            problems += self._unknown_names(own, (arm,), tuple(ARM_GROUPS), "group")
            composed[arm] = self._arm_groups(arm, own, composed, problems)
        if not problems:
            problems += check_deployment(composed, ARMS, self._named_sources())
        if problems:
            raise SettingsError("; ".join(dict.fromkeys(problems)))
        return composed

    def _named_sources(self) -> dict[str, Any]:
        """Return the globals that the environment or the command sets, without the base's."""
        environment = self.env or self.default_run_env
        own = _read_yaml(self._conf_folder / str(environment) / "globals.yml")
        return {**own, **(self.runtime_params or {})}

    def _arm_groups(
        self, arm: str, own: dict[str, Any], shared: dict[str, Any], problems: list[str]
    ) -> dict[str, Any]:
        """Merge an arm's block over the groups; a problem is laid at what set the value."""

        def place(path: tuple[str, ...]) -> tuple[str, ...]:
            return (arm, *path) if _get(own, path) is not _ABSENT else path

        groups = {}
        for group, model in ARM_GROUPS.items():
            block = self._block(own, (group,), problems, prefix=(arm,))
            groups[group] = deep_merge(shared[group], block)
            problems += explain(model, groups[group], place, (group,), self.origin)
        return groups

    def _block(
        self,
        parameters: Mapping[str, Any],
        path: tuple[str, ...],
        problems: list[str],
        prefix: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Return the mapping at ``path``; an empty block is one without settings."""
        block = _get(parameters, path)
        if block is _ABSENT or block is None:
            return {}
        if not isinstance(block, Mapping):
            full = (*prefix, *path)
            problems.append(
                f"{'.'.join(full)}: got {block!r}, must be a block of settings{self.origin(full)}"
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
        if _get(self.runtime_params or {}, path) is not _ABSENT:
            return " (--params)"
        for env in (self.env or self.default_run_env, self.base_env):
            for file in sorted((self._conf_folder / env).rglob("parameters*.y*ml")):
                if _get(_read_yaml(file), path) is not _ABSENT:
                    return f" ({self._conf_folder.name}/{file.relative_to(self._conf_folder)})"
        return ""

    def _check_environment(self, env: str) -> None:
        if self._conf_folder.is_dir() and not (self._conf_folder / env).is_dir():
            found = sorted(path.name for path in self._conf_folder.iterdir() if path.is_dir())
            raise SettingsError(
                f"--env {env}: there is no folder {self._conf_folder.name}/{env}{hint(env, found)}"
            )


_ABSENT = object()


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` laid over it, block by block; lists and values are replaced."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = deep_merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _get(block: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(block, Mapping) or name not in block:
            return _ABSENT
        block = block[name]
    return block


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML mapping; empty when there is none. Kedro has already refused broken files."""
    if not path.is_file():
        return {}
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
