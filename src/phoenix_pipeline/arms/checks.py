"""What settings, images and clients must have in common, else a SettingsError before training."""

import json
from pathlib import Path

from phoenix_pipeline.config import ArmSettings, FederationConfig, ModelConfig, RunConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.classes import check_classes
from phoenix_pipeline.families.latents import autoencoder_folder, find_latents
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.latents.autoencoder import load_autoencoder
from phoenix_pipeline.latents.space import has_autoencoder


def check_latents(train: ImageSet, settings: ArmSettings) -> None:
    """Refuse an autoencoder that is broken, of another family, or does not take the images."""
    if (space := find_latents(settings.model)) is not None:
        space.check(train.channels, train.image_size)


def check_start_latents(start: Path, model: ModelConfig) -> None:
    """Refuse a start, a folder, that learnt other latents, or latents for pixels."""
    folder = autoencoder_folder(model)
    if not has_autoencoder(start):
        return
    if folder is None:
        raise SettingsError(
            f"model.start_from {start} learnt latents, but model.autoencoder is null; set "
            f"model.autoencoder: {start}, or name another start"
        )
    ours, theirs = (load_autoencoder(each).space.digest for each in (folder, start))
    if ours != theirs:
        raise SettingsError(
            f"model.start_from {start} learnt latents of an autoencoder with the digest {theirs}, "
            f"but that of model.autoencoder is {ours}; set model.autoencoder: {start}, or name "
            "another start"
        )


# What families other than diffusion leave as it is.
_PLAIN_TRAINING = {
    "loss_weighting": "none",
    "timestep_distribution": "uniform",
    "noise_assignment": "random",
    "micro_batch": None,
    "gradient_checkpointing": False,
}


def check_clients(federation: FederationConfig, clients: list[int]) -> None:
    """Refuse settings that these ``clients`` cannot satisfy, even if all of them answer.

    In a deployment the nodes are the clients, and are counted when they have connected.
    """
    from phoenix_pipeline.federated.fleet import Attendance, check_round
    from phoenix_pipeline.federated.work_plan import round_size

    if federation.engine == "deployment":
        return
    Attendance(federation, clients)
    count = round_size(len(clients), federation)
    # With Poisson sampling a round may be smaller, and larger, than planned.
    most = len(clients) if federation.differential_privacy.is_central else count
    if federation.min_clients > most:
        raise SettingsError(
            f"federation.min_clients is {federation.min_clients}, but of {len(clients)} clients "
            f"{most} train in a round (federation.client_fraction is "
            f"{federation.client_fraction:g}); allowed: 1 to {most}"
        )
    check_round(federation, len(clients))


def check_personalization(settings: ArmSettings, layers: tuple[str, ...]) -> None:
    """Refuse personal ``layers`` and filters that contradict each other or the federation."""
    from phoenix_pipeline.federated.work_plan import round_size

    personal, rules = settings.personal_layers, settings.threshold_filter
    federation = settings.federation

    if federation.pooled and (layers or rules.enabled):
        raise SettingsError(
            "federation.pooled puts all data in one place, where personal layers and threshold "
            "filtering mean nothing; set personal_layers.layers: null and "
            "threshold_filter.enabled: false"
        )
    if personal.final_average and not layers:
        raise SettingsError(
            "personal_layers.final_average is true, but personal_layers.layers names no layers; "
            "name some or set personal_layers.final_average: false"
        )
    left = round_size(rules.min_clients, federation)
    if rules.enabled and left < federation.min_clients:
        raise SettingsError(
            f"threshold_filter.min_clients is {rules.min_clients}, of whom {left} train in a "
            f"round, below federation.min_clients ({federation.min_clients}): filtering would end "
            "the run; raise threshold_filter.min_clients or lower federation.min_clients"
        )
    required = federation.aggregation.required_replies
    if rules.enabled and left < required:
        raise SettingsError(
            f"threshold_filter.min_clients is {rules.min_clients}, but "
            f"federation.aggregation.rule {federation.aggregation.rule} needs {required} replies "
            f"and of so few clients {left} train in a round: filtering would end the run; raise "
            "threshold_filter.min_clients or change federation.aggregation"
        )


def check_pool(settings: ArmSettings) -> None:
    """Refuse a warm-up without a pool."""
    pool = settings.shared_pool
    if pool.warmup_steps and not pool.beta:
        raise SettingsError(
            f"shared_pool.warmup_steps is {pool.warmup_steps}, but shared_pool.beta is 0: there is "
            "no pool to warm up on; set shared_pool.beta above 0 or shared_pool.warmup_steps to 0"
        )


def check_budget(federation: FederationConfig) -> None:
    """Refuse a share of the training that nothing asks for; ``federation`` as it was given."""
    scaled = {"num_rounds", "local_work.amount"} & set(federation.waiting())
    if federation.budget != 1.0 and not scaled:
        raise SettingsError(
            f"federation.budget is {federation.budget:g}, which is a share of what auto stands "
            "for, but num_rounds and local_work.amount are numbers; set one of them to auto, or "
            "federation.budget: 1"
        )


def check_conditioning(train: ImageSet, settings: ArmSettings) -> None:
    """Refuse to learn classes from images without any, and to draw what the model will not have."""
    model, federation = settings.model, settings.federation
    if model.conditioning == "none":
        check_classes(model, settings.sampling)
        return
    family = family_of(model)
    if not family.conditional:
        raise SettingsError(
            f"model.conditioning is {model.conditioning}, but models of model.family "
            f"{model.family} learn no labels; set model.conditioning: none for this arm"
        )
    if train.labels is None:
        raise SettingsError(
            f"model.conditioning is {model.conditioning}, but the training images have no labels; "
            "set images.label_column, use a folder for each class, or set model.conditioning: none"
        )
    guidance = (
        ("model.label_dropout", 0.1, model.label_dropout),
        ("sampling.guidance_scale", 1.0, settings.sampling.guidance_scale),
    )
    for name, plain, asked in guidance:
        if asked != plain and not family.guided:
            raise SettingsError(
                f"{name} is {asked:g}, which is for the guidance of diffusion models, but "
                f"model.family is {model.family}; set {name}: {plain:g} for this arm"
            )
    check_classes(model, settings.sampling, train.class_names)
    if federation.engine == "deployment" and settings.sampling.class_distribution == "as_training":
        raise SettingsError(
            "sampling.class_distribution is as_training, but with federation.engine deployment "
            "nobody knows how many images of each class the sites hold; set it to uniform or to "
            "one share per class"
        )


def check_rule(settings: ArmSettings, layers: tuple[str, ...]) -> None:
    """Refuse a rule that would drown what only some clients learn; ``layers`` stay with them."""
    from phoenix_pipeline.federated.personal_layers import is_personal

    federation, rows = settings.federation, family_of(settings.model).class_layers
    shared = any(not is_personal(layer, layers) for layer in rows)
    # Adapters leave the embedding of classes as it is.
    conditional = settings.model.conditioning == "labels" and not settings.model.lora.rank
    conditional &= shared
    if conditional and federation.aggregation.rule != "mean":
        raise SettingsError(
            f"federation.aggregation.rule {federation.aggregation.rule} takes all clients for "
            "equally able, but with model.conditioning labels a class is learnt only by clients "
            "that hold it; set federation.aggregation.rule: mean, or personal_layers.layers: "
            "class_embedding"
        )


def check_lora(settings: ArmSettings) -> None:
    """Refuse adapters without a start, and of a family that has none."""
    model = settings.model
    if not model.lora.rank:
        return
    if not family_of(model).adaptable:
        raise SettingsError(
            f"model.lora.rank is {model.lora.rank}, but models of model.family {model.family} have "
            "no adapters; set model.lora.rank: 0 for this arm"
        )
    if model.start_from is None:
        raise SettingsError(
            f"model.lora.rank is {model.lora.rank}, but model.start_from is null: there is nothing "
            "to adapt; name the folder of a trained model, or set model.lora.rank: 0"
        )


def check_loss(settings: ArmSettings) -> None:
    """Refuse DP-SGD and what only the training of diffusion models does in other models."""
    training, family = settings.training, family_of(settings.model)
    if training.dp_sgd.enabled and not family.private:
        raise SettingsError(
            "training.dp_sgd takes gradients of single images, which models of model.family "
            f"{family.name} do not give; set training.dp_sgd.enabled: false for this arm"
        )
    if family.predicts_noise:
        weighting = training.loss_weighting
        if settings.model.noise.prediction_type == "flow" and weighting != "none":
            raise SettingsError(
                f"training.loss_weighting is {weighting}, which weighs by the signal-to-noise "
                "ratio of a diffusion process, but model.noise.prediction_type is flow; set "
                "training.loss_weighting: none, or training.timestep_distribution: logit_normal"
            )
        return
    for name, value in _PLAIN_TRAINING.items():
        if (asked := getattr(training, name)) != value:
            raise SettingsError(
                f"training.{name} is {asked}, which is for diffusion models, but model.family is "
                f"{settings.model.family}; set training.{name}: {json.dumps(value)} for this arm"
            )


def check_threshold(settings: ArmSettings, train: ImageSet, test: ImageSet, run: RunConfig) -> None:
    """Refuse a reference that cannot be made, and a threshold that real images do not pass."""
    from phoenix_pipeline.metrics.monitoring import build_monitor_reference, monitor_score

    rules = settings.threshold_filter
    if not rules.enabled:
        return
    score = monitor_score(train.images, build_monitor_reference(test, run.seed))
    if rules.absolute_threshold is not None and rules.absolute_threshold <= score:
        raise SettingsError(
            "threshold_filter.absolute_threshold is "
            f"{rules.absolute_threshold:g}, but real images themselves score {score:.3g}: every "
            "client would be disconnected; set it higher, or to null"
        )
