"""The contract of a strategy: hooks at the client, in the messages, at the server; and a run's.

Every hook has a default that does nothing, so a strategy is its settings and the hooks it needs.
``fedprox.py`` uses one hook, ``scaffold.py`` nearly all of them.
"""

import importlib
import pkgutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import torch
from pydantic import ValidationError
from torch import Tensor

from phoenix_pipeline import strategies
from phoenix_pipeline.config import ArmSettings, Group, TrainingConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.optimization.corrections import BindCorrection
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.registry import Registry, look_up

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


def beside(weights: Arrays, further: Arrays) -> Arrays:
    """Return both as one payload; ``weights`` itself where there is nothing else."""
    return {**weights, **further} if further else weights


def apart(payload: Arrays, weights: Collection[str]) -> tuple[Arrays, Arrays]:
    """Return the arrays of ``payload`` that are named in ``weights``, and the others."""
    if payload.keys() == set(weights):
        return payload, {}
    further = {name: array for name, array in payload.items() if name not in weights}
    return {name: payload[name] for name in weights}, further


_SETTING = "federation.strategies"


@cache
def known_strategies() -> Registry[type[Strategy]]:
    """Return the strategies by name."""
    for module in pkgutil.iter_modules(strategies.__path__, f"{strategies.__name__}."):
        importlib.import_module(module.name)
    package = f"{strategies.__name__}."
    own = {c.name: c for c in Strategy.__subclasses__() if c.__module__.startswith(package)}
    return Registry("strategies", dict(sorted(own.items())))


def _build(name: str, given: Mapping[str, Any] | None) -> Strategy:
    strategy = look_up(known_strategies(), name, _SETTING)
    try:
        settings = strategy.Settings.model_validate(given or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (_SETTING, name, *first["loc"])))
        allowed = ", ".join(strategy.Settings.model_fields) or "no keys"
        raise SettingsError(
            f"{where}: {first['msg']}, got {first['input']!r}; {name} has {allowed}"
        ) from error
    return strategy(settings)


@dataclass(frozen=True)
class Strategies:
    """Arrays of several strategies are named ``<strategy>/<array>``."""

    chosen: Sequence[Strategy]

    @classmethod
    def of(cls, settings: Mapping[str, Mapping[str, Any]]) -> "Strategies":
        """Return those of ``federation.strategies``; raises SettingsError for what is unknown."""
        return cls([_build(name, given) for name, given in settings.items()])

    def check(self, arm: ArmSettings) -> None:
        """Raise SettingsError for the first that does not go with the settings of ``arm``."""
        for strategy in self.chosen:
            if reason := strategy.why_not(arm):
                raise SettingsError(f"federation.strategies.{strategy.name}: {reason}")

    @property
    def need_earlier_broadcast(self) -> bool:
        """Whether clients must keep what they received in their last round."""
        return any(strategy.needs_earlier_broadcast for strategy in self.chosen)

    def disclosures(self) -> list[str]:
        """Return a sentence for each strategy for which something else leaves a client."""
        return [strategy.disclosure for strategy in self.chosen if strategy.disclosure]

    def told_like(self, weights: Arrays) -> dict[str, Tensor]:
        """Return zeros like what goes down beside ``weights``."""
        return _side_by_side([(s, s.told_like(weights)) for s in self.chosen])

    def sent_like(self, weights: Arrays) -> dict[str, Tensor]:
        """Return zeros like what comes up beside ``weights``."""
        return _side_by_side([(s, s.sent_like(weights)) for s in self.chosen])

    def tell(self, weights: Arrays, kept: Arrays) -> dict[str, Tensor]:
        """Return what goes down beside ``weights``."""
        return _side_by_side([(s, s.tell(weights, _of(s, kept))) for s in self.chosen])

    def corrections(self, client: ClientView) -> tuple[BindCorrection, ...]:
        """Return what changes the client's local steps."""
        found = (s.correction(_for_one(s, client)) for s in self.chosen)
        return tuple(correction for correction in found if correction)

    def after_training(
        self, client: ClientView, trained: Arrays
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what the client keeps, and what it sends beside its weights."""
        results = [(s, *s.after_training(_for_one(s, client), trained)) for s in self.chosen]
        kept = _side_by_side([(s, arrays) for s, arrays, _ in results])
        return kept, _side_by_side([(s, arrays) for s, _, arrays in results])

    def after_round(self, server: ServerView) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the new global weights, each strategy going on from the one before, and states."""
        weights, kept = dict(server.aggregate), []
        for strategy in self.chosen:
            own = replace(
                server,
                aggregate=weights,
                sent=_of(strategy, server.sent),
                kept=_of(strategy, server.kept),
            )
            changed, state = strategy.after_round(own)
            weights = dict(changed)
            kept.append((strategy, state))
        return weights, _side_by_side(kept)


def _for_one(strategy: Strategy, client: ClientView) -> ClientView:
    return replace(client, told=_of(strategy, client.told), kept=_of(strategy, client.kept))


def _side_by_side(parts: Sequence[tuple[Strategy, Arrays]]) -> dict[str, Tensor]:
    return {f"{s.name}/{name}": array for s, arrays in parts for name, array in arrays.items()}


def _of(strategy: Strategy, arrays: Arrays) -> dict[str, Tensor]:
    prefix = f"{strategy.name}/"
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
