"""The order of the layers of a ``UNet2DModel``, for forward passes of this package's own.

What a convolution, a residual block or an attention computes is the pass's: that for sampling
(``unet_inference.py``), and that for the training of several clients (``stacked_unet.py``).
"""

import inspect
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from phoenix_pipeline.diffusion.dropout import SeededDropout

# What all layers of a pass need besides the activations, such as the number of the step.
Shared_contra = TypeVar("Shared_contra", contravariant=True)

_CHOSEN_BY_SETTINGS = {
    "sample_size",
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "attention_head_dim",
    "norm_num_groups",
    "dropout",
    "num_class_embeds",
}
_BLOCKS = {"DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"}
_PARTS = _BLOCKS | {
    "UNet2DModel",
    "UNetMidBlock2D",
    "ResnetBlock2D",
    "Attention",
    "Downsample2D",
    "Upsample2D",
    "Timesteps",
    "TimestepEmbedding",
}
_MODULES = {
    nn.Conv2d,
    nn.Linear,
    nn.GroupNorm,
    nn.Embedding,
    nn.SiLU,
    nn.Dropout,
    SeededDropout,
    nn.ModuleList,
}


def is_known(unet: nn.Module) -> bool:
    """Return whether :class:`Layers` has all that ``unet`` computes: as ``build_unet`` made it."""
    from diffusers import UNet2DModel

    if type(unet) is not UNet2DModel:
        return False
    config: Any = unet.config
    if not {*config.down_block_types, *config.up_block_types} <= _BLOCKS:
        return False
    options = inspect.signature(UNet2DModel.__init__).parameters
    fixed = options.keys() - _CHOSEN_BY_SETTINGS - {"self", "down_block_types", "up_block_types"}
    if any(config[name] != options[name].default for name in fixed):
        return False
    return all(map(_is_known_module, {type(module) for module in unet.modules()}))


def _is_known_module(kind: type[nn.Module]) -> bool:
    from_diffusers = kind.__module__.startswith("diffusers.") and kind.__name__ in _PARTS
    return from_diffusers or kind in _MODULES


class Layer(Protocol[Shared_contra]):
    """A layer, or several that follow each other."""

    def __call__(self, x: Tensor, shared: Shared_contra, /) -> Tensor:
        """Return what comes after ``x`` [B, C, H, W]."""


class Parts(Protocol[Shared_contra]):
    """What builds the layers of a pass from diffusers' modules."""

    def convolution(self, module: Any) -> Layer[Shared_contra]:
        """Return a convolution."""

    def norm_and_silu(self, module: Any) -> Layer[Shared_contra]:
        """Return a group norm with SiLU behind it."""

    def residual(self, resnet: Any) -> Layer[Shared_contra]:
        """Return a residual block, into which time and class enter."""

    def attention(self, attention: Any) -> Layer[Shared_contra]:
        """Return self-attention over the pixels, added to its input."""

    def join(self, x: Tensor, skipped: Tensor, shared: Shared_contra, /) -> Tensor:
        """Return the channels of both."""


class Layers(Generic[Shared_contra]):
    """The forward pass, in the order of ``UNet2DModel.forward``; holds no reference to it."""

    def __init__(self, unet: Any, parts: Parts[Shared_contra]) -> None:
        self._conv_in = parts.convolution(unet.conv_in)
        self._down = [_level(parts, block, block.downsamplers) for block in unet.down_blocks]
        first, second = map(parts.residual, unet.mid_block.resnets)
        self._middle = first, parts.attention(unet.mid_block.attentions[0]), second
        self._up = [_level(parts, block, block.upsamplers) for block in unet.up_blocks]
        self._out = parts.norm_and_silu(unet.conv_norm_out), parts.convolution(unet.conv_out)
        self._join = parts.join

    def __call__(self, x: Tensor, shared: Shared_contra) -> Tensor:
        """Return the prediction [B, C, H, W] for ``x`` [B, C, H, W]."""
        x = self._conv_in(x, shared)
        skipped = [x]
        for layers, downsample in self._down:
            for layer in layers:
                for part in layer:
                    x = part(x, shared)
                skipped.append(x)
            if downsample is not None:
                x = downsample(x, shared)
                skipped.append(x)
        for part in self._middle:
            x = part(x, shared)
        for layers, upsample in self._up:
            for layer in layers:
                x = self._join(x, skipped.pop(), shared)
                for part in layer:
                    x = part(x, shared)
            if upsample is not None:
                x = upsample(F.interpolate(x, scale_factor=2.0, mode="nearest"), shared)
        for part in self._out:
            x = part(x, shared)
        return x


def _level(
    parts: Parts[Shared_contra], block: Any, samplers: Any
) -> tuple[list[tuple[Layer[Shared_contra], ...]], Layer[Shared_contra] | None]:
    """Return layers, each a residual block and perhaps attention, and what follows them."""
    layers: list[tuple[Layer[Shared_contra], ...]] = [
        (parts.residual(own),) for own in block.resnets
    ]
    if hasattr(block, "attentions"):
        attentions = map(parts.attention, block.attentions)
        layers = [(*layer, own) for layer, own in zip(layers, attentions, strict=True)]
    return layers, None if samplers is None else parts.convolution(samplers[0].conv)
