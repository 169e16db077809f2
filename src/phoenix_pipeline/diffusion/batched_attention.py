"""Attention that ``torch.vmap`` can batch over clients."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
