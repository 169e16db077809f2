"""The DCGAN (Radford et al., arXiv 1511.06434): the GAN baseline (``gan/``)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from phoenix_pipeline.config import ModelConfig, SamplingConfig, TrainingConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families.family import CLASS_EMBEDDING, Attack, Family

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from phoenix_pipeline.gan.dcgan import Dcgan
    from phoenix_pipeline.optimization.work import ClientTask, LocalResult

_DISCRIMINATOR = "discriminator"
# Batch size, learning rate, channels, latent length, layers per resolution, by the largest side
# that they are for. From 13 pixels on they are the paper's.
_SIZES = {
    12: (32, 1e-3, 64, 32, 2),
    20: (32, 2e-4, 64, 100, 1),
    48: (32, 2e-4, 32, 100, 1),
    96: (32, 2e-4, 32, 100, 1),
    160: (32, 2e-4, 16, 100, 1),
    256: (16, 2e-4, 8, 100, 1),
}


def _logit(network: "nn.Module", x_0: "Tensor", labels: "Tensor | None") -> "Tensor":
    """Return the discriminator's logit (LOGAN, Hayes et al., arXiv 1705.07663)."""
    logits: Tensor = network.get_submodule(_DISCRIMINATOR)(
        x_0, *([] if labels is None else [labels])
    )
    return logits


class DcganFamily(Family):
    """Generator and discriminator. Every sampler setting but the batch size is unused."""

    name = "dcgan"
    conditional = True
    why_not_compiled = "a DCGAN is too small for it"
    undrawn = (_DISCRIMINATOR,)
    attacks: ClassVar[Mapping[str, "Attack"]] = {"discriminator": _logit}
    class_layers = ("generator.class_embedding", "discriminator.class_embedding")

    def build(
        self, model: ModelConfig, channels: int, image_size: int, seed: int, num_classes: int = 0
    ) -> "nn.Module":
        """Return both networks; their weights depend on ``seed`` alone."""
        from phoenix_pipeline.gan.dcgan import build_dcgan

        return build_dcgan(model.dcgan, channels, image_size, seed, num_classes)

    def count_layers(self, model: ModelConfig, image_size: int) -> int:
        """Count the convolutions of both networks."""
        return 2 * model.dcgan.layers_per_resolution * image_size.bit_length()

    def run_once(self, network: "nn.Module", channels: int, image_size: int) -> int:
        """Make two images and judge two; BatchNorm takes no single one."""
        import torch

        gan = cast("Dcgan", network)
        labels = [torch.zeros(2, dtype=torch.long)] if gan.num_classes else []
        gan.discriminator(gan(torch.zeros(2, gan.latent_dim, 1, 1), *labels), *labels)
        gan.discriminator(torch.zeros(2, channels, image_size, image_size), *labels)
        return 2

    def train_locally(
        self,
        network: "nn.Module",
        task: "ClientTask",
        model: ModelConfig,
        training: TrainingConfig,
    ) -> "LocalResult":
        """Train in place; see :func:`phoenix_pipeline.gan.training.train_locally`."""
        from phoenix_pipeline.gan.training import train_locally

        gan, moments = cast("Dcgan", network), task.optimizer_state
        known = task.labels if gan.num_classes else None
        return train_locally(gan, task.images, task.work, model.dcgan, training, moments, known)

    def sample_images(
        self,
        network: "nn.Module",
        model: ModelConfig,
        sampling: SamplingConfig,
        image_shape: tuple[int, int, int],
        seeds: Sequence[int],
        device: "torch.device | str",
        labels: Sequence[int] | None = None,
    ) -> "Iterator[np.ndarray]":
        """Yield uint8 batches; see :func:`phoenix_pipeline.gan.sampling.sample_images`."""
        from phoenix_pipeline.gan.sampling import sample_images

        gan = cast("Dcgan", network)
        made = (gan.channels, gan.image_size, gan.image_size)
        if made != image_shape:
            raise SettingsError(
                f"images of shape {image_shape} were asked of a generator that makes {made}; set "
                "images.channels and images.image_size as they were in training"
            )
        return sample_images(gan, sampling.batch_size, seeds, device, labels)

    def settle_model(self, model: ModelConfig, image_size: int) -> ModelConfig:
        """Return ``model`` without ``auto`` in ``model.dcgan``."""
        *_, channels, latent, layers = _sizes_for(image_size)
        dcgan = model.dcgan.settled(
            latent_dim=latent, base_channels=channels, layers_per_resolution=layers
        )
        return model.model_copy(update={"dcgan": dcgan})

    def settle_training(
        self, training: TrainingConfig, image_size: int, *, pooled: bool, aligned: bool
    ) -> TrainingConfig:
        """Return ``training`` without ``auto``, the same wherever the data lie."""
        batch_size, rate, *_ = _sizes_for(image_size)
        return training.settled(batch_size=batch_size, learning_rate=rate)

    def why_not_stacked(self, training: TrainingConfig) -> str | None:
        """Refuse: BatchNorm keeps statistics of each client's own batches."""
        return "a DCGAN has BatchNorm, whose statistics are one network's"

    def personal_presets(self, model: ModelConfig) -> Mapping[str, tuple[str, ...]]:
        """Return ``class_embedding``: the embeddings of classes of both networks."""
        return {CLASS_EMBEDDING: self.class_layers}

    def layers_that_stay(self, model: ModelConfig) -> tuple[str, ...]:
        """Return the discriminator where ``model.dcgan.federate`` is ``generator``."""
        return (_DISCRIMINATOR,) if model.dcgan.federate == "generator" else ()

    def export(
        self, folder: Path, network: "nn.Module", model: ModelConfig, metadata: Mapping[str, Any]
    ) -> None:
        """Write both networks, their config and ``metadata`` as one folder."""
        from phoenix_pipeline.gan.sampling import export_networks

        export_networks(folder, cast("Dcgan", network), model, metadata)

    def load(self, folder: Path) -> "nn.Module":
        """Return both networks of an exported folder, on the CPU, in evaluation mode."""
        from phoenix_pipeline.gan.sampling import load_networks

        return load_networks(folder)

    def describe_sampling(self, sampling: Mapping[str, Any], conditional: bool) -> dict[str, Any]:
        """Return that the generator takes one step, and which classes were asked for."""
        described = super().describe_sampling(sampling, conditional)
        names = ["class_distribution"] if conditional else []
        return described | {name: sampling[name] for name in names}

    def describe_sent(self, settings: Mapping[str, Any]) -> str:
        """Return whether the discriminator was sent too."""
        if settings.get("dcgan", {}).get("federate") == "generator":
            return "the weights of its generator; its discriminator stayed with it"
        return "the weights of its generator and discriminator"

    def why_not_attacked(self, layers_away: Sequence[str]) -> str:
        """Refuse a model whose discriminator is an untrained one."""
        if _DISCRIMINATOR not in layers_away:
            return ""
        return (
            "the attack on a GAN needs its discriminator, which stayed with the clients; the "
            "model has an untrained one"
        )


def _sizes_for(image_size: int) -> tuple[int, float, int, int, int]:
    return next(sizes for side, sizes in _SIZES.items() if image_size <= side)
