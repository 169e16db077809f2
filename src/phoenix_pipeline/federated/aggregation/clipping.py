"""Norm clipping: no client moves the model further than a bound, whatever rule follows."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.config.aggregation import FEWEST_FOR_A_MEDIAN
from phoenix_pipeline.federated.aggregation.rule import Aggregation, ReplyCheck, to_dtype, widened
from phoenix_pipeline.federated.wire import BLOCK, Joined, join
from phoenix_pipeline.optimization.schedules import sum_of_rates

# At which the learning rate of a round is read.
_POINTS = 16


class ClippedUpdates:
    """Scales updates down to a bound on their way into ``rule``.

    An update is a reply less ``template``, over all arrays; its norm is over the floating-point
    ones. BatchNorm's statistics are clipped with the weights, so that they are no way round.

    Args:
        rule: what the clipped replies go into.
        template: the weights that the round started from.
        bound: largest norm; unless ``most_held`` is 0, a multiple of the median norm.
        usual_weight: a reply of more may be as many times as long: its client made more steps.
        most_held: how many of the first replies give the median, and are held until then; None:
            all of them. The later ones are passed on one by one.
    """

    def __init__(
        self,
        rule: Aggregation,
        template: Mapping[str, Tensor],
        bound: float,
        usual_weight: float | None = None,
        most_held: int | None = 0,
    ) -> None:
        self._rule = rule
        self._template = join(template)
        self._check = ReplyCheck(template)
        self._bound = bound
        self._usual_weight = usual_weight
        self._most_held = most_held
        self._is_norm = most_held == 0
        self._held: list[tuple[Mapping[str, Tensor], float, float]] = []
        self._norms: list[float] = []

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Clip and pass on, or hold, ``arrays``; those within the bound keep their bits."""
        joined = self._check(arrays, weight)
        self._held.append((joined, weight, update_norm(joined, self._template)))
        if self._is_norm or len(self._held) == self._most_held:
            self._pass_on()

    def result(self) -> dict[str, Tensor]:
        """Return what the rule makes of the clipped replies."""
        self._pass_on()
        return self._rule.result()

    def next_clip_norm(self) -> float | None:
        """Return the median norm before clipping; None if it is 0, or of too few to say."""
        self._pass_on()
        if len(self._norms) < FEWEST_FOR_A_MEDIAN:
            return None
        return median_norm(self._norms) or None

    def _pass_on(self) -> None:
        if not self._is_norm:
            self._bound *= median_norm([norm for *_, norm in self._held])
            self._is_norm = True
        while self._held:
            arrays, weight, norm = self._held.pop(0)
            bound = self._bound * slack(weight, self._usual_weight)
            self._rule.add(clip_update(arrays, self._template, norm, bound), weight)
            self._norms.append(norm)


def slack(weight: float, usual_weight: float | None) -> float:
    """Return how many times the bound a reply of ``weight`` may be long, at least 1."""
    return max(1.0, weight / usual_weight) if usual_weight else 1.0


def norm_of_this_round(
    last_norm: float | None, training: TrainingConfig, current: int, num_rounds: int
) -> float | None:
    """Return the last round's norm, longer by as much as learning rates have grown since.

    In a warm-up honest updates grow from round to round; that they shrink later is no reason to
    clip. ``current``: this round, from 1.
    """
    if last_norm is None:
        return None
    before, now = (
        sum_of_rates(((end - 1) / num_rounds, end / num_rounds), _POINTS, training)
        for end in (max(1, current - 1), current)
    )
    return last_norm * max(1.0, now / before) if before > 0.0 else last_norm


def median_norm(norms: Sequence[float]) -> float:
    """Return the median, in the middle between two; 0 of none."""
    return torch.tensor(norms, dtype=torch.float64).quantile(0.5).item() if norms else 0.0


def update_norm(arrays: Mapping[str, Tensor], template: Mapping[str, Tensor]) -> float:
    """Return the L2 norm of ``arrays - template`` over the floating-point arrays."""
    own, base = join(arrays).vectors, join(template).vectors
    norms = [
        torch.linalg.vector_norm(widened(arrived) - widened(start), dtype=torch.float64)
        for key, whole in base.items()
        if whole.is_floating_point()
        for arrived, start in zip(own[key].split(BLOCK), whole.split(BLOCK), strict=True)
    ]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def clip_update(
    arrays: Mapping[str, Tensor], template: Mapping[str, Tensor], norm: float, bound: float
) -> Mapping[str, Tensor]:
    """Return ``template + (arrays - template) * min(1, bound / norm)``, in the same dtypes."""
    if norm <= bound:
        return arrays
    scale, own, base = bound / norm, join(arrays).vectors, join(template)
    clipped = {
        key: to_dtype(widened(start) + (widened(own[key]) - widened(start)) * scale, start.dtype)
        for key, start in base.vectors.items()
    }
    return Joined(clipped, base.layout)
