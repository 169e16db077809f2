"""Attention that ``torch.vmap`` can batch over clients on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def batched_attention(unet: nn.Module, device: torch.device) -> Iterator[None]:
    """On a CPU, let ``unet`` attend by matrix products for the block.

    Flash attention has no batching rule there: vmap would take the clients one after another.
    ``torch.nn.attention.sdpa_kernel`` switches it off for all threads of the process, and on again
    under the other workers' feet, whose weights then differ in the last bits.
    """
    from diffusers.models.attention_processor import Attention, AttnProcessor

    blocks = [m for m in unet.modules() if isinstance(m, Attention)] if device.type == "cpu" else []
    fused = [block.processor for block in blocks]
    for block in blocks:
        block.set_processor(AttnProcessor())
    try:
        yield
    finally:
        for block, processor in zip(blocks, fused, strict=True):
            block.set_processor(processor)
