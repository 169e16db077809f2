"""What a client keeps between rounds: moments, personal layers, what codecs and strategies need."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from phoenix_pipeline.optimization.ema import ema_decay, update_ema

_UPDATES = "personal_updates"
_PROGRESS = "broadcast_progress"


@dataclass
class ClientState:
    """Tensors by name; ``updates`` counts the rounds that went into ``personal_ema``.

    ``residual`` is what codecs left out of earlier updates, ``broadcast`` what the client received
    in its last round, at the run's progress ``broadcast_progress`` in [0, 1]. ``strategies`` is
    what the run's strategies keep, named ``<strategy>/<array>``.
    """

    optimizer: dict[str, Tensor] = field(default_factory=dict)
    personal: dict[str, Tensor] = field(default_factory=dict)
    personal_ema: dict[str, Tensor] = field(default_factory=dict)
    residual: dict[str, Tensor] = field(default_factory=dict)
    broadcast: dict[str, Tensor] = field(default_factory=dict)
    strategies: dict[str, Tensor] = field(default_factory=dict)
    updates: int = 0
    broadcast_progress: float = 0.0

    @property
    def last_broadcast(self) -> tuple[dict[str, Tensor], float]:
        """What the client received in its last round, and the run's progress then."""
        return self.broadcast, self.broadcast_progress

    def keep_broadcast(self, received: Mapping[str, Tensor], progress: float) -> None:
        """Remember what this round starts from."""
        self.broadcast = {name: tensor.clone() for name, tensor in received.items()}
        self.broadcast_progress = progress

    def keep_personal(self, trained: Mapping[str, Tensor], ema_horizon: float) -> None:
        """Take over the personal arrays as trained in this round, and move their average."""
        self.updates += 1
        self.personal = {name: t.detach().cpu().clone() for name, t in trained.items()}
        # A copy: what was kept before stands if this round fails.
        before = self.personal_ema or self.personal
        self.personal_ema = {name: tensor.clone() for name, tensor in before.items()}
        names = list(self.personal)
        update_ema(
            [self.personal_ema[n] for n in names],
            [self.personal[n] for n in names],
            ema_decay(self.updates, ema_horizon),
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors of one file; empty if there is nothing to keep."""
        groups = {
            "optimizer": self.optimizer,
            "personal": self.personal,
            "personal_ema": self.personal_ema,
            "residual": self.residual,
            "broadcast": self.broadcast,
            "strategies": self.strategies,
        }
        tensors = {f"{group}/{n}": t for group, ts in groups.items() for n, t in ts.items()}
        if self.updates:
            tensors[_UPDATES] = torch.tensor(self.updates)
        if self.broadcast_progress:
            tensors[_PROGRESS] = torch.tensor(self.broadcast_progress, dtype=torch.float64)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "ClientState":
        """Return the state of :meth:`to_tensors`."""
        state = cls(
            updates=int(tensors.get(_UPDATES, 0)),
            broadcast_progress=float(tensors.get(_PROGRESS, 0.0)),
        )
        for path, tensor in tensors.items():
            group, _, name = path.partition("/")
            if name:
                getattr(state, group)[name] = tensor
        return state
