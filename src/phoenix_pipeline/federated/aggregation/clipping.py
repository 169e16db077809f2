"""Norm clipping: no client moves the model further than a bound, whatever rule follows."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.config.aggregation import FEWEST_FOR_A_MEDIAN
from phoenix_pipeline.federated.aggregation.rule import Aggregation, ReplyCheck, to_dtype, widened
from phoenix_pipeline.federated.wire import Joined, join
from phoenix_pipeline.optimization.learning_rate import sum_of_rates

# At which the learning rate of a round is read.
_POINTS = 16


class ClippedUpdates:
    """Scales updates down to norm ``bound`` on their way into ``rule``; holds one reply at a time.

    An update is a reply less ``template``, over all arrays; its norm is over the floating-point
    ones. BatchNorm's statistics are clipped with the weights, so that they are no way round. A
    reply of more than ``usual_weight`` may be as many times as long: its client made more steps.
    """

    def __init__(
        self,
        rule: Aggregation,
        template: Mapping[str, Tensor],
        bound: float,
        usual_weight: float | None = None,
    ) -> None:
        self._rule = rule
        self._template = join(template)
        self._check = ReplyCheck(template)
        self._bound = bound
        self._usual_weight = usual_weight
        self._norms: list[float] = []

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Clip and pass on ``arrays``; those within the bound keep their bits."""
        joined = self._check(arrays, weight)
        self.take(joined, weight, update_norm(joined, self._template))

    def take(self, arrays: Mapping[str, Tensor], weight: float, norm: float) -> None:
        """Do so with ``arrays`` that were checked, and whose update has ``norm``."""
        bound = self._bound * slack(weight, self._usual_weight)
        self._rule.add(clip_update(arrays, self._template, norm, bound), weight)
        self._norms.append(norm)

    def result(self) -> dict[str, Tensor]:
        """Return what the rule makes of the clipped replies."""
        return self._rule.result()

    def next_clip_norm(self) -> float | None:
        """Return the median norm before clipping; None if it is 0, or of too few to say."""
        return norm_to_hand_on(self._norms)


class MedianClippedUpdates:
    """Scales updates down to ``multiple`` of their median norm; holds the replies until then.

    After ``most_held`` replies their median bounds the later ones too, which are then passed on.
    """

    def __init__(
        self,
        rule: Aggregation,
        template: Mapping[str, Tensor],
        multiple: float,
        usual_weight: float | None = None,
        most_held: int | None = None,
    ) -> None:
        self._rule = rule
        self._template = join(template)
        self._check = ReplyCheck(template)
        self._multiple = multiple
        self._usual_weight = usual_weight
        self._most_held = most_held
        self._replies: list[tuple[Mapping[str, Tensor], float, float]] = []
        self._clipped: ClippedUpdates | None = None

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Keep or pass on one client's ``arrays``."""
        joined = self._check(arrays, weight)
        norm = update_norm(joined, self._template)
        if self._clipped is not None:
            self._clipped.take(joined, weight, norm)
            return
        self._replies.append((joined, weight, norm))
        if len(self._replies) == self._most_held:
            self._passed_on()

    def result(self) -> dict[str, Tensor]:
        """Return what the rule makes of the clipped replies."""
        return self._passed_on().result()

    def next_clip_norm(self) -> float | None:
        """Return the median norm before clipping; None if it is 0, or of too few to say."""
        return self._passed_on().next_clip_norm()

    def _passed_on(self) -> ClippedUpdates:
        """Return what clips by the bound of the replies held, which it has got."""
        if self._clipped is None:
            bound = self._multiple * median_norm([norm for _, _, norm in self._replies])
            self._clipped = ClippedUpdates(self._rule, self._template, bound, self._usual_weight)
            for arrays, weight, norm in self._replies:
                self._clipped.take(arrays, weight, norm)
            self._replies.clear()
        return self._clipped


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


def norm_to_hand_on(norms: Sequence[float]) -> float | None:
    """Return the bound's unit of the next round; None: that one takes its own."""
    if len(norms) < FEWEST_FOR_A_MEDIAN:
        return None
    return median_norm(norms) or None


def median_norm(norms: Sequence[float]) -> float:
    """Return the median, in the middle between two; 0 of none."""
    return torch.tensor(norms, dtype=torch.float64).quantile(0.5).item() if norms else 0.0


def update_norm(arrays: Mapping[str, Tensor], template: Mapping[str, Tensor]) -> float:
    """Return the L2 norm of ``arrays - template`` over the floating-point arrays."""
    own, base = join(arrays).vectors, join(template).vectors
    norms = [
        torch.linalg.vector_norm(widened(own[key]) - widened(start), dtype=torch.float64)
        for key, start in base.items()
        if start.is_floating_point()
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
