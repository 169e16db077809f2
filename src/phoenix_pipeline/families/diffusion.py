"""Diffusion models: the U-Net of diffusers, trained to take noise off (``diffusion/``)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from phoenix_pipeline.config import ModelConfig, SamplingConfig, TrainingConfig
from phoenix_pipeline.diffusion.unet import OUTPUT, layer_presets, settle_training, settle_unet
from phoenix_pipeline.families.family import Family
from phoenix_pipeline.families.provenance import NetworkSettings
from phoenix_pipeline.hub import start_folder

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from phoenix_pipeline.errors import TrainingError
    from phoenix_pipeline.optimization.work import ClientTask, LocalResult

# Tables of the forward process and of its copies, for each timestep.
_TIMESTEP_BYTES = 64


class DiffusionFamily(Family):
    """A U-Net that takes noise off. Its settings are ``model.unet`` and ``model.noise``."""

    name = "diffusion"
    conditional = True
    guided = True
    predicts_noise = True
    adaptable = True
    latent = True
    private = True
    library = "diffusers"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encoder": ("conv_in", "time_embedding", "class_embedding", "down_blocks"),
        "bottleneck": ("mid_block",),
        "decoder": ("up_blocks", *OUTPUT),
    }

    def build(
        self, model: ModelConfig, channels: int, image_size: int, seed: int, num_classes: int = 0
    ) -> "nn.Module":
        """Return the U-Net; its weights depend on ``seed`` alone.

        With adapters their base are the weights of ``model.start_from``; without a start it has the
        right names and shapes.
        Raises SettingsError: settings do not fit the images, or the start.
        Raises CheckpointError: the start holds no complete network.
        """
        from phoenix_pipeline.diffusion.unet import build_unet

        unet: nn.Module = build_unet(model.unet, channels, image_size, seed, num_classes)
        if not model.lora.rank:
            return unet
        from phoenix_pipeline.diffusion.lora import add_adapters

        folder = start_folder(model)
        if folder:
            unet.load_state_dict(self.load_start(folder, unet, model))
        return add_adapters(unet, model.lora, seed)

    def count_layers(self, model: ModelConfig, image_size: int) -> int:
        """Count the residual blocks on both sides of every level."""
        return 2 * (model.unet.layers_per_block + 1) * len(model.unet.block_out_channels)

    def run_once(self, network: "nn.Module", channels: int, image_size: int) -> int:
        """Run the U-Net on one image of zeros."""
        import torch

        images = torch.zeros(1, channels, image_size, image_size)
        t = torch.zeros(1, dtype=torch.long)
        network(images, t, class_labels=None if network.class_embedding is None else t)
        return 1

    def train_locally(
        self,
        network: "nn.Module",
        task: "ClientTask",
        model: ModelConfig,
        training: TrainingConfig,
    ) -> "LocalResult":
        """Train in place; see :func:`phoenix_pipeline.diffusion.training.train_locally`."""
        from phoenix_pipeline.diffusion.batches import condition_of
        from phoenix_pipeline.diffusion.noise import forward_process
        from phoenix_pipeline.diffusion.training import train_locally

        schedule = forward_process(model.noise, task.images.device)
        condition = condition_of(network, model, task.labels)
        moments = task.optimizer_state
        return train_locally(
            network, task.images, task.work, schedule, training, moments, condition
        )

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
        """Yield uint8 batches, latents decoded; see :mod:`phoenix_pipeline.diffusion.sampling`."""
        from phoenix_pipeline.diffusion.lora import merge_adapters
        from phoenix_pipeline.diffusion.sampling import sample_images
        from phoenix_pipeline.latents.autoencoder import autoencoder_of, shape_in

        autoencoder, shape = autoencoder_of(network), shape_in(network, image_shape)
        decode = autoencoder.decode if autoencoder else None
        network = merge_adapters(network)
        return sample_images(network, model.noise, sampling, shape, seeds, device, labels, decode)

    def check_sampling(self, model: ModelConfig, sampling: SamplingConfig) -> None:
        """See :func:`phoenix_pipeline.diffusion.sampling.check_sampling`."""
        from phoenix_pipeline.diffusion.sampling import check_sampling

        check_sampling(sampling, model.noise)

    def settle_model(self, model: ModelConfig, image_size: int) -> ModelConfig:
        """Return ``model`` without ``auto``; see :mod:`phoenix_pipeline.diffusion.unet`."""
        return model.model_copy(update={"unet": settle_unet(model.unet, image_size)})

    def settle_training(
        self, training: TrainingConfig, image_size: int, *, pooled: bool, aligned: bool
    ) -> TrainingConfig:
        """Return ``training`` without ``auto``; see :mod:`phoenix_pipeline.diffusion.unet`."""
        return settle_training(training, image_size, pooled=pooled, aligned=aligned)

    def table_bytes(self, model: ModelConfig) -> int:
        """Return the memory of the forward process's tables."""
        return model.noise.num_train_timesteps * _TIMESTEP_BYTES

    def why_not_stacked(self, training: TrainingConfig) -> str | None:
        """See :func:`phoenix_pipeline.diffusion.stacked.why_not_stacked`."""
        from phoenix_pipeline.diffusion.stacked import why_not_stacked

        return why_not_stacked(training)

    def train_stacked(
        self,
        network: "nn.Module",
        tasks: "Sequence[ClientTask]",
        model: ModelConfig,
        training: TrainingConfig,
    ) -> "list[LocalResult | TrainingError]":
        """Train several clients; see :func:`phoenix_pipeline.diffusion.stacked.train_stacked`."""
        from phoenix_pipeline.diffusion.batches import condition_of
        from phoenix_pipeline.diffusion.noise import forward_process
        from phoenix_pipeline.diffusion.stacked import train_stacked

        schedule = forward_process(model.noise, tasks[0].images.device)
        conditions = [condition_of(network, model, task.labels) for task in tasks]
        return train_stacked(network, tasks, schedule, training, conditions)

    def personal_presets(self, model: ModelConfig) -> Mapping[str, tuple[str, ...]]:
        """See :mod:`phoenix_pipeline.diffusion.unet`."""
        return layer_presets(model)

    def load_start(
        self, folder: Path, network: "nn.Module", model: ModelConfig
    ) -> "dict[str, Tensor]":
        """Return the start's weights; see :func:`~phoenix_pipeline.diffusion.export.load_start`."""
        from phoenix_pipeline.diffusion.start import load_start

        return load_start(folder, network, model.noise)

    def arrays_at_rest(self, network: "nn.Module") -> "dict[str, Tensor]":
        """Return the base of a network with adapters."""
        from phoenix_pipeline.diffusion.lora import arrays_at_rest

        return arrays_at_rest(network)

    def base_digest(self, network: "nn.Module") -> str:
        """Return the digest of the base; "" without adapters."""
        from phoenix_pipeline.diffusion.lora import base_digest

        return base_digest(network)

    def complete(
        self, network: "nn.Module", arrays: "Mapping[str, Tensor]", misfit: str
    ) -> "nn.Module":
        """Return the network with these arrays, its adapters merged into their base."""
        from phoenix_pipeline.diffusion.lora import merge_adapters, wake

        wake(network)
        return merge_adapters(super().complete(network, arrays, misfit))

    def export(
        self, folder: Path, network: "nn.Module", model: ModelConfig, metadata: Mapping[str, Any]
    ) -> None:
        """Write diffusers' folder layout; of adapters merged, and beside it the adapters alone."""
        from phoenix_pipeline.diffusion.export import export_pipeline
        from phoenix_pipeline.latents.autoencoder import autoencoder_of

        own = autoencoder_of(network)
        export_pipeline(folder, network, model.noise, metadata, own.network if own else None)

    def load(self, folder: Path) -> "nn.Module":
        """Return the U-Net of an exported folder, on the CPU, in evaluation mode."""
        from phoenix_pipeline.diffusion.export import load_unet

        return load_unet(folder)

    def describe_sampling(self, sampling: Mapping[str, Any], conditional: bool) -> dict[str, Any]:
        """Return sampler and steps, and of a conditional model how classes were asked for."""
        names = ["sampler", "num_steps", "timestep_spacing"]
        names += ["eta"] if sampling["sampler"] == "ddim" else []
        names += ["guidance_scale", "class_distribution"] if conditional else []
        return {name: sampling[name] for name in names}

    def describe_sent(self, settings: Mapping[str, Any]) -> str:
        """Return whether all weights were sent or adapters alone."""
        lora = settings.get("lora", {})
        if not lora.get("rank"):
            return super().describe_sent(settings)
        factors = "one factor of the" if lora["freeze_a"] else "the"
        return (
            f"{factors} low-rank adapters of its model (LoRA, rank {lora['rank']}); the weights "
            "below them were read at each site and never sent"
        )

    def describe_use(self, settings: NetworkSettings) -> list[str]:
        """Return how diffusers loads it, which for latents knows no shift and no flow."""
        conditional, latents = bool(settings["class_names"]), settings.get("latents")
        noise = settings["model"].get("noise", {})
        flow = noise.get("prediction_type") == "flow"
        if latents and (latents["shift"] or flow):
            return []
        kind = "LDMPipeline" if latents else "DDPMPipeline"
        load = [f'images = {kind}.from_pretrained(".")(batch_size=16).images']
        if conditional:
            load = [f'network = {kind}.from_pretrained(".").unet', "# network(x_t, t, classes)"]
        return [f"from diffusers import {kind}", "", *load]
