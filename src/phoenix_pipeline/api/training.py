"""Train an arm from Python."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import pandas as pd

from phoenix_pipeline.api.data import Images, complete_partition, partition_settings
from phoenix_pipeline.api.model import MODEL_FOLDER, Model, write_table
from phoenix_pipeline.api.settings import ArmGroups, Settings, arm_settings, shared_group
from phoenix_pipeline.arms.setup import set_up_arm
from phoenix_pipeline.arms.training import OnRound, train_arm
from phoenix_pipeline.checkpoints import remove_leftovers
from phoenix_pipeline.config import RunConfig
from phoenix_pipeline.families.model_folder import CLIENT_IMAGES_FILE, ROUNDS_FILE
from phoenix_pipeline.file_locks import Locks

_CHECKPOINTS = "checkpoints"
_LOCK = ".lock"


def train(
    images: Images,
    clients: pd.DataFrame,
    arm: str = "fedavg",
    *,
    folder: Path | str | None = None,
    on_round: OnRound | None = None,
    run: Settings | None = None,
    **groups: Unpack[ArmGroups],
) -> Model:
    """Train ``arm``, one of ``ARM_NAMES``, over ``clients``; return its model.

    ``clients``: of :func:`partition`, or a table of your own with client_id and image_index.
    ``folder`` gets ``checkpoints``, where a training that was cut off goes on when it is called
    again, and ``model``; None: a temporary folder, which goes away with the model. ``on_round`` is
    called with the number of each round and its means, restored rounds included. The others are
    groups of docs/parameters.md, each a dict of what differs from the arm's defaults, such as
    ``federation={"num_rounds": 4}`` or ``run={"seed": 1}``.
    Raises SettingsError: in one line, for what is unknown, not allowed, or contradicts each other.
    Raises DataError: ``clients`` does not fit ``images``.
    Raises CheckpointError: ``folder`` has an unfinished run of other settings.
    Raises FederationError: a round had too few usable replies; the last checkpoint stands.
    Raises BusyError, StorageError: another training is at work in ``folder``, or nobody can write.
    """
    settings = arm_settings(arm, groups)
    config: RunConfig = shared_group("run", run)
    table = complete_partition(clients, images.train)
    temporary = TemporaryDirectory(prefix="phoenix-") if folder is None else None
    root = Path(temporary.name if temporary else str(folder))
    target, checkpoints = root / MODEL_FOLDER, root / _CHECKPOINTS
    splits = images.train, images.test
    with _alone_in(root):
        held, pool, _ = set_up_arm(*splits, table, settings, config, checkpoints)
        made_by = {"images": images.config, **partition_settings(clients)}
        trained = train_arm(
            arm, *splits, held, pool, settings, config, checkpoints, made_by, on_round
        )
        trained.write(target)
        write_table(target / ROUNDS_FILE, trained.rounds)
        write_table(target / CLIENT_IMAGES_FILE, trained.trained_images)
    return Model(target, config.device, temporary)


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    locks = Locks()
    locks.acquire(root / _LOCK, str(root))
    try:
        for folder in (root / _CHECKPOINTS, root / MODEL_FOLDER):
            remove_leftovers(folder)
        yield
    finally:
        locks.release()
