"""Any network's forward pass for several clients at once, by ``torch.vmap``."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

# From weights by name [C, ...], x_t [C, B, channels, H, W], timesteps [C, B] and, for a conditional
# network, labels [C, B]: what the clients' networks predict, [C, B, channels, H, W].
PredictStacked = Callable[..., Tensor]


@dataclass(frozen=True)
class BatchedUNet:
    """Predicts for all clients of a stack; within :func:`batched_attention`."""

    unet: nn.Module

    def __call__(self, weights: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
        """Return what the networks with ``weights`` [C, ...] predict; see PredictStacked."""

        def predict(own: dict[str, Tensor], *inputs: Tensor) -> Tensor:
            prediction: Tensor = functional_call(self.unet, own, inputs, {"return_dict": False})[0]
            return prediction

        # Of one client: dropout draws from its generator.
        batched = torch.vmap(predict, randomness="different")
        predicted: Tensor = batched(dict(weights), *inputs)
        return predicted


@contextmanager
def batched_attention(unet: nn.Module) -> Iterator[None]:
    """Let ``unet`` attend by matrix products for the block.

    The fused kernels do not go with vmap: that of CPUs has no batching rule, so vmap would take the
    clients one after another, and on a GPU the backward pass refuses what vmap hands it.
    ``torch.nn.attention.sdpa_kernel`` switches kernels off for all threads of the process, and on
    again under the other workers' feet, whose weights then differ in the last bits.
    """
    from diffusers.models.attention_processor import Attention, AttnProcessor

    blocks = [module for module in unet.modules() if isinstance(module, Attention)]
    fused = [block.processor for block in blocks]
    for block in blocks:
        block.set_processor(AttnProcessor())
    try:
        yield
    finally:
        for block, processor in zip(blocks, fused, strict=True):
            block.set_processor(processor)
