"""A federation of quadratics, by the hooks of a strategy and plain gradient steps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.optimization.corrections import corrections_of
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.strategies import ClientView, ServerView, Strategies

RATE = 0.1
TRAINING = TrainingConfig(learning_rate=RATE, lr_schedule="constant", lr_warmup=0.0)


class Quadratics:
    """Clients with the losses ``curvature (w - centre)^2 / 2``, all of one size."""

    def __init__(
        self, settings: dict, centres: Sequence[float], curvatures: Sequence[float] | None = None
    ) -> None:
        self.strategies = Strategies.of(settings)
        self.centres = centres
        self.curvatures = curvatures or [1.0] * len(centres)
        self.weights: dict[str, Tensor] = {"w": torch.zeros(1)}
        self.server: dict[str, Tensor] = {}
        self.clients: list[dict[str, Tensor]] = [{} for _ in centres]
        self.rounds = 0

    def round(self, steps: int, taking_part: Sequence[int] | None = None) -> float:
        """Make one round over ``taking_part``; return the new weight."""
        chosen = range(len(self.centres)) if taking_part is None else taking_part
        told = self.strategies.tell(self.weights, self.server)
        ends, sent = [], []
        for client in chosen:
            work = LocalWork(steps, 0.0, 1.0, seed=0, from_server=frozenset(self.weights))
            view = ClientView(self.weights, work, TRAINING, told, self.clients[client])
            trained = self._train(client, view)
            self.clients[client], out = self.strategies.after_training(view, trained)
            ends.append(trained["w"])
            sent.append(out)
        self.rounds += 1
        server = ServerView(
            self.weights,
            {"w": torch.stack(ends).mean(0)},
            {name: torch.stack([one[name] for one in sent]).mean(0) for name in sent[0]},
            self.server,
            len(list(chosen)) / len(self.centres),
            self.rounds,
        )
        self.weights, self.server = self.strategies.after_round(server)
        return self.weights["w"].item()

    def _train(self, client: int, view: ClientView) -> dict[str, Tensor]:
        weight = nn.Parameter(self.weights["w"].clone())
        bound = self.strategies.corrections(view)
        work = LocalWork(view.work.steps, 0.0, 1.0, seed=0, corrections=bound)
        corrections = corrections_of({"w": weight}, work)
        for _ in range(view.work.steps):
            weight.grad = self.curvatures[client] * (weight.detach() - self.centres[client])
            for correction in corrections:
                correction.correct_gradients()
            with torch.no_grad():
                weight -= RATE * weight.grad
            for correction in corrections:
                correction.after_step(RATE)
        return {"w": weight.detach()}
