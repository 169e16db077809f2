"""Server optimizers: the step from the old global weights to the aggregate, taken as a gradient.

FedAvgM is Hsu et al., arXiv 1909.06335; Nesterov's momentum is DiLoCo's outer optimizer, as in
``torch.optim.SGD`` (Douillard et al., arXiv 2311.08105); FedAdam and FedYogi are Reddi et al.,
arXiv 2003.00295, algorithm 2, as Flower writes them: second moments start at 0, and FedAdam
corrects the bias.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from phoenix_pipeline.config import ServerOptimizerConfig
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.registry import Registry, look_up

_MOMENTUM, _EXP_AVG, _EXP_AVG_SQ = "momentum", "exp_avg", "exp_avg_sq"

Moments = Mapping[str, Tensor]
# What is added to an array, and its new moments.
Step = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class ServerOptimizer:
    """Takes steps in the arrays ``trainable``; all others become the aggregate's.

    BatchNorm's statistics and counts have no gradient: momentum would carry a variance below zero.
    """

    config: ServerOptimizerConfig
    trainable: frozenset[str]

    @classmethod
    def of(cls, config: ServerOptimizerConfig, settings: ClientSettings) -> "ServerOptimizer":
        """Return the optimizer of the network that ``settings`` describe."""
        if config.is_plain:
            return cls(config, frozenset())
        network = settings.build_network()
        return cls(config, frozenset(name for name, _ in network.named_parameters()))

    @torch.no_grad()
    def step(
        self,
        weights: Mapping[str, Tensor],
        aggregate: Mapping[str, Tensor],
        state: Mapping[str, Tensor],
        server_round: int,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the new global weights and the new state; nothing is changed in place.

        ``aggregate``: what the rule made of the replies. ``state``: of the round before, empty at
        first; moments named ``<moment>.<array>``. ``server_round``: from 1, counted over resumed
        runs.
        """
        new, moments = dict(aggregate), {}
        if self.config.is_plain:
            return new, {}
        optimizer = look_up(OPTIMIZERS, self.config.name, "federation.server_optimizer.name")
        for name, old in weights.items():
            if name not in self.trainable:
                continue
            wide = old.to(torch.promote_types(old.dtype, torch.float32))
            delta = aggregate[name].to(wide.dtype) - wide
            kept = {
                moment: state.get(f"{moment}.{name}", torch.zeros_like(delta))
                for moment in optimizer.moments
            }
            step, kept = optimizer.step(self.config, delta, kept, server_round)
            new[name] = (wide + step).to(old.dtype)
            moments.update({f"{moment}.{name}": tensor for moment, tensor in kept.items()})
        return new, moments


def _momentum_step(config: ServerOptimizerConfig, delta: Tensor, kept: Moments, _: int) -> Step:
    momentum = config.momentum * kept[_MOMENTUM] + delta
    return config.rate * momentum, {_MOMENTUM: momentum}


def _nesterov_step(config: ServerOptimizerConfig, delta: Tensor, kept: Moments, _: int) -> Step:
    momentum = config.momentum * kept[_MOMENTUM] + delta
    return config.rate * (config.momentum * momentum + delta), {_MOMENTUM: momentum}


def _adam_step(
    config: ServerOptimizerConfig, delta: Tensor, kept: Moments, server_round: int
) -> Step:
    exp_avg = _mean_delta(config, delta, kept)
    exp_avg_sq = config.beta_2 * kept[_EXP_AVG_SQ] + (1.0 - config.beta_2) * delta.square()
    # One more than in Adam's paper, as in Flower.
    count = server_round + 1
    correction = math.sqrt(1.0 - config.beta_2**count) / (1.0 - config.beta_1**count)
    step = config.rate * correction * exp_avg / (exp_avg_sq.sqrt() + config.tau)
    return step, {_EXP_AVG: exp_avg, _EXP_AVG_SQ: exp_avg_sq}


def _yogi_step(config: ServerOptimizerConfig, delta: Tensor, kept: Moments, _: int) -> Step:
    exp_avg = _mean_delta(config, delta, kept)
    square, exp_avg_sq = delta.square(), kept[_EXP_AVG_SQ]
    sign = torch.sign(exp_avg_sq - square)
    exp_avg_sq = exp_avg_sq - (1.0 - config.beta_2) * square * sign
    step = config.rate * exp_avg / (exp_avg_sq.sqrt() + config.tau)
    return step, {_EXP_AVG: exp_avg, _EXP_AVG_SQ: exp_avg_sq}


def _mean_delta(config: ServerOptimizerConfig, delta: Tensor, kept: Moments) -> Tensor:
    return config.beta_1 * kept[_EXP_AVG] + (1.0 - config.beta_1) * delta


class Optimizer(NamedTuple):
    """The moments that it keeps of each array, and its step from them and the round's number."""

    moments: tuple[str, ...]
    step: Callable[[ServerOptimizerConfig, Tensor, Moments, int], Step]


OPTIMIZERS = Registry(
    "server_optimizers",
    {
        "fedavgm": Optimizer((_MOMENTUM,), _momentum_step),
        "nesterov": Optimizer((_MOMENTUM,), _nesterov_step),
        "fedadam": Optimizer((_EXP_AVG, _EXP_AVG_SQ), _adam_step),
        "fedyogi": Optimizer((_EXP_AVG, _EXP_AVG_SQ), _yogi_step),
    },
)
