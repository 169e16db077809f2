"""Decide what each client trains on, and refuse settings that cannot work before any training."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from phoenix_pipeline.config import (
    FederationConfig,
    ModelConfig,
    PersonalLayersConfig,
    RunConfig,
    SamplingConfig,
    SharedPoolConfig,
    ThresholdFilterConfig,
    TrainingConfig,
)
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.partitioning.shared_pool import draw_shared_pool
from phoenix_pipeline.reporting.partition_figure import draw_shared_pool as draw_shared_pool_figure


def assign_images(
    train: ImageSet,
    partition: pd.DataFrame,
    config: SharedPoolConfig,
    federation: FederationConfig,
    run: RunConfig,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each client's training images and each client's share of the pool.

    With ``federation.pooled`` one client, number 0, holds what all clients hold together.

    Raises:
        SettingsError: there are too few clients for ``federation``.
    """
    from phoenix_pipeline.federated.aggregation import check_num_replies
    from phoenix_pipeline.federated.work_plan import round_size

    pool = draw_shared_pool(partition, config, run.seed, train.num_classes)
    training = pool.training
    if federation.pooled:
        training = training.drop_duplicates("image_index").assign(client_id=0)
    num_clients = training["client_id"].nunique()
    if federation.min_clients > num_clients:
        raise SettingsError(
            f"federation.min_clients is {federation.min_clients}, but there are {num_clients} "
            "clients; allowed: 1 to that number"
        )
    # In a deployment the nodes are the clients, and are counted when they have connected.
    if federation.engine != "deployment":
        check_num_replies(federation, round_size(num_clients, federation.client_fraction))
    return training, pool.shares


def plot_clients(train: ImageSet, client_images: pd.DataFrame) -> Figure:
    """Draw what each client trains on: its own images, and those that it received."""
    return draw_shared_pool_figure(client_images, train.class_names)


def check_arm(
    train: ImageSet,
    test: ImageSet,
    model: ModelConfig,
    training: TrainingConfig,
    federation: FederationConfig,
    personal: PersonalLayersConfig,
    rules: ThresholdFilterConfig,
    pool: SharedPoolConfig,
    sampling: SamplingConfig,
    run: RunConfig,
) -> dict[str, Any]:
    """Build the model once and check what only the images can tell; return what it is.

    Raises:
        SettingsError: the model does not fit the images, or settings contradict each other.
    """
    from phoenix_pipeline.families import family_of
    from phoenix_pipeline.federated.personal_layers import is_personal, personal_prefixes
    from phoenix_pipeline.federated.privacy.checks import check_privacy

    resolve_device(run.device)
    family = family_of(model)
    family.check(model, sampling, train.channels, train.image_size)
    network = family.build(model, train.channels, train.image_size, run.seed)
    layers = personal_prefixes(personal, model, network.state_dict())
    check_privacy(
        federation,
        training,
        network,
        filters_clients=rules.enabled,
        uploads_personal=personal.final_average,
        shares_images=pool.beta > 0 and pool.source == "clients",
    )
    _check_personalization(personal, rules, federation, layers)
    _check_threshold(rules, train, test, run)
    if pool.warmup_steps and not pool.beta:
        raise SettingsError(
            f"shared_pool.warmup_steps is {pool.warmup_steps}, but shared_pool.beta is 0: there is "
            "no pool to warm up on; set beta above 0 or warmup_steps to 0"
        )
    return {
        "num_parameters": sum(p.numel() for p in network.parameters()),
        "num_personal_parameters": sum(
            p.numel() for name, p in network.named_parameters() if is_personal(name, layers)
        ),
        "personal_layers": list(layers),
        "channels": train.channels,
        "image_size": train.image_size,
    }


def _check_personalization(
    personal: PersonalLayersConfig,
    rules: ThresholdFilterConfig,
    federation: FederationConfig,
    layers: tuple[str, ...],
) -> None:
    if federation.pooled and (layers or rules.enabled):
        raise SettingsError(
            "federation.pooled puts all data in one place, where personal_layers.layers and "
            "threshold_filter mean nothing; leave them out"
        )
    if personal.final_average and not layers:
        raise SettingsError(
            "personal_layers.final_average is true, but personal_layers.layers names no layers"
        )
    if rules.enabled and rules.min_clients < federation.min_clients:
        raise SettingsError(
            f"threshold_filter.min_clients is {rules.min_clients}, below "
            f"federation.min_clients ({federation.min_clients}): filtering would end the run; "
            "raise the first or lower the second"
        )
    required = federation.aggregation.required_replies
    if rules.enabled and rules.min_clients < required:
        raise SettingsError(
            f"threshold_filter.min_clients is {rules.min_clients}, but "
            f"federation.aggregation.rule {federation.aggregation.rule} needs {required} replies: "
            "filtering would end the run; raise the first or change federation.aggregation"
        )


def _check_threshold(
    rules: ThresholdFilterConfig, train: ImageSet, test: ImageSet, run: RunConfig
) -> None:
    """Refuse a reference that cannot be made, and a threshold that real images do not pass."""
    from phoenix_pipeline.metrics.monitoring import build_monitor_reference, monitor_score

    if not rules.enabled:
        return
    score = monitor_score(train.images, build_monitor_reference(test, run.seed))
    if rules.absolute_threshold is not None and rules.absolute_threshold <= score:
        raise SettingsError(
            "threshold_filter.absolute_threshold is "
            f"{rules.absolute_threshold:g}, but real images themselves score {score:.3g}: every "
            "client would be disconnected; set it higher, or to null"
        )
