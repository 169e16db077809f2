"""What one arm's federation is given, and what it leaves."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor

from phoenix_pipeline.config import FederationConfig, ThresholdFilterConfig
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.own_models import NO_MODELS, OwnModels
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.run_state import DATA
from phoenix_pipeline.federated.wire import fingerprint
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.monitoring import MonitorReference

# Settings of ``federation`` that leave the weights as they are. To go on with fewer clients is what
# min_clients is lowered for.
WITHOUT_EFFECT = frozenset(
    {
        "engine",
        "ray",
        "deployment",
        "workers",
        "threads_per_client",
        "stacked_clients",
        "resume",
        "checkpoint_every",
        "snapshots",
        "round_timeout_s",
        "min_clients",
        "link",
    }
)


@dataclass(frozen=True)
class FederatedJob:
    """All inputs of a run.

    Args:
        images: all training images; a client sees only its rows.
        client_images: client_id, image_index: what each client trains on.
        config: rounds, work per round, engine.
        settings: what every client is told.
        device: where networks live, as in ``run.device``.
        threshold_filter: when clients are checked and disconnected.
        reference: what the samples of clients are held against; None: no filter.
        pool: indices of the shared pool's images, for the warm-up.
        warmup_steps: steps on the pool before round 1.
        start: weights that the training begins with, by name; None: random ones.
        final_average: which personal layers clients upload after the last round; None: none.
        own: trained models that clients of this machine read from its folders.
    """

    images: ImageSet
    client_images: pd.DataFrame
    config: FederationConfig
    settings: ClientSettings
    device: str = "auto"
    threshold_filter: ThresholdFilterConfig = field(default_factory=ThresholdFilterConfig)
    reference: MonitorReference | None = None
    pool: np.ndarray | None = None
    warmup_steps: int = 0
    final_average: Literal["ema", "raw"] | None = None
    start: Mapping[str, Tensor] | None = None
    own: OwnModels = NO_MODELS

    def identity(self) -> dict[str, Any]:
        """Return everything that the weights depend on; a checkpoint of another is not resumed."""
        rules = self.threshold_filter if self.reference else None
        settings = identify_settings(
            self.config, self.settings, rules, self.warmup_steps, self.start
        )
        return {**settings, DATA: self._data()}

    def _data(self) -> str:
        """Return a fingerprint of the images and who holds them; of a deployment, of the pool."""
        table = self.client_images[["client_id", "image_index"]].to_numpy("int64", copy=True)
        pool = np.empty(0) if self.pool is None or not self.warmup_steps else self.pool
        digest = hashlib.sha256(table.tobytes() + b"/" + pool.tobytes()).hexdigest()
        return json.dumps([self.images.fingerprint(), digest])


@dataclass(frozen=True)
class FederatedResult:
    """The trained weights by name, their average over the run, and a row per round and client.

    ``connected``: clients at the end; with personal layers those of them that trained. Then ``raw``
    and ``ema`` hold the shared arrays only, ``client_state`` reads what a client kept, and
    ``averaged_personal`` is the mean of the uploaded layers, or None.
    ``run_key``: under which nodes keep their state. ``num_examples``: images by client.
    """

    raw: dict[str, Tensor]
    ema: dict[str, Tensor]
    rounds: pd.DataFrame
    connected: tuple[int, ...]
    client_state: Callable[[int], ClientState]
    averaged_personal: dict[str, Tensor] | None = None
    run_key: str = ""
    num_examples: Mapping[int, int] = field(default_factory=dict)

    def by_itself(self) -> "FederatedResult":
        """Return the result with the clients' personal layers in it, without their files."""
        states = {client: self.client_state(client) for client in self.connected}
        layers = {
            client: ClientState(personal=state.personal, personal_ema=state.personal_ema)
            for client, state in states.items()
            if state.personal
        }
        return replace(self, client_state=layers.__getitem__)


def identify_settings(
    config: FederationConfig,
    settings: ClientSettings,
    rules: ThresholdFilterConfig | None,
    warmup_steps: int,
    start: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Return the settings that the weights depend on, by name; ``rules``: None without a filter."""
    work = config.model_dump(mode="json", exclude=set(WITHOUT_EFFECT))
    filtering = rules.model_dump(mode="json") if rules else {}
    return {
        **{f"federation.{key}": value for key, value in work.items()},
        **{f"threshold_filter.{key}": value for key, value in filtering.items()},
        **settings.model_dump(mode="json", exclude={"training": {"compile"}}),
        "shared_pool.warmup_steps": warmup_steps,
        "model.start_from": fingerprint(start) if start else None,
    }
