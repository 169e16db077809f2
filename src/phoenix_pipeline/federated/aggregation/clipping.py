"""Norm clipping: no client moves the model further than a bound, whatever rule follows."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from phoenix_pipeline.federated.aggregation.rule import Aggregation, ReplyCheck, to_dtype, widened


class ClippedUpdates:
    """Scales updates down to norm ``bound`` on their way into ``rule``; holds one reply at a time.

    An update is a reply less ``template``, over all arrays; its norm is over the floating-point
    ones. BatchNorm's statistics are clipped with the weights, so that they are no way round.
    """

    def __init__(self, rule: Aggregation, template: Mapping[str, Tensor], bound: float) -> None:
        self._rule = rule
        self._template = template
        self._check = ReplyCheck(template)
        self._bound = bound
        self._norms: list[float] = []

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Clip and pass on one client's ``arrays``; those within the bound keep their bits.

        Raises:
            FederationError: see :class:`ReplyCheck`.
        """
        self._check(arrays, weight)
        norm = update_norm(arrays, self._template)
        self._rule.add(clip_update(arrays, self._template, norm, self._bound), weight)
        self._norms.append(norm)

    def result(self) -> dict[str, Tensor]:
        """Return what the rule makes of the clipped replies."""
        return self._rule.result()

    def next_clip_norm(self) -> float | None:
        """Return the median norm of this round's updates before clipping; None if it is 0."""
        return median_norm(self._norms) or None


class MedianClippedUpdates:
    """Scales updates down to ``multiple`` of their median norm; holds all replies until then."""

    def __init__(self, rule: Aggregation, template: Mapping[str, Tensor], multiple: float) -> None:
        self._rule = rule
        self._template = template
        self._check = ReplyCheck(template)
        self._multiple = multiple
        self._replies: list[tuple[Mapping[str, Tensor], float, float]] = []

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Keep one client's ``arrays``, unless they are refused.

        Raises:
            FederationError: see :class:`ReplyCheck`.
        """
        self._check(arrays, weight)
        self._replies.append((arrays, weight, update_norm(arrays, self._template)))

    def result(self) -> dict[str, Tensor]:
        """Return what the rule makes of the clipped replies."""
        bound = self._multiple * self._median()
        for arrays, weight, norm in self._replies:
            self._rule.add(clip_update(arrays, self._template, norm, bound), weight)
        return self._rule.result()

    def next_clip_norm(self) -> float | None:
        """Return the median norm of this round's updates before clipping; None if it is 0."""
        return self._median() or None

    def _median(self) -> float:
        return median_norm([norm for _, _, norm in self._replies])


def median_norm(norms: Sequence[float]) -> float:
    """Return the median, in the middle between two; 0 of none."""
    return torch.tensor(norms, dtype=torch.float64).quantile(0.5).item() if norms else 0.0


def update_norm(arrays: Mapping[str, Tensor], template: Mapping[str, Tensor]) -> float:
    """Return the L2 norm of ``arrays - template`` over the floating-point arrays."""
    squares = [
        (widened(arrays[name]) - widened(tensor)).square().sum(dtype=torch.float64)
        for name, tensor in template.items()
        if tensor.dtype.is_floating_point
    ]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def clip_update(
    arrays: Mapping[str, Tensor], template: Mapping[str, Tensor], norm: float, bound: float
) -> Mapping[str, Tensor]:
    """Return ``template + (arrays - template) * min(1, bound / norm)``, in the same dtypes."""
    if norm <= bound:
        return arrays
    scale = bound / norm
    return {
        name: to_dtype(
            widened(tensor) + (widened(arrays[name]) - widened(tensor)) * scale, tensor.dtype
        )
        for name, tensor in template.items()
    }
