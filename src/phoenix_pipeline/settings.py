"""Kedro's project settings."""

import warnings

from phoenix_pipeline.framework.advice import AdviceHook
from phoenix_pipeline.framework.arm_blocks import ArmsHook
from phoenix_pipeline.framework.comparison_check import ComparisonCheckHook
from phoenix_pipeline.framework.config_loader import PhoenixConfigLoader
from phoenix_pipeline.framework.node_log import NodeLogHook
from phoenix_pipeline.framework.run_lock import RunLockHook
from phoenix_pipeline.framework.tracking import ArmMlflowHook
from phoenix_pipeline.offline import stay_offline

# For those who begin with Kedro's session and not with the command line: kedro-viz, notebooks.
stay_offline()

# Kedro 1.7 calls a function that OmegaConf 2.4 renamed; users can do nothing about it.
warnings.filterwarnings("ignore", message=".*register_new_resolver")

CONFIG_LOADER_CLASS = PhoenixConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*"]},
    # An environment's file changes single settings. A catalog entry, in contrast, is replaced
    # whole, since one type's arguments make no sense to another.
    "merge_strategy": {"parameters": "soft", "globals": "soft", "mlflow": "soft"},
}
# The last one comes first: what it refuses leaves no run in MLflow.
HOOKS = (
    ArmsHook(),
    RunLockHook(),
    NodeLogHook(),
    ArmMlflowHook(),
    AdviceHook(),
    ComparisonCheckHook(),
)
# kedro-mlflow, where a user has installed it, would open a second run for the same session.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-mlflow", "kedro_mlflow")
