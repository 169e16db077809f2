"""Settings in messages, by the names that have an effect on the arm that the message is about.

An arm's own block wins over the shared groups, so "set threshold_filter.enabled: false" does
nothing to an arm whose block sets it; "set personalization.threshold_filter.enabled: false" does.
"""

from kedro.config import OmegaConfigLoader
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node

from phoenix_pipeline.config.base import is_set
from phoenix_pipeline.config.settings_errors import Path, name_in_place
from phoenix_pipeline.errors import PhoenixError
from phoenix_pipeline.pipelines.arm import arm_of


class AdviceHook:
    """Names settings in the errors of an arm's nodes as that arm takes them."""

    def __init__(self) -> None:
        self._loader: OmegaConfigLoader | None = None
        self._arm = ""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the configuration; it is read when there is an error."""
        if isinstance(context.config_loader, OmegaConfigLoader):
            self._loader = context.config_loader

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Remember whose node runs: what it returns may do its work while it is saved."""
        self._arm = arm_of(node)

    @hook_impl(tryfirst=True)
    def on_node_error(self, error: Exception, node: Node) -> None:
        """Rename in what ``node`` raised."""
        self._rename(error, arm_of(node))

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self, error: Exception) -> None:
        """Rename in what was raised while a node's output was saved."""
        self._rename(error, self._arm)

    def _rename(self, error: BaseException | None, arm: str) -> None:
        if not arm or self._loader is None:
            return
        written = OmegaConfigLoader.__getitem__(self._loader, "parameters")
        blocks = [written.get(arm), (written.get("arms") or {}).get(arm)]

        def place(path: Path) -> Path:
            return (arm, *path) if any(is_set(block, path) for block in blocks) else path

        while error is not None:
            if isinstance(error, PhoenixError):
                error.args = (name_in_place(str(error), place),)
            error = error.__cause__
