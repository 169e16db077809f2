"""The U-Net's forward pass for several clients at once, each with weights of its own.

Activations are [B, clients * channels, H, W] from the first layer to the last: a convolution of all
clients is a grouped one, and a group norm has so many times the groups. ``torch.vmap`` of
diffusers' forward pass computes the same, but lays activations out anew around every layer.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phoenix_pipeline.diffusion.unet_layers import Layers

Weights = Mapping[str, Tensor]
# Up to so many, plain products are as fast on a CPU as the fused kernel, or faster; from 256 on the
# whole step takes 1.6 times as long with them.
_MOST_UNFUSED_PIXELS = 64


class _Pass(NamedTuple):
    """What all layers need: ``weights`` by name [C, ...], and by the name of a residual block
    what time, class and bias add to its first convolution, ``shifts`` [B, C * channels, 1, 1].
    """

    clients: int
    weights: Weights
    shifts: Weights

    def of(self, layer: str) -> tuple[Tensor, Tensor]:
        """Return weight and bias of ``layer``."""
        return self.weights[f"{layer}.weight"], self.weights[f"{layer}.bias"]


class StackedUNet:
    """Predicts for all clients of a stack; holds no weights and no reference to the network."""

    def __init__(self, unet: Any) -> None:
        """Read the layers of ``unet``, which ``unet_layers.is_known``; its dropout is shared."""
        names = {module: name for name, module in unet.named_modules() if name}
        self._layers = Layers(unet, _Parts(names))
        self._time_proj = unet.time_proj
        self._blocks = [n for module, n in names.items() if hasattr(module, "time_emb_proj")]

    def __call__(
        self, weights: Weights, x_t: Tensor, t: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Return what the networks with ``weights`` [C, ...] predict, [C, B, channels, H, W].

        ``x_t``: noisy images [C, B, channels, H, W]. ``t``: int64 timesteps [C, B]. ``labels``:
        int64 classes [C, B], for a conditional network.
        """
        shifts = self._shifts(weights, self._embedding(weights, t, labels))
        x = x_t.transpose(0, 1).flatten(1, 2)
        predicted = self._layers(x, _Pass(len(t), weights, shifts))
        return predicted.unflatten(1, (len(t), -1)).transpose(0, 1)

    def _embedding(self, weights: Weights, t: Tensor, labels: Tensor | None) -> Tensor:
        """Return what stands for time and class, [C, B, D]."""
        own = _Pass(len(t), weights, {})
        time = self._time_proj(t.flatten()).unflatten(0, t.shape)
        hidden = F.silu(_linear(own, "time_embedding.linear_1", time))
        time = _linear(own, "time_embedding.linear_2", hidden)
        if labels is None:
            return time
        table = weights["class_embedding.weight"]
        first = torch.arange(len(t), device=t.device)[:, None] * table.shape[1]
        return time + F.embedding(first + labels, table.flatten(0, 1))

    def _shifts(self, weights: Weights, embedding: Tensor) -> Weights:
        names = [f"{block}.time_emb_proj" for block in self._blocks]
        weight = torch.cat([weights[f"{name}.weight"] for name in names], dim=1)
        biases = [weights[f"{name}.bias"] for name in names]
        bias = torch.cat(biases, dim=1)
        # So the convolution has none, and the backward pass one sum less over its output.
        bias = bias + torch.cat([weights[f"{block}.conv1.bias"] for block in self._blocks], dim=1)
        shifts = torch.baddbmm(bias[:, None], F.silu(embedding), weight.mT).transpose(0, 1)
        parts = shifts.split([own.shape[1] for own in biases], dim=2)
        return {
            block: part.flatten(1)[:, :, None, None]
            for block, part in zip(self._blocks, parts, strict=True)
        }


def _linear(shared: _Pass, layer: str, x: Tensor) -> Tensor:
    """Return x W^T + b [C, N, out] of each client's ``x`` [C, N, in]."""
    weight, bias = shared.of(layer)
    return torch.baddbmm(bias[:, None], x, weight.mT)


class _Convolution(NamedTuple):
    layer: str
    stride: tuple[int, int]
    padding: tuple[int, int]

    def __call__(self, x: Tensor, shared: _Pass) -> Tensor:
        weight, bias = shared.of(self.layer)
        return self.convolve(x, weight, bias.flatten(), shared)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, shared: _Pass) -> Tensor:
        """Return ``x`` convolved with ``weight`` [C, out, in, ...], with ``bias`` [C * out]."""
        groups = shared.clients
        return F.conv2d(x, weight.flatten(0, 1), bias, self.stride, self.padding, groups=groups)


class _Norm(NamedTuple):
    layer: str
    groups: int
    eps: float

    def __call__(self, x: Tensor, shared: _Pass) -> Tensor:
        weight, bias = shared.of(self.layer)
        groups = self.groups * shared.clients
        return F.group_norm(x, groups, weight.flatten(), bias.flatten(), self.eps)


class _NormAndSilu(NamedTuple):
    norm: _Norm

    def __call__(self, x: Tensor, shared: _Pass) -> Tensor:
        return F.silu(self.norm(x, shared))


class _Residual(NamedTuple):
    block: str
    norm_1: _NormAndSilu
    conv_1: _Convolution
    norm_2: _NormAndSilu
    dropout: nn.Module
    conv_2: _Convolution
    shortcut: str | None

    def __call__(self, x: Tensor, shared: _Pass) -> Tensor:
        weight, _ = shared.of(self.conv_1.layer)
        h = self.conv_1.convolve(self.norm_1(x, shared), weight, None, shared)
        h = self.norm_2(h + shared.shifts[self.block], shared)
        h = _drop(self.dropout, h.unflatten(1, (shared.clients, -1)), 1).flatten(1, 2)
        weight, bias = shared.of(self.conv_2.layer)
        if self.shortcut is None:
            return x + self.conv_2.convolve(h, weight, bias.flatten(), shared)
        across, bias_across = shared.of(self.shortcut)
        h = self.conv_2.convolve(h, weight, (bias + bias_across).flatten(), shared)
        pixels = x.unflatten(1, (shared.clients, -1)).flatten(3)
        return torch.matmul(across.flatten(2), pixels).view_as(h) + h


class _Attention(NamedTuple):
    block: str
    norm: _Norm
    heads: int
    scale: float
    dropout: nn.Module

    def __call__(self, x: Tensor, shared: _Pass) -> Tensor:
        images, clients = len(x), shared.clients
        # [B, C, channels, pixels] to [C, B * pixels, channels]
        normed = self.norm(x, shared).unflatten(1, (clients, -1)).flatten(3)
        tokens = normed.permute(1, 0, 3, 2).flatten(1, 2)
        inputs = [shared.of(f"{self.block}.{layer}") for layer in ("to_q", "to_k", "to_v")]
        weight, bias = (torch.cat(own, dim=1) for own in zip(*inputs, strict=True))
        qkv = torch.baddbmm(bias[:, None], tokens, weight.mT)
        # [C, B, pixels, 3, heads, values] to three of [C * B, heads, pixels, values]
        qkv = qkv.unflatten(1, (images, -1)).unflatten(3, (3, self.heads, -1))
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(1, 2).unbind()
        mixed = _attend(q, k, v, self.scale).unflatten(0, (clients, images)).transpose(2, 3)
        out = _linear(shared, f"{self.block}.to_out.0", mixed.flatten(3).flatten(1, 2))
        out = _drop(self.dropout, out.unflatten(1, (images, -1)), 0)
        return x + out.permute(1, 0, 3, 2).reshape(x.shape)


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Return softmax(scale q k^T) v of [N, heads, pixels, values]."""
    if q.shape[2] > _MOST_UNFUSED_PIXELS:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    heads = q.shape[1]
    q, k, v = (own.flatten(0, 1) for own in (q, k, v))
    scores = torch.baddbmm(q.new_empty(()), q, k.mT, beta=0, alpha=scale)
    return torch.bmm(scores.float().softmax(-1).to(v.dtype), v).unflatten(0, (-1, heads))


def _drop(dropout: nn.Module, x: Tensor, dim: int) -> Tensor:
    """Return ``x`` after ``dropout``; at ``dim`` are the clients, each with its own generator."""
    if type(dropout) is nn.Dropout and dropout.p == 0.0:
        return x
    return torch.vmap(dropout, in_dims=dim, out_dims=dim, randomness="different")(x)


class _Parts:
    """Layers that find their weights by ``names`` of the modules."""

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        self._names = names

    def convolution(self, module: Any) -> _Convolution:
        return _Convolution(self._names[module], module.stride, module.padding)

    def norm_and_silu(self, module: Any) -> _NormAndSilu:
        return _NormAndSilu(self._norm(module))

    def residual(self, resnet: Any) -> _Residual:
        shortcut = resnet.conv_shortcut
        return _Residual(
            self._names[resnet],
            self.norm_and_silu(resnet.norm1),
            self.convolution(resnet.conv1),
            self.norm_and_silu(resnet.norm2),
            resnet.dropout,
            self.convolution(resnet.conv2),
            None if shortcut is None else self._names[shortcut],
        )

    def attention(self, attention: Any) -> _Attention:
        norm, dropout = self._norm(attention.group_norm), attention.to_out[1]
        return _Attention(self._names[attention], norm, attention.heads, attention.scale, dropout)

    @staticmethod
    def join(x: Tensor, skipped: Tensor, shared: _Pass) -> Tensor:
        apart = [part.unflatten(1, (shared.clients, -1)) for part in (x, skipped)]
        return torch.cat(apart, dim=2).flatten(1, 2)

    def _norm(self, module: Any) -> _Norm:
        return _Norm(self._names[module], module.num_groups, module.eps)
