"""Train an arm from Python."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from phoenix_pipeline.api.data import Images, complete_partition, partition_settings
from phoenix_pipeline.api.model import MODEL_FOLDER, Model, write_table
from phoenix_pipeline.api.settings import Settings, arm_settings, shared_group
from phoenix_pipeline.arms.setup import set_up_arm
from phoenix_pipeline.arms.training import OnRound, train_arm
from phoenix_pipeline.checkpoints import remove_leftovers
from phoenix_pipeline.config import RunConfig
from phoenix_pipeline.families.model_folder import CLIENT_IMAGES_FILE, ROUNDS_FILE
from phoenix_pipeline.file_locks import CAN_LOCK, Locks

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
    shared_pool: Settings | None = None,
    model: Settings | None = None,
    training: Settings | None = None,
    federation: Settings | None = None,
    personal_layers: Settings | None = None,
    threshold_filter: Settings | None = None,
    sampling: Settings | None = None,
) -> Model:
    """Train ``arm`` over ``clients``; return its model.

    All other arguments are groups of docs/parameters.md: each is a dict of what differs from the
    defaults of the arm, such as ``federation={"num_rounds": 4}`` or ``run={"seed": 1}``.

    Args:
        images: of :func:`read_images`.
        clients: of :func:`partition`, or a table of your own with client_id and image_index.
        arm: one of ``ARM_NAMES``.
        folder: where checkpoints and the model are kept, in ``checkpoints`` and ``model``. A
            training that was cut off goes on there when it is called again. None: a temporary
            folder, which goes away with the model; see ``Model.save``.
        on_round: called with the number of each round and its means, restored rounds included.

    Raises:
        SettingsError: in one line, for what is unknown, not allowed, or contradicts each other.
        DataError: ``clients`` does not fit ``images``.
        CheckpointError: ``folder`` has an unfinished run of other settings.
        FederationError: a round had too few usable replies; the last checkpoint stands.
        BusyError: another training is at work in ``folder``.
        StorageError: ``folder`` cannot be written.
    """
    groups = {
        "shared_pool": shared_pool,
        "model": model,
        "training": training,
        "federation": federation,
        "personal_layers": personal_layers,
        "threshold_filter": threshold_filter,
        "sampling": sampling,
    }
    settings = arm_settings(arm, groups)
    config: RunConfig = shared_group("run", run)
    table = complete_partition(clients, images.train)
    temporary = TemporaryDirectory(prefix="phoenix-") if folder is None else None
    root = Path(temporary.name if temporary else str(folder))
    checkpoints, target = root / _CHECKPOINTS, root / MODEL_FOLDER
    splits = images.train, images.test
    with _alone_in(root):
        client_images, shares, _ = set_up_arm(*splits, table, settings, config, checkpoints)
        data_groups = {"images": images.config, **partition_settings(clients)}
        trained = train_arm(
            arm, *splits, client_images, shares, settings, config, checkpoints, data_groups,
            on_round,
        )  # fmt: skip
        trained.write(target)
        write_table(target / ROUNDS_FILE, trained.rounds)
        write_table(target / CLIENT_IMAGES_FILE, trained.trained_images)
    return Model(target, config.device, temporary)


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Lock ``root`` for the block, and first remove what killed trainings left unfinished there."""
    locks = Locks()
    locks.acquire(root / _LOCK, str(root))
    try:
        if CAN_LOCK:
            for folder in (root / _CHECKPOINTS, root / MODEL_FOLDER):
                remove_leftovers(folder)
        yield
    finally:
        locks.release()
