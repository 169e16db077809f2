"""Adam's moments as named tensors, so that a client can keep them between rounds on disk."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def adam_state(
    optimizer: torch.optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, Tensor]:
    """Return the optimizer's moments, named ``<moment>.<parameter>``; empty before a step."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in parameters
        if parameter in optimizer.state
        for moment in _MOMENTS
    }


def restore_adam_state(
    optimizer: torch.optim.Optimizer,
    parameters: Iterable[tuple[str, nn.Parameter]],
    state: Mapping[str, Tensor],
) -> None:
    """Put moments from :func:`adam_state` back; parameters that ``state`` lacks start afresh.

    Moments take the memory layout of their parameter. PyTorch's fused kernels pair values by their
    place in memory: other layouts are an error on a GPU, and wrong weights in silence on a CPU.
    """
    fused = bool(optimizer.defaults.get("fused"))
    for name, parameter in parameters:
        if f"step.{name}" not in state:
            continue
        step_device = parameter.device if fused else torch.device("cpu")
        optimizer.state[parameter] = {
            "step": state[f"step.{name}"].to(step_device, copy=True),
            "exp_avg": laid_out_like(parameter, state[f"exp_avg.{name}"]),
            "exp_avg_sq": laid_out_like(parameter, state[f"exp_avg_sq.{name}"]),
        }


class FixedMoments:
    """Adam's moments at places in memory that stay, for an optimizer whose steps are recorded."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        names: Sequence[str],
        parameters: Sequence[nn.Parameter],
    ) -> None:
        self._arrays: dict[str, Tensor] = {}
        for name, parameter in zip(names, parameters, strict=True):
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter).detach(),
                "exp_avg_sq": torch.zeros_like(parameter).detach(),
            }
            self._arrays |= {f"{m}.{name}": optimizer.state[parameter][m] for m in _MOMENTS}

    def set(self, state: Mapping[str, Tensor]) -> None:
        """Write moments from :func:`adam_state`; those that ``state`` lacks become zero."""
        lacking = [array for name, array in self._arrays.items() if name not in state]
        given = [name for name in self._arrays if name in state]
        if lacking:
            torch._foreach_zero_(lacking)
        if given:
            torch._foreach_copy_([self._arrays[n] for n in given], [state[n] for n in given])

    def get(self) -> dict[str, Tensor]:
        """Return copies, named as in :func:`adam_state`."""
        copies = {name: torch.empty_like(array) for name, array in self._arrays.items()}
        torch._foreach_copy_(list(copies.values()), list(self._arrays.values()))
        return copies


def laid_out_like(parameter: Tensor, values: Tensor) -> Tensor:
    """Return a copy of ``values`` with the strides, dtype and device of ``parameter``."""
    return torch.empty_like(parameter).copy_(values).detach()
