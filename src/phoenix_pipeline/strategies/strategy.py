"""The contract of a strategy: hooks at the client, in the messages, and at the server.

Every hook has a default that does nothing, so a strategy is its settings and the hooks it needs.
``fedprox.py`` uses one hook, ``scaffold.py`` nearly all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from phoenix_pipeline.config import ArmSettings, Group, TrainingConfig
from phoenix_pipeline.optimization.corrections import BindCorrection
from phoenix_pipeline.optimization.work import LocalWork

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
Arrays = Mapping[str, Tensor]


def is_state(name: str, array: Tensor) -> bool:
    """Return whether ``array`` is no trained weight: a BatchNorm statistic, or not floating."""
    return not array.is_floating_point() or name.rpartition(".")[2] in _BUFFERS


def trained_like(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return zeros like those of ``weights`` that are trained."""
    return {n: torch.zeros_like(a) for n, a in weights.items() if not is_state(n, a)}


@dataclass(frozen=True)
class ClientView:
    """What one client knows in one round; arrays by name, on the CPU.

    Args:
        received: the shared weights that it starts from.
        work: steps, and the stretch of the run that the learning rate covers.
        training: the course of the learning rate, and what else clients are told.
        told: what the strategy's server half sent along.
        kept: what the strategy kept at this client; empty before its first round.
        earlier: weights of the broadcast that it received before, empty at first, and the run's
            progress then; only where the strategy ``needs_earlier_broadcast``.
    """

    received: Arrays
    work: LocalWork
    training: TrainingConfig
    told: Arrays = field(default_factory=dict)
    kept: Arrays = field(default_factory=dict)
    earlier: tuple[Arrays, float] = field(default_factory=lambda: ({}, 0.0))


@dataclass(frozen=True)
class ServerView:
    """What the server knows at the end of a round; arrays by name, on the CPU.

    Args:
        before: the global weights that the round started from.
        aggregate: what the aggregation rule made of the replies.
        sent: what it made of the arrays that the strategy's clients sent.
        kept: what the strategy kept at the server; empty before round 1.
        share: of all images, the share at clients whose replies count, in [0, 1].
        server_round: from 1, counted over resumed runs.
    """

    before: Arrays
    aggregate: Arrays
    sent: Arrays
    kept: Arrays
    share: float
    server_round: int


class Strategy:
    """Base class: averaging, and nothing else.

    ``name``: as settings call it. ``Settings``: a Group with what they may say.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Group]] = Group
    needs_earlier_broadcast: ClassVar[bool] = False

    def __init__(self, settings: Group) -> None:
        self.settings = settings

    def why_not(self, arm: ArmSettings) -> str | None:
        """Return why the strategy does not go with ``arm``, and what to change; None: it does."""
        return None

    @property
    def disclosure(self) -> str:
        """A sentence on what else leaves a client; empty where nothing does."""
        return ""

    def told_like(self, weights: Arrays) -> Arrays:
        """Return zeros of the names and shapes that go down with ``weights``."""
        return {}

    def sent_like(self, weights: Arrays) -> Arrays:
        """Return zeros of the names and shapes that come up with ``weights``."""
        return {}

    def tell(self, weights: Arrays, kept: Arrays) -> Arrays:
        """Return what the server sends to all clients of a round, like :meth:`told_like`."""
        return {}

    def correction(self, client: ClientView) -> BindCorrection | None:
        """Return what changes the client's local steps; None for nothing."""
        return None

    def after_training(self, client: ClientView, trained: Arrays) -> tuple[Arrays, Arrays]:
        """Return what the client keeps and sends; ``trained``: before noise and codec."""
        return {}, {}

    def after_round(self, server: ServerView) -> tuple[Arrays, Arrays]:
        """Return the new global weights, and what the server keeps."""
        return server.aggregate, {}
