"""The U-Net's forward pass for sampling: the same weights and values, far fewer calls.

A whole batch is at the same timestep, and the timesteps are known beforehand. So what the time
adds to each residual block is computed once for all steps, and joins the bias of a convolution.
With classes it is computed for each of them.
diffusers' forward pass asks hundreds of modules for it in each step; with small images that takes
as long as the arithmetic.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phoenix_pipeline.diffusion.noise import inputs_of
from phoenix_pipeline.diffusion.unet_layers import Layers, is_known
from phoenix_pipeline.optimization.compilation import is_compiled, run_compiled

Predict = Callable[[Tensor, int], Tensor]

# From this side on, convolutions of a CPU are faster in NHWC (32: 1.2 times; 8: slower).
_NHWC_SIDE = 32


def predict_at(
    unet: nn.Module, timesteps: Tensor, side: int, dtype: torch.dtype, labels: Tensor | None = None
) -> Predict:
    """Return what predicts for a batch [B, C, side, side] at ``timesteps[index]``.

    Weights are read now, in evaluation mode. Networks that are compiled, or built otherwise than by
    :func:`~phoenix_pipeline.diffusion.unet.build_unet`, or with layers of other kinds in their
    place, are called as they are. ``timesteps``: int64 [S], on the same device. ``dtype``: of
    convolutions and matrix products, the one of the autocast that surrounds them. ``labels``: the
    class of each image [B], for a conditional network.
    """

    def call(x: Tensor, index: int) -> Tensor:
        return cast(Tensor, unet(*inputs_of(x, timesteps[index], labels), return_dict=False)[0])

    if is_compiled(unet):
        return lambda x, index: run_compiled(lambda: call(x, index))
    if not is_known(unet):
        return call
    nhwc = side >= _NHWC_SIDE and timesteps.device.type == "cpu"
    # Not in lower precision: it is little work, and the tables join float32 biases.
    with torch.autocast(timesteps.device.type, enabled=False):
        return Layers(unet, _Parts(unet, timesteps, labels, dtype, nhwc))


class _Convolution(NamedTuple):
    """``biases``: of each step, [C]; with ``classes`` [B] of the images, [classes, C]."""

    weight: Tensor
    bias: Tensor
    biases: tuple[Tensor, ...] | None
    classes: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]

    def __call__(self, x: Tensor, index: int = 0) -> Tensor:
        bias = self.bias if self.biases is None else self.biases[index]
        if self.classes is not None:
            convolved = torch.conv2d(x, self.weight, None, self.stride, self.padding)
            return convolved.add_(bias[self.classes, :, None, None])
        return torch.conv2d(x, self.weight, bias, self.stride, self.padding)


class _Norm(NamedTuple):
    groups: int
    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, module: Any) -> "_Norm":
        return cls(module.num_groups, module.weight.detach(), module.bias.detach(), module.eps)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.groups, self.weight, self.bias, self.eps)


class _NormAndSilu(NamedTuple):
    norm: _Norm

    def __call__(self, x: Tensor, index: int) -> Tensor:
        return F.silu(self.norm(x), inplace=True)


class _Residual(NamedTuple):
    norm_1: _Norm
    conv_1: _Convolution
    norm_2: _Norm
    conv_2: _Convolution
    shortcut: _Convolution | None

    def __call__(self, x: Tensor, index: int) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x), inplace=True), index)
        h = self.conv_2(F.silu(self.norm_2(h), inplace=True))
        return h.add_(x if self.shortcut is None else self.shortcut(x))


class _Attention(NamedTuple):
    norm: _Norm
    weight_qkv: Tensor
    bias_qkv: Tensor
    weight_out: Tensor
    bias_out: Tensor
    heads: int

    def __call__(self, x: Tensor, index: int) -> Tensor:
        n, c, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        qkv = F.linear(tokens, self.weight_qkv, self.bias_qkv)
        q, k, v = qkv.view(n, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out = F.linear(mixed, self.weight_out, self.bias_out)
        return out.transpose(1, 2).reshape(n, c, height, width).add_(x)


class _Parts:
    """Layers for the ``timesteps`` [S], each with a bias for each of them where time enters."""

    def __init__(
        self, unet: Any, timesteps: Tensor, labels: Tensor | None, dtype: torch.dtype, nhwc: bool
    ) -> None:
        """Lay weights out for convolutions and products; norms stay as they are."""
        self._dtype, self._nhwc = dtype, nhwc
        time = unet.time_embedding(unet.time_proj(timesteps).to(unet.dtype))
        self._time, self._classes = [F.silu(time)], None
        if labels is not None:
            classes, self._classes = labels.unique(return_inverse=True)
            self._time = [F.silu(time + row) for row in unet.class_embedding(classes)]

    def convolution(
        self, module: Any, bias: Tensor | None = None, classes: Tensor | None = None
    ) -> _Convolution:
        weight = self._cast(module.weight)
        if self._nhwc:
            weight = weight.contiguous(memory_format=torch.channels_last)
        bias = self._cast(module.bias if bias is None else bias)
        rows = bias.unbind() if bias.ndim > 1 else None
        return _Convolution(weight, bias, rows, classes, module.stride, module.padding)

    def norm_and_silu(self, module: Any) -> _NormAndSilu:
        return _NormAndSilu(_Norm.of(module))

    def residual(self, resnet: Any) -> _Residual:
        convolution, shortcut = self.convolution, resnet.conv_shortcut
        return _Residual(
            _Norm.of(resnet.norm1),
            convolution(resnet.conv1, self._bias(resnet), self._classes),
            _Norm.of(resnet.norm2),
            convolution(resnet.conv2),
            None if shortcut is None else convolution(shortcut),
        )

    def attention(self, attention: Any) -> _Attention:
        inputs = attention.to_q, attention.to_k, attention.to_v
        return _Attention(
            _Norm.of(attention.group_norm),
            self._cast(torch.cat([linear.weight for linear in inputs])),
            self._cast(torch.cat([linear.bias for linear in inputs])),
            self._cast(attention.to_out[0].weight),
            self._cast(attention.to_out[0].bias),
            attention.heads,
        )

    @staticmethod
    def join(x: Tensor, skipped: Tensor, index: int) -> Tensor:
        return torch.cat([x, skipped], dim=1)

    def _bias(self, resnet: Any) -> Tensor:
        """Return what time, and class, add to the first convolution: [S, C], or [S, classes, C]."""
        # Class by class: the rounding of one must not depend on which others are in the batch.
        rows = [resnet.time_emb_proj(time) + resnet.conv1.bias for time in self._time]
        return rows[0] if self._classes is None else torch.stack(rows, dim=1)

    def _cast(self, weight: Tensor) -> Tensor:
        return weight.detach().to(self._dtype)
