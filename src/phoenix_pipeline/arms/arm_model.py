"""An arm's model: what settings and images decide on before any training, and its cards."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from torch import Tensor, nn

from phoenix_pipeline.arms.checks import check_start_latents
from phoenix_pipeline.checkpoints import atomic_path
from phoenix_pipeline.config import ArmSettings, RunConfig
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.by_image_size import settle_arm
from phoenix_pipeline.families.latents import autoencoder_folder, find_latents
from phoenix_pipeline.families.model_folder import read_description
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.hub import start_folder
from phoenix_pipeline.images import ImageSet, encodable
from phoenix_pipeline.latents.autoencoder import load_autoencoder
from phoenix_pipeline.latents.space import trained_shape
from phoenix_pipeline.metrics.arm_metrics import ArmMetrics
from phoenix_pipeline.reporting.cards import (
    CARD_FILE,
    render_model_card,
    render_outdated_card,
    render_sample_card,
)

if TYPE_CHECKING:
    from phoenix_pipeline.federated.records import ClientSettings


def write_model_card(folder: Path) -> None:
    """Write README.md from what ``phoenix.json`` beside it says; the evaluation adds scores."""
    text = encodable(render_model_card(read_description(folder)))
    with atomic_path(folder / CARD_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_cards(model_folder: Path, samples_file: Path, metrics: ArmMetrics) -> tuple[str, str]:
    """Return the texts of the model's and of the samples' README.md.

    They say what the model's folder and the scores say, whatever this command's settings are.
    Scores of an earlier model are left out.
    """
    description = read_description(model_folder)
    if metrics["conditions"]["weights_digest"] != description["weights_digest"]:
        return render_model_card(description), render_outdated_card(description["arm"])
    num_images = pq.read_metadata(samples_file).num_rows
    samples = render_sample_card(description, metrics, num_images)
    return render_model_card(description, metrics), samples


@dataclass(frozen=True, eq=False)
class ArmModel:
    """``settings`` are without ``auto``; ``network`` has its initial weights.

    ``layers``: prefixes of what clients keep, as personal layers or by a partial update.
    ``class_names``: of a conditional model; empty for any other.
    """

    train: ImageSet
    settings: ArmSettings
    seed: int
    network: nn.Module
    layers: tuple[str, ...]
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, train: ImageSet, settings: ArmSettings, run: RunConfig) -> "ArmModel":
        """Settle what waits for the images, and :meth:`build`; raises SettingsError."""
        return cls.build(train, settle_arm(settings, train.image_size), run)

    @classmethod
    def build(cls, train: ImageSet, settings: ArmSettings, run: RunConfig) -> "ArmModel":
        """Build the network of ``settings``, which are without ``auto``.

        Raises SettingsError: the images or the device do not fit.
        """
        from phoenix_pipeline.federated.compression.partial_updates import layers_that_stay
        from phoenix_pipeline.federated.personal_layers import personal_prefixes

        resolve_device(run.device)
        model, family = settings.model, family_of(settings.model)
        channels, side, _ = trained_shape(train.channels, train.image_size, find_latents(model))
        classes = train.class_names if model.conditioning == "labels" else ()
        network = family.build(model, channels, side, run.seed, len(classes))
        names = network.state_dict()
        layers = personal_prefixes(settings.personal_layers, model, names)
        layers = layers_that_stay(layers, settings.federation, model, names)
        return cls(train, settings, run.seed, network, layers, classes)

    def load_start(self) -> dict[str, Tensor] | None:
        """Return weights of ``model.start_from`` if any; raises SettingsError, CheckpointError."""
        model = self.settings.model
        folder = start_folder(model)
        if folder is None:
            return None
        check_start_latents(folder, model)
        return None if model.lora.rank else family_of(model).load_start(folder, self.network, model)

    def client_settings(self) -> "ClientSettings":
        """Return what every client is told."""
        from phoenix_pipeline.federated.records import ClientSettings

        settings, folder = self.settings, autoencoder_folder(self.settings.model)
        # Clients get the weights, and have folders of their own.
        unnamed = {"start_from": None, "autoencoder": None, "allow_download": False}
        return ClientSettings(
            model=settings.model.model_copy(update=unnamed),
            training=settings.training,
            channels=self.train.channels,
            image_size=self.train.image_size,
            seed=self.seed,
            personal_layers=self.layers,
            monitor_samples=settings.threshold_filter.monitor_samples,
            monitor_steps=settings.threshold_filter.monitor_steps,
            compression=settings.federation.compression,
            strategies=settings.federation.strategies,
            class_names=self.class_names,
            base_digest=family_of(settings.model).base_digest(self.network),
            latents=load_autoencoder(folder).space if folder else None,
        )

    def summary(self) -> dict[str, Any]:
        """Return numbers of parameters, and what the model is for, as MLflow has them."""
        from phoenix_pipeline.federated.personal_layers import is_personal

        sizes = {name: weight.numel() for name, weight in self.network.named_parameters()}
        at_rest = family_of(self.settings.model).arrays_at_rest(self.network).values()
        kept = (size for name, size in sizes.items() if is_personal(name, self.layers))
        return {
            "num_parameters": sum(sizes.values()),
            "num_parameters_at_rest": sum(array.numel() for array in at_rest),
            "num_personal_parameters": sum(kept),
            "personal_layers": list(self.layers),
            "channels": self.train.channels,
            "image_size": self.train.image_size,
        }
