"""What ``auto`` means: network, batch, rounds and budget by the side of the images.

Sized so that every arm together takes about half an hour on 2 CPU cores at 64 pixels or fewer
(docs/own-data.md); the network is the same on a GPU, so that results do not depend on the machine.
What a kind of model makes of the side is the family's own (``settle_model``, ``settle_training``).
"""

from typing import Any

from phoenix_pipeline.config import (
    ArmSettings,
    FederationConfig,
    Group,
    ModelConfig,
    TrainingConfig,
)
from phoenix_pipeline.config.base import AUTO, flatten
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import FAMILIES, family_of, find_family
from phoenix_pipeline.families.latents import latent_side

_ALIGNMENT = "alignment"
# Up to here networks lose more by dividing a step among cores than they win, and rounds take about
# as long as a checkpoint.
_SMALL_SIDE, _SHORT_ROUNDS = 12, 10
# Clients with alignment make more of more averages, which was measured on the digits alone.
_ROUNDS, _ALIGNED_ROUNDS = 60, 96
# Images trained on in a whole run, by the largest side that they are for; the first is the digits'.
IMAGES_IN_ALL = {12: 138_240, 20: 98_304, 48: 49_152, 96: 24_576, 160: 12_288, 256: 6_144}


def settle_arm(settings: ArmSettings, image_size: int) -> ArmSettings:
    """Return groups without ``auto``, by the side learnt; raises SettingsError, CheckpointError."""
    image_size = latent_side(settings.model, image_size)
    model = settle_model(settings.model, image_size)
    pooled, pull = settings.federation.pooled, settings.federation.strategies.get(_ALIGNMENT)
    # A share of 0 is no pull.
    aligned = pull is not None and pull.get("share") != 0
    return settings.model_copy(
        update={
            "model": model,
            "training": settle_training(
                settings.training, model, image_size, pooled=pooled, aligned=aligned
            ),
            "federation": settle_federation(settings.federation, image_size, aligned=aligned),
        }
    )


def settle_model(model: ModelConfig, image_size: int) -> ModelConfig:
    """Return ``model`` without ``auto``, also in the groups of families that it is not of.

    Raises SettingsError: what a family chooses does not go with what is set.
    """
    for name in dict.fromkeys((*FAMILIES.own, model.family)):
        model = find_family(name).settle_model(model, image_size)
    return model


def settle_training(
    training: TrainingConfig,
    model: ModelConfig,
    image_size: int,
    *,
    pooled: bool,
    aligned: bool = False,
) -> TrainingConfig:
    """Return ``training`` without ``auto``; ``pooled``: one client has all images."""
    settled = family_of(model).settle_training(training, image_size, pooled=pooled, aligned=aligned)
    # Families that know of no micro batches have none.
    return settled.settled(micro_batch=None)


def settle_federation(
    federation: FederationConfig, image_size: int, *, aligned: bool = False
) -> FederationConfig:
    """Return ``federation`` without ``auto``: the images of a run, divided among the rounds.

    ``aligned``: clients follow the last global step.
    Raises SettingsError: the work is counted in something else than images.
    """
    work = federation.local_work
    if "amount" in work.auto and work.unit != "images_per_round":
        raise SettingsError(
            f"federation.local_work.amount is {AUTO}, which is for unit images_per_round, but unit "
            f"is {work.unit}; set a number"
        )
    full = next(images for side, images in IMAGES_IN_ALL.items() if image_size <= side)
    small = image_size <= _SMALL_SIDE
    rounds = _ALIGNED_ROUNDS if small and aligned else _ROUNDS
    # Each client trains in as many rounds, whatever part of them trains at a time.
    part = 1.0 if federation.pooled else federation.client_fraction
    settled = federation.settled(
        threads_per_client=1 if small else None,
        num_rounds=max(1, round(federation.budget * rounds / part)),
        # Noise of no seed must not be drawn twice for a round.
        checkpoint_every=_SHORT_ROUNDS if small and not federation.has_secret_noise else 1,
    )
    amount = federation.budget * full / settled.num_rounds
    return settled.model_copy(update={"local_work": work.settled(amount=amount)})


def list_settled(given: Group, settled: Group) -> dict[str, Any]:
    """Return what each key that waited in ``given`` has become in ``settled``, by dotted names."""
    values = dict(flatten(settled))
    return {key: values[key] for key in given.waiting()}
