"""What a federation changes in a client's local steps: gradients before, weights after each one.

A correction is a file like ``proximal.py`` or ``alignment.py``; :func:`corrections_of` lists them.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.optimization.alignment import alignment
from phoenix_pipeline.optimization.proximal import proximal_term
from phoenix_pipeline.optimization.work import LocalWork


class Correction(Protocol):
    """Bound to the parameters of one client in one round."""

    def correct_gradients(self) -> None:
        """Change the parameters' gradients in place, before they are clipped."""

    def after_step(self, learning_rate: float) -> None:
        """Change the parameters in place, after the optimizer has moved them."""


def corrections_of(
    shared: Mapping[str, nn.Parameter],
    work: LocalWork,
    config: TrainingConfig,
    arrange: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> list[Correction]:
    """Return the corrections that ``config`` asks for.

    Args:
        shared: the parameters that came from the server, by name.
        work: the client's work, with what the server told of the last round.
        config: which corrections, and how strong.
        arrange: brings the server's arrays into the shape of ``shared``.
    """
    found = (
        proximal_term(shared, config.proximal_mu),
        alignment(shared, arrange(work.global_step) if work.global_step else {}, config.alignment),
    )
    return [correction for correction in found if correction]
