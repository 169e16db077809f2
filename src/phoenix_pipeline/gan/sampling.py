"""Images from a trained generator, each one decided by its own seed."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.gan.dcgan import Dcgan
from phoenix_pipeline.images import to_uint8
from phoenix_pipeline.optimization.compilation import is_compiled, run_compiled


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
