"""A trained DCGAN in its folder, and images from it, each one decided by its own seed."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phoenix_pipeline.checkpoints import METADATA_FILE, atomic_path, load_tensors, save_tensors
from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.errors import CheckpointError, SettingsError, TrainingError
from phoenix_pipeline.gan.dcgan import Dcgan, build_dcgan
from phoenix_pipeline.images import to_uint8
from phoenix_pipeline.json_files import read_json, write_json
from phoenix_pipeline.optimization.compilation import is_compiled, run_compiled

CONFIG_FILE = "config.json"
_NETWORKS = ("generator", "discriminator")


def export_networks(
    folder: Path, network: Dcgan, model: ModelConfig, metadata: Mapping[str, Any]
) -> None:
    """Write ``<network>.safetensors`` for both, ``config.json``, and ``metadata`` beside them.

    ``config.json`` holds the model group, ``channels``, ``image_size`` and ``num_classes``. A
    folder of that name is replaced when the new one is complete.
    Raises StorageError: the folder could not be written in full.
    """
    config = {
        "model": model.model_dump(mode="json"),
        "channels": network.channels,
        "num_classes": network.num_classes,
        "image_size": network.image_size,
    }
    with atomic_path(folder) as temporary:
        for name in _NETWORKS:
            tensors = network.get_submodule(name).state_dict()
            save_tensors(temporary / f"{name}.safetensors", tensors, {"network": name})
        write_json(temporary / CONFIG_FILE, config)
        write_json(temporary / METADATA_FILE, dict(metadata))


def load_networks(folder: Path) -> Dcgan:
    """Return both networks, on the CPU, to draw; raises CheckpointError."""
    folder = Path(folder)
    config = read_json(folder / CONFIG_FILE)
    try:
        model = ModelConfig.model_validate(config["model"])
        channels, side = int(config["channels"]), int(config["image_size"])
        network = build_dcgan(model.dcgan, channels, side, 0, int(config.get("num_classes", 0)))
    except (KeyError, TypeError, ValueError, SettingsError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder / CONFIG_FILE} does not describe a DCGAN: {reason}; export the model again"
        ) from error
    for name in _NETWORKS:
        path = folder / f"{name}.safetensors"
        tensors, _ = load_tensors(path)
        try:
            network.get_submodule(name).load_state_dict(tensors)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{path} does not fit {CONFIG_FILE} beside it: {reason}; export the model again"
            ) from error
    return network.eval()


def sample_images(
    network: Dcgan,
    batch_size: int,
    seeds: Sequence[int],
    device: torch.device | str,
    labels: Sequence[int] | None = None,
) -> Iterator[np.ndarray]:
    """Yield uint8 batches [B, C, H, W], B up to ``batch_size``, in the order of ``seeds``.

    The latent vector of image ``i`` comes from a CPU generator seeded with ``seeds[i]``, and
    BatchNorm uses its running statistics, so neither the batch size nor the other images change it.
    The generator is switched to evaluation for each batch and back afterwards.

    ``labels``: the class that each image is to show, if the network knows classes.
    Raises TrainingError: the generator gives values that are not finite.
    """
    shape = (network.latent_dim, 1, 1)
    for start in range(0, len(seeds), batch_size):
        chunk = seeds[start : start + batch_size]
        generators = [torch.Generator().manual_seed(int(seed)) for seed in chunk]
        latent = torch.stack([torch.randn(shape, generator=g) for g in generators])
        inputs = [latent.to(device)]
        if labels is not None:
            inputs.append(torch.tensor(labels[start : start + len(chunk)], device=device))
        yield _generate(network, inputs)


@torch.inference_mode()
def _generate(network: Dcgan, inputs: Sequence[torch.Tensor]) -> np.ndarray:
    """Return uint8 [B, C, H, W] from latent vectors [B, latent_dim, 1, 1], and perhaps labels."""
    generator = network.generator
    was_training = generator.training
    generator.eval()
    try:
        draw = partial(generator, *inputs)
        images = run_compiled(draw) if is_compiled(generator) else draw()
        if not bool(torch.isfinite(images).all()):
            raise TrainingError(
                "the generator gave images that are not finite; its weights diverged: lower "
                "training.learning_rate or set training.max_grad_norm"
            )
        return to_uint8(images).cpu().numpy()
    finally:
        generator.train(was_training)
