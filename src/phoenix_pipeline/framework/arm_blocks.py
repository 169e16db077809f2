"""Which arms there are: the blocks under ``arms`` in ``conf``, and the names that they may have."""

import re
from collections.abc import Callable, Iterable

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines

from phoenix_pipeline.config import ARM_GROUPS, SHARED_GROUPS

ARMS = "arms"
"""The block of ``conf`` whose keys are the arms."""
ON_REQUEST = "on_request"
"""The key of an arm's block, beside its groups, that keeps it out of a plain `kedro run`."""
ALL_ARMS = "all_arms"
"""The pipeline of the arms of a plain run and those on request."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
# Stages and boxes of nodes, the folders beside an arm's own in the data root, other inputs of the
# comparison, and columns of tables.
_TAKEN = {
    ARMS,
    ALL_ARMS,
    *SHARED_GROUPS,
    *ARM_GROUPS,
    "federated_training",
    "comparison",
    "parameters",
    "train_images",
    "test_images",
    "data_root",
    "references_root",
    "checkpoints",
    "label_judge",
    "references",
    "clients",
    "comparing",
    "figures",
    "floor",
    "audits",
    "earlier_runs",
    "sweeps",
    "claims",
    "shared",
    "arm",
    "cell",
    "session",
}


def wrong_names(names: Iterable[str], origin: Callable[[tuple[str, ...]], str]) -> list[str]:
    """Return a line for each name that no arm may have."""
    lines = []
    for name in map(str, names):
        if not _NAME.fullmatch(name):
            reason = "a name has lower-case letters, digits and _, begins with a letter, and has "
            lines.append(f"{ARMS}.{name}: {reason}at most 40 characters{origin((ARMS, name))}")
        elif name in _TAKEN:
            lines.append(f"{ARMS}.{name}: this name is taken{origin((ARMS, name))}")
    return lines


class ArmRegistry:
    """The arms that Kedro's pipelines are built for.

    Kedro calls ``register_pipelines`` without a configuration, at times before it has read one.
    Whoever reads a configuration says here what arms it has.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] | None = None
        self._on_request: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...] | None:
        """The arms in the order of ``conf``; None as long as no configuration was read."""
        return self._names

    @property
    def on_request(self) -> tuple[str, ...]:
        """Those of ``names`` that a plain run leaves out."""
        return self._on_request

    def use(self, names: tuple[str, ...], on_request: tuple[str, ...] = ()) -> None:
        """Build the pipelines for ``names``; anew where they were built for others."""
        if (names, on_request) != (self._names, self._on_request):
            self._names, self._on_request = names, on_request
            # Another request makes Kedro forget the pipelines; this project always builds all.
            pipelines.set_requested([ARMS])
            pipelines.set_requested(None)


arm_registry = ArmRegistry()


class ArmsHook:
    """Gives each Kedro session the pipelines of the arms in its own configuration."""

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Read the arms; raises SettingsError for a name that no arm may have."""
        config = context.config_loader
        arm_registry.use(config.arms, config.on_request)  # type: ignore[attr-defined]
